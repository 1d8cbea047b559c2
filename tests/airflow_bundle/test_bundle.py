"""The bundle in a process of a real Airflow 3, with versions from a real s3-sync."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import Bodies
from tests.conftest import Counts
from tests.support.airflow.asking import STORE
from tests.support.airflow.bundles import BundleFailed, Bundles, running_bundles
from tests.support.airflow.installed import Airflow, Version
from tests.support.aws.fake_s3 import FakeS3, error
from tests.support.daemon import Daemon
from tests.support.git.git_sync import git_site, skip_without_git_sync
from tests.support.raising import raised
from tests.support.s3_sync.scripted import published
from tests.support.s3_sync.shelf import Shelf, is_bundle, release_daemon
from tests.support.waiting import wait_until

# How long a bundle waits here before it reports that no sidecar answers.
SHORT_SECONDS = 0.5
VERSION = f"sha256-{'a' * 64}"


def files_of(number: int) -> Bodies:
    mark = f"MARK = {number}\n".encode()
    return {
        "mark.py": mark,
        "pkg/mark_2.py": mark,
        "same.py": b"pass\n",
        "dags/mark_3.py": mark,
    }


@dataclass(frozen=True)
class Pod:
    """The volume of a pod with its sidecar, and a process of Airflow that reads it."""

    bundles: Bundles
    s3: FakeS3
    shelf: Shelf
    target: Path
    ends: ExitStack

    @property
    def link(self) -> str:
        return str(self.target / "current")

    def start(self, **settings: str | None) -> Daemon:
        """Start a sidecar that keeps only the current version, and those in use."""
        return self.ends.enter_context(
            release_daemon(
                self.s3,
                self.target,
                {
                    "S3_SYNC_LAYOUT": "snapshot",
                    "S3_SYNC_RETAIN_COUNT": "0",
                    "S3_SYNC_RETAIN_FOR": "0",
                    **settings,
                },
            )
        )

    def initialize(self, version: str | None = None, **given: Any) -> Path:
        return self.bundles.initialize(
            **{"path": self.link, "version": version, **given}
        )

    def fails(self, version: str | None = None, **given: Any) -> str:
        """Return how a bundle of this version fails."""
        return str(
            raised(
                BundleFailed,
                self.initialize,
                version,
                **{"wait_seconds": SHORT_SECONDS} | given,
            )
        )

    def shows(self, number: int, path: Path) -> bool:
        return files_of(number) == published(path)


@pytest.fixture(scope="module")
def airflow() -> Airflow:
    return Airflow.install_or_skip("3")


@pytest.fixture(scope="module")
def bundles(
    airflow: Airflow, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bundles]:
    with running_bundles(airflow, tmp_path_factory.mktemp("airflow")) as bundles:
        yield bundles


@pytest.fixture
def pod(bundles: Bundles, tmp_path: Path) -> Iterator[Pod]:
    with ExitStack() as ends:
        s3 = ends.enter_context(FakeS3())
        yield Pod(bundles, s3, Shelf(s3), tmp_path / "dags", ends)
    bundles.do("python_path", folders=[])


@pytest.fixture
def versions(pod: Pod) -> list[str]:
    """The names of four releases; the last one is current."""
    return [pod.shelf.publish(files_of(number)).revision for number in range(4)]


@pytest.fixture
def daemon(pod: Pod, versions: list[str]) -> Daemon:
    return pod.start().until_synced()


# --- the current version


def test_only_a_refresh_moves_to_the_current_version(
    pod: Pod, daemon: Daemon, versions: list[str]
) -> None:
    path = pod.initialize()
    assert versions[3] == pod.bundles.do("version") == path.name
    assert pod.shows(3, path)

    new = pod.shelf.publish(files_of(7))
    daemon.sync()
    assert path.name == pod.bundles.do("version")
    assert pod.shows(3, path)  # in use, so kept although RETAIN_FOR is 0

    pod.bundles.do("refresh")
    assert new.revision == pod.bundles.do("version")
    path_in_queue = Path(pod.bundles.do("path"))

    newest = pod.shelf.publish(files_of(8))
    daemon.sync()
    assert not path.exists() and pod.shows(7, path_in_queue)
    pod.bundles.do("refresh")
    assert newest.revision == pod.bundles.do("version")
    assert pod.shows(8, path_in_queue)


def test_waits_only_once_so_that_the_dag_processor_can_serve_other_bundles(
    pod: Pod, versions: list[str]
) -> None:
    """It initializes the same bundle repeatedly, and parses nothing meanwhile."""
    said = pod.fails()
    assert f"VersionUnavailable: nothing is published at {pod.link}" in said
    assert "waited 0.5 s" in said
    assert "(waited 0 s)" in str(raised(BundleFailed, pod.bundles.do, "initialize"))

    pod.start().until_synced()
    pod.bundles.do("initialize")
    assert versions[3] == pod.bundles.do("version")


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"path": "dags"}, "write its path, such as dags/current"),
        ({"path": f"dags/{STORE}"}, f"VersionUnavailable: dags/{STORE} is not the symlink to"),
        ({"path": f"dags/{STORE}", "version": VERSION}, f"dags/{STORE} is not the symlink to"),
        ({"subdir": "mark.py"}, "of bundle 'dags' has no folder 'mark.py'"),
        *(
            ({"version": name}, "is not a version")
            for name in ("../../etc", "current", "A" * 64, "\u00e4" * 64)
        ),
        # The default wait is a minute.
        ({"version": VERSION, "wait_seconds": 60}, f"{VERSION} of bundle 'dags' is gone: s3://"),
    ],
)  # fmt: skip
def test_what_cannot_come_fails_without_waiting(
    pod: Pod, given: Mapping[str, Any], said: str
) -> None:
    if "path" in given:
        given = {**given, "path": str(pod.target.parent / given["path"])}

    failed = pod.fails(**given).replace(f"{pod.target.parent}/", "")

    assert said in failed and "waited" not in failed


def test_a_listing_has_the_versions_that_are_on_the_volume(pod: Pod) -> None:
    pod.s3.put("dags/a.py", b"pass\n")
    daemon = pod.start(S3_SYNC_SOURCE="listing", S3_SYNC_RETAIN_FOR="1h").until_synced()
    first = pod.initialize().name
    pod.s3.put("dags/a.py", b"changed\n")
    daemon.sync()

    assert {"a.py": b"pass\n"} == published(pod.initialize(first))
    assert "on the volume are available (waited" in pod.fails("0" * 12)


def test_a_subfolder_can_be_the_dag_folder_of_every_version_that_has_it(
    pod: Pod, daemon: Daemon, versions: list[str]
) -> None:
    path = pod.initialize(subdir="dags")
    assert {"mark_3.py": b"MARK = 3\n"} == published(path)
    assert versions[3] == pod.bundles.do("version") == path.parent.name

    pod.shelf.publish({"a.py": b"pass\n"})
    daemon.sync()
    with pytest.raises(BundleFailed, match="has no folder 'dags'"):
        pod.bundles.do("refresh")
    assert str(path) == pod.bundles.do("path")


# --- one version


def test_without_a_sidecar_shows_what_is_there_and_waits_for_what_is_not(
    pod: Pod, daemon: Daemon, versions: list[str]
) -> None:
    assert pod.initialize(versions[1]).name == pod.bundles.do("version") == versions[1]
    with pytest.raises(BundleFailed, match="cannot be refreshed"):
        pod.bundles.do("refresh")
    daemon.kill()

    for number in (1, 3):
        assert pod.shows(number, pod.initialize(versions[number]))
    assert pod.shows(3, pod.initialize())
    said = pod.fails(versions[0])
    assert f"version {versions[0]} of bundle 'dags' is not on this volume" in said
    assert "no sidecar answers at" in said
    # A volume that another node writes looks the same: it contains a socket file.
    assert "sidecar of this pod is running. If another node writes this volume" in said


def test_reports_a_failing_source_before_the_first_publish(
    pod: Pod, versions: list[str]
) -> None:
    """As in a task pod, where task and sidecar start together."""
    pod.s3.inject(error(403, "AccessDenied"))
    pod.start().wait_for_event("cycle_failed")

    said = pod.fails(versions[0])
    assert f"version {versions[0]} of bundle 'dags' is not on this volume: " in said
    assert "403" in said

    pod.s3.heal()
    assert pod.shows(0, pod.initialize(versions[0]))


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize(
    "place",
    ["dags/.s3-sync/../current/", "alias", "dags", f"dags/{STORE}/{VERSION}"],
)
def test_refuses_current_and_other_versions_on_pythons_path_by_any_name(
    pod: Pod, versions: list[str], tmp_path: Path, place: str
) -> None:
    """
    Even for the current version, because another one may become current during the
    task.
    """
    (tmp_path / "alias").symlink_to(pod.link)
    pod.bundles.do("python_path", folders=[str(tmp_path / place)])

    said = pod.fails(versions[3])

    assert f"{os.path.abspath(tmp_path / place)} is on Python's path" in said
    assert "plugins_folder" in said


def test_allows_the_version_itself_and_other_folders_on_pythons_path(pod: Pod) -> None:
    folder = pod.target / STORE / VERSION
    folder.mkdir(parents=True)
    pod.bundles.do(
        "python_path",
        folders=list(
            map(str, (pod.target.parent, pod.target / "lib", folder, folder / "dags"))
        ),
    )

    assert folder == pod.initialize(VERSION)


def test_concurrent_requests_get_their_versions_and_fetch_each_one_once(
    pod: Pod, counts: Counts
) -> None:
    """
    With `--full`, two thousand requests for fifty versions, with the default retention.
    """
    made = [
        pod.shelf.publish(files_of(number)).revision
        for number in range(counts.versions)
    ]
    pod.start(S3_SYNC_RETAIN_COUNT=None, S3_SYNC_RETAIN_FOR=None).until_synced()
    pod.s3.forget()

    assert [] == pod.bundles.do(
        "storm", path=pod.link, versions=made, calls=counts.version_calls
    )
    assert len(made) - 1 == sum(map(is_bundle, pod.s3.requests))


# --- in Airflow


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("version", ["3", "3.2", "next"])
def test_airflow_creates_the_bundle_from_its_configuration_and_cleans_up(
    request: pytest.FixtureRequest,
    version: Version,
    pod: Pod,
    versions: list[str],
    tmp_path: Path,
) -> None:
    """Airflow's clean-up fails if a version has no folder in the expected place."""
    if version != "3":
        request.getfixturevalue("only_in_full")
    airflow = Airflow.install_or_skip(version)
    configured = [
        {
            "name": "dags",
            "classpath": "airflow_sidecar_bundle.SidecarDagBundle",
            "kwargs": {"path": pod.link, "refresh_interval": 5},
        }
    ]
    with running_bundles(
        airflow,
        tmp_path / "airflow",
        {"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(configured)},
    ) as bundles:
        bundles.do("configured")
        bundles.do("initialize")
        assert versions[3] == bundles.do("version")
        bundles.do("configured", version=versions[2])
        bundles.do("initialize")
        assert bundles.do("clean_up", version=versions[2])
        assert pod.shows(2, Path(bundles.do("path")))


def test_commits_of_git_sync_wrapper_are_versions(
    bundles: Bundles, tmp_path: Path
) -> None:
    """
    The published one, one in use, and those that are retained; no other is ever shown.
    """
    skip_without_git_sync()
    with git_site(tmp_path) as site:
        link = str(site.link)
        old = site.repository.commit(files_of(0), whole=True)
        site.publish(
            GIT_SYNC_WRAPPER_RETAIN_COUNT="0", GIT_SYNC_WRAPPER_RETAIN_FOR="0s"
        )
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
        site.wait_until_shown(site.repository.commit(files_of(2), whole=True))
        wait_until(lambda: not path.exists(), "nobody uses it any more", 30)
        assert "only the versions on the volume are available" in str(
            raised(
                BundleFailed,
                bundles.initialize,
                path=link,
                version=old,
                wait_seconds=0.5,
            )
        )
