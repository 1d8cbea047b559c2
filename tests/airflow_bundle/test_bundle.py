"""The bundle in a process of a real Airflow 3, with versions from a real s3-sync."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Counts
from tests.support.airflow.asking import STORE
from tests.support.airflow.bundles import BundleFailed, Bundles, running_bundles
from tests.support.airflow.installed import Airflow, Version
from tests.support.aws.fake_s3 import FakeS3, error
from tests.support.daemon import Daemon
from tests.support.git.git_sync import git_site, skip_without_git_sync
from tests.support.raising import raised
from tests.support.s3_sync.releases import Release
from tests.support.s3_sync.scripted import published
from tests.support.s3_sync.shelf import Shelf, is_bundle, is_manifest, release_daemon
from tests.support.waiting import wait_until

SETTINGS: dict[str, str | None] = {
    "S3_SYNC_LAYOUT": "snapshot",
    "S3_SYNC_RETAIN_COUNT": "0",
    "S3_SYNC_RETAIN_FOR": "0",
}
# How long a bundle waits here before it reports that no sidecar answers.
SHORT_SECONDS = 0.5
VERSION = f"sha256-{'a' * 64}"


def files_of(number: int) -> dict[str, bytes]:
    mark = f"MARK = {number}\n".encode()
    return {"mark.py": mark, "pkg/mark_2.py": mark, "same.py": b"pass\n", "dags/mark_3.py": mark}


@pytest.fixture(scope="module")
def airflow() -> Airflow:
    return Airflow.install_or_skip("3")


@pytest.fixture(scope="module")
def bundles(airflow: Airflow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundles]:
    with running_bundles(airflow, tmp_path_factory.mktemp("airflow")) as bundles:
        yield bundles


@pytest.fixture
def importing(bundles: Bundles) -> Iterator[Callable[..., Bundles]]:
    """A function that puts folders on the Python path of the bundles' process."""

    def begin(*folders: Path) -> Bundles:
        bundles.do("python_path", folders=[str(folder) for folder in folders])
        return bundles

    yield begin
    begin()


@pytest.fixture
def s3() -> Iterator[FakeS3]:
    with FakeS3() as server:
        yield server


@pytest.fixture
def shelf(s3: FakeS3) -> Shelf:
    return Shelf(s3)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "dags"


@pytest.fixture
def releases(shelf: Shelf) -> list[Release]:
    """Four releases; the last one is current."""
    return [shelf.publish(files_of(number)) for number in range(4)]


@pytest.fixture
def start(s3: FakeS3, target: Path) -> Iterator[Callable[..., Daemon]]:
    daemons: list[Daemon] = []

    def begin(**more: str | None) -> Daemon:
        daemons.append(release_daemon(s3, target, SETTINGS | more).start())
        return daemons[-1]

    yield begin
    for daemon in daemons:
        daemon.kill()


@pytest.fixture
def daemon(start: Callable[..., Daemon], releases: list[Release]) -> Daemon:
    return start().until_synced()


@pytest.fixture
def link(target: Path) -> str:
    return str(target / "current")


def fails(bundles: Bundles, **given: Any) -> str:
    return str(raised(BundleFailed, bundles.initialize, wait_seconds=SHORT_SECONDS, **given))


# --- the current version


def test_only_a_refresh_moves_to_the_current_version(
    bundles: Bundles, daemon: Daemon, shelf: Shelf, releases: list[Release], link: str
) -> None:
    path = bundles.initialize(path=link)
    assert releases[3].revision == bundles.do("version") == path.name
    assert files_of(3) == published(path)

    new = shelf.publish(files_of(7))
    daemon.sync()
    assert str(path) == bundles.do("path") and releases[3].revision == bundles.do("version")
    assert files_of(3) == published(path)  # in use, so kept although RETAIN_FOR is 0

    bundles.do("refresh")
    assert new.revision == bundles.do("version")
    path_in_queue = Path(bundles.do("path"))
    assert files_of(7) == published(path_in_queue)

    newest = shelf.publish(files_of(8))
    daemon.sync()
    assert not path.exists() and files_of(7) == published(path_in_queue)
    bundles.do("refresh")
    assert newest.revision == bundles.do("version")
    assert files_of(8) == published(path_in_queue)


def test_reports_that_nothing_is_published(bundles: Bundles, link: str) -> None:
    said = fails(bundles, path=link)
    assert "VersionUnavailable: nothing is published at" in said
    assert link in said and "waited 0.5 s" in said


def test_waits_only_once_so_that_the_dag_processor_can_serve_other_bundles(
    bundles: Bundles, start: Callable[..., Daemon], releases: list[Release], link: str
) -> None:
    """It initializes the same bundle repeatedly, and parses nothing meanwhile."""
    fails(bundles, path=link)
    assert "(waited 0 s)" in str(raised(BundleFailed, bundles.do, "initialize"))

    start().until_synced()
    bundles.do("initialize")
    assert releases[3].revision == bundles.do("version")


@pytest.mark.usefixtures("daemon")
def test_a_path_to_the_folder_of_the_link_fails_without_waiting(
    bundles: Bundles, target: Path
) -> None:
    said = fails(bundles, path=str(target))

    assert f"write its path, such as {target}/current" in said
    assert "waited" not in said


@pytest.mark.parametrize("version", [None, VERSION])
def test_a_path_that_is_not_a_symlink_fails_without_waiting(
    bundles: Bundles, target: Path, version: str | None
) -> None:
    folder = target / STORE / VERSION
    folder.mkdir(parents=True)

    said = fails(bundles, path=str(folder), version=version)

    assert f"VersionUnavailable: {folder} is not the symlink to the current version" in said
    assert "waited" not in said


def test_a_listing_has_the_versions_that_are_on_the_volume(
    bundles: Bundles, s3: FakeS3, start: Callable[..., Daemon], link: str
) -> None:
    s3.put("dags/a.py", b"pass\n")
    daemon = start(S3_SYNC_SOURCE="listing", S3_SYNC_RETAIN_FOR="1h").until_synced()
    first = bundles.initialize(path=link).name
    s3.put("dags/a.py", b"changed\n")
    daemon.sync()

    assert {"a.py": b"pass\n"} == published(bundles.initialize(path=link, version=first))
    assert "only the versions on the volume" in fails(bundles, path=link, version="0" * 12)


def test_a_subfolder_of_a_version_can_be_the_dag_folder(
    bundles: Bundles, daemon: Daemon, releases: list[Release], link: str
) -> None:
    path = bundles.initialize(path=link, subdir="dags")

    assert {"mark_3.py": b"MARK = 3\n"} == published(path)
    assert releases[3].revision == bundles.do("version") == path.parent.name


@pytest.mark.parametrize("number", [None, 1])
def test_a_version_without_the_dag_folder_fails_without_waiting(
    bundles: Bundles, daemon: Daemon, releases: list[Release], link: str, number: int | None
) -> None:
    version = releases[number].revision if number is not None else None
    with pytest.raises(BundleFailed, match=r"has no folder 'mark\.py'") as failed:
        bundles.initialize(path=link, version=version, subdir="mark.py")
    assert f"version {version or releases[3].revision} of bundle 'dags'" in str(failed.value)
    assert "waited" not in str(failed.value)


def test_refresh_keeps_the_old_version_if_the_new_one_lacks_the_dag_folder(
    bundles: Bundles, daemon: Daemon, shelf: Shelf, releases: list[Release], link: str
) -> None:
    path = bundles.initialize(path=link, subdir="dags")
    shelf.publish({"a.py": b"pass\n"})
    daemon.sync()

    with pytest.raises(BundleFailed, match="has no folder 'dags'"):
        bundles.do("refresh")
    assert str(path) == bundles.do("path") and releases[3].revision == bundles.do("version")


# --- one version


def test_fetches_a_version_that_is_not_on_the_volume(
    bundles: Bundles, daemon: Daemon, releases: list[Release], link: str
) -> None:
    path = bundles.initialize(path=link, version=releases[0].revision)

    assert releases[0].revision == path.name == bundles.do("version")
    assert files_of(0) == published(path)
    with pytest.raises(BundleFailed, match="cannot be refreshed"):
        bundles.do("refresh")


def test_a_version_on_the_volume_needs_no_sidecar(
    bundles: Bundles, daemon: Daemon, releases: list[Release], link: str
) -> None:
    bundles.initialize(path=link, version=releases[1].revision)
    daemon.kill()

    for number in (1, 3):
        path = bundles.initialize(path=link, version=releases[number].revision)
        assert files_of(number) == published(path)
    assert files_of(3) == published(bundles.initialize(path=link))


def test_without_a_sidecar_waits_for_a_missing_version_and_reports_why(
    bundles: Bundles, daemon: Daemon, releases: list[Release], link: str
) -> None:
    daemon.kill()

    said = fails(bundles, path=link, version=releases[0].revision)

    assert f"version {releases[0].revision} of bundle 'dags' is not on this volume" in said
    assert "no sidecar answers at" in said and "waited 0.5 s" in said
    # A volume that another node writes looks the same: it contains a socket file.
    assert "sidecar of this pod is running. If another node writes this volume" in said


def test_a_version_that_is_gone_from_the_source_fails_with_advice(
    bundles: Bundles, daemon: Daemon, link: str
) -> None:
    with pytest.raises(BundleFailed) as failed:  # the default wait is a minute
        bundles.initialize(path=link, version=VERSION)

    said = str(failed.value)
    assert f"version {VERSION} of bundle 'dags' is gone: s3://" in said
    assert "publish that version again" in said and "waited" not in said


def test_reports_a_failing_source_before_the_first_publish(
    bundles: Bundles, s3: FakeS3, start: Callable[..., Daemon], releases: list[Release], link: str
) -> None:
    """As in a task pod, where task and sidecar start together."""
    s3.inject(error(403, "AccessDenied"))
    daemon = start()
    daemon.wait_for_event("cycle_failed")

    said = fails(bundles, path=link, version=releases[0].revision)

    assert f"version {releases[0].revision} of bundle 'dags' is not on this volume: " in said
    assert "403" in said

    s3.heal()
    bundles.do("new", path=link, version=releases[0].revision)
    bundles.do("initialize")
    assert files_of(0) == published(Path(bundles.do("path")))


@pytest.mark.parametrize("version", ["../../etc", "current", "A" * 64, "a" * 13, "\u00e4" * 64])
def test_refuses_an_invalid_version_name(
    bundles: Bundles, daemon: Daemon, link: str, version: str
) -> None:
    assert "is not a version" in fails(bundles, path=link, version=version)


@pytest.mark.parametrize(
    "place",
    [
        "dags/current/dags",
        "dags/.s3-sync/../current/",
        "alias",
        "alias/dags",
        "dags",
        f"dags/{STORE}",
        f"dags/{STORE}/{VERSION}",
    ],
)
def test_refuses_current_and_other_versions_on_pythons_path_by_any_name(
    importing: Callable[..., Bundles],
    daemon: Daemon,
    releases: list[Release],
    link: str,
    tmp_path: Path,
    place: str,
) -> None:
    """Even for the current version, because another one may become current during the task."""
    (tmp_path / "alias").symlink_to(link)
    bundles = importing(tmp_path / place)
    said = fails(bundles, path=link, version=releases[3].revision)
    assert f"{os.path.abspath(tmp_path / place)} is on Python's path" in said


def test_allows_the_version_itself_and_other_folders_on_pythons_path(
    importing: Callable[..., Bundles], target: Path, link: str, tmp_path: Path
) -> None:
    folder = target / STORE / VERSION
    folder.mkdir(parents=True)
    bundles = importing(tmp_path, target / "lib", folder, folder / "dags")
    assert folder == bundles.initialize(path=link, version=VERSION)


def test_a_task_fails_if_the_plugins_folder_is_in_the_current_version(
    airflow: Airflow, daemon: Daemon, releases: list[Release], target: Path, tmp_path: Path
) -> None:
    """Airflow adds the plugins folder to the path when it starts, without PYTHONPATH."""
    plugins, link = f"{target}/current/plugins", str(target / "current")
    with running_bundles(airflow, tmp_path, {"AIRFLOW__CORE__PLUGINS_FOLDER": plugins}) as bundles:
        said = fails(bundles, path=link, version=releases[3].revision)
        assert f"{plugins} is on Python's path" in said and "plugins_folder" in said


def test_a_version_is_locked_as_long_as_its_bundle_exists(
    bundles: Bundles, daemon: Daemon, releases: list[Release], link: str
) -> None:
    path = bundles.initialize(path=link, version=releases[0].revision)
    opened = os.open(path, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)

    bundles.do("drop")

    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(opened)


def test_concurrent_requests_get_their_versions_and_fetch_each_one_once(
    bundles: Bundles,
    s3: FakeS3,
    shelf: Shelf,
    start: Callable[..., Daemon],
    link: str,
    target: Path,
    counts: Counts,
) -> None:
    """With `--full`, two thousand requests for fifty versions, with the default retention."""
    made = [shelf.publish(files_of(number)) for number in range(counts.versions)]
    versions = [release.revision for release in made]
    start(S3_SYNC_RETAIN_COUNT=None, S3_SYNC_RETAIN_FOR=None).until_synced()
    s3.forget()

    wrong = bundles.do("storm", path=link, versions=versions, calls=counts.version_calls)

    assert [] == wrong
    assert len(versions) - 1 == sum(map(is_manifest, s3.requests))
    assert len(versions) - 1 == sum(map(is_bundle, s3.requests))
    for number, version in enumerate(versions):
        assert files_of(number) == published(target / STORE / version)


# --- in Airflow


@pytest.mark.parametrize("version", ["3", "next"])
def test_airflow_creates_the_bundle_from_its_configuration_and_cleans_up(
    version: Version, daemon: Daemon, releases: list[Release], link: str, tmp_path: Path
) -> None:
    """Airflow's clean-up fails if a version has no folder in the expected place."""
    airflow = Airflow.install_or_skip(version)
    configured = [
        {
            "name": "dags",
            "classpath": "airflow_sidecar_bundle.SidecarDagBundle",
            "kwargs": {"path": link, "refresh_interval": 5},
        }
    ]
    setting = {"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(configured)}
    with running_bundles(airflow, tmp_path / "airflow", setting) as bundles:
        bundles.do("configured")
        bundles.do("initialize")
        assert releases[3].revision == bundles.do("version")
        bundles.do("configured", version=releases[2].revision)
        bundles.do("initialize")
        assert files_of(2) == published(Path(bundles.do("path")))

        assert bundles.do("clean_up", version=releases[2].revision)
        assert files_of(2) == published(Path(bundles.do("path")))


def test_commits_of_git_sync_wrapper_are_versions(bundles: Bundles, tmp_path: Path) -> None:
    """The published one, one in use, and those that are retained; no other is ever shown."""
    skip_without_git_sync()
    with git_site(tmp_path) as site:
        link = str(site.link)
        old = site.repository.commit(files_of(0), whole=True)
        keeps = {"GIT_SYNC_WRAPPER_RETAIN_COUNT": "0", "GIT_SYNC_WRAPPER_RETAIN_FOR": "0s"}
        site.publish(**keeps)
        path = bundles.initialize(path=link)
        assert old == path.name == bundles.do("version")

        new = site.repository.commit(files_of(1), whole=True)
        site.wait_until_shown(new)
        bundles.do("new", "run", path=link, version=old)
        bundles.do("initialize", "run")
        bundles.do("refresh")
        assert new == bundles.do("version")
        assert str(path) == bundles.do("path", "run")
        assert files_of(0).items() <= published(path).items()

        bundles.do("drop", "run")
        newest = site.repository.commit(files_of(2), whole=True)
        site.wait_until_shown(newest)
        wait_until(lambda: not path.exists(), "nobody uses it any more", 30)
        assert "only the versions on the volume are available" in fails(
            bundles, path=link, version=old
        )
