"""A gate stops a change, never a pod: a new pod gets a fallback for a refused revision."""

import os
import random
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Counts
from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.scenarios.s3_sync.machine.weather import as_user
from tests.support.aws.fake_s3 import FakeS3
from tests.support.daemon import Daemon
from tests.support.reading import reading
from tests.support.revisions import make_revision
from tests.support.s3_sync.shelf import RELEASE, Shelf
from tests.support.s3_sync.snapshots import consumed, wait_for_cycles
from tests.support.scripts import script
from tests.support.waiting import wait_until

GATE = {"S3_SYNC_GATE": "syntax"}
LAYOUTS = {"in place": GATE, "snapshot": GATE | {"S3_SYNC_LAYOUT": "snapshot"}}
BROKEN = b"x = (\n"


def revision(number: int, *, broken: bool = False) -> dict[str, bytes]:
    files = {f"pkg{n % 3}/m{n}.py": f"V = {number}\n".encode() for n in range(12)}
    return files | ({"pkg0/m0.py": BROKEN} if broken else {})


def is_whole(found: Mapping[str, bytes], *revisions: Mapping[str, bytes]) -> bool:
    return found in ({}, *revisions)


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> dict[str, str]:
    return LAYOUTS[request.param]


def kill_at_random(
    daemon: Daemon, target: Path, counts: Counts, *revisions: Mapping[str, bytes]
) -> None:
    """Kill the daemon at random moments; assert that a snapshot is complete or absent."""
    chance = random.Random(7)
    for _ in range(counts.kills // 2):
        time.sleep(chance.uniform(0.2, 1.2))
        daemon.kill()
        if (target / "current").is_symlink():
            assert is_whole(consumed(target), *revisions)
        daemon.start()


def test_a_new_pod_gets_the_newest_accepted_release(
    s3: FakeS3, start: StartDaemon, target: Path, counts: Counts, layout: dict[str, str]
) -> None:
    shelf = Shelf(s3)
    shelf.publish(revision(1))
    good = shelf.publish(revision(2))
    shelf.publish(revision(3, broken=True))
    bad = shelf.publish(revision(4, broken=True))
    daemon = start({**RELEASE, **layout}, interval="0.3")

    kill_at_random(daemon, target, counts, revision(2))

    daemon.wait_until_ready()
    wait_until(lambda: daemon.get("/readyz").json()["reason"] == "revision_refused", "refused")
    ready = daemon.get("/readyz").json()
    assert (good.revision, True) == (ready["revision"], ready["ready"])
    assert bad.revision in ready["shortfall"]
    assert revision(2) == consumed(target)

    better = shelf.publish(revision(5))
    wait_until(lambda: daemon.status()["revision"] == better.revision, "the next good release")
    assert revision(5) == consumed(target)
    assert daemon.get("/readyz").json()["shortfall"] is None


def test_a_new_pod_gets_all_files_of_a_listing_except_the_refused_ones(
    s3: FakeS3, start: StartDaemon, target: Path, counts: Counts, layout: dict[str, str]
) -> None:
    s3.objects.clear()
    s3.put_all(revision(1, broken=True), "dags/")
    rest = {path: body for path, body in revision(1).items() if path != "pkg0/m0.py"}
    daemon = start(layout, interval="0.3")

    kill_at_random(daemon, target, counts, rest)

    daemon.wait_until_ready()
    assert rest == consumed(target)
    assert "fallback" in daemon.get("/readyz").json()["shortfall"]
    s3.put("dags/pkg0/m0.py", b"V = 1\n")
    wait_until(lambda: consumed(target) == revision(1), "the fixed file is published")
    wait_until(lambda: daemon.get("/readyz").json()["shortfall"] is None, "no file is missing")


@pytest.mark.parametrize("source", ["release", "listing"])
def test_a_one_shot_succeeds_with_a_fallback_after_earlier_ones_were_killed(
    s3: FakeS3,
    start: StartDaemon,
    target: Path,
    counts: Counts,
    layout: dict[str, str],
    source: str,
) -> None:
    """Each task pod is a new pod, which needs its init container to succeed."""
    accepted = revision(1)
    if source == "release":
        shelf = Shelf(s3)
        shelf.publish(accepted)
        shelf.publish(revision(2, broken=True))
    else:
        s3.objects.clear()
        s3.put_all(revision(1, broken=True), "dags/")
        del accepted["pkg0/m0.py"]
    one_shot = start({**layout, "S3_SYNC_SOURCE": source, "S3_SYNC_ONE_SHOT": "true"})

    kill_at_random(one_shot, target, counts, accepted)

    assert 0 == one_shot.wait_for_exit().code
    assert accepted == consumed(target)


@pytest.mark.timeout(3_600)
def test_readers_see_only_complete_accepted_releases(
    s3: FakeS3, start: StartDaemon, target: Path, tmp_path: Path, counts: Counts
) -> None:
    """Refused releases contain a file that the readers report as a flaw."""
    check = script(tmp_path / "check", "test ! -e no.py || { echo no.py:1: no; exit 1; }")
    gate = {"S3_SYNC_GATE": "command", "S3_SYNC_GATE_COMMAND": check}
    layout = {"S3_SYNC_LAYOUT": "snapshot", "S3_SYNC_RETAIN_FOR": "10s"}
    shelf, chance = Shelf(s3), random.Random(5)
    seen: dict[str, Any] = {}
    shelf.publish(make_revision(1))
    shelf.publish(make_revision(2) | {"no.py": b"no\n"})
    daemon = start({**RELEASE, **gate, **layout}, interval="0.2")
    kill_at_random(daemon, target, counts, make_revision(1))
    daemon.wait_until_ready()
    with reading(seen, target / "current", 10):
        for number in range(3, 3 + counts.kills, 2):
            shelf.publish(make_revision(number) | {"no.py": b"no\n"})
            time.sleep(chance.uniform(0.0, 0.6))
            good = shelf.publish(make_revision(number + 1))
            if chance.random() < 0.5:
                daemon.kill()
                daemon.start()
            wait_until(
                lambda: os.readlink(target / "current").endswith(good.revision),  # noqa: B023
                "the next good release",
            )

    assert ([], 0) == (seen["flaws"], seen["gone"])
    assert seen["changes"] >= counts.kills // 4


@pytest.mark.parametrize("is_new", [True, False], ids=["new volume", "old volume"])
def test_a_one_shot_succeeds_with_a_fallback_when_the_gate_crashes(
    s3: FakeS3,
    start: StartDaemon,
    target: Path,
    tmp_path: Path,
    layout: dict[str, str],
    is_new: bool,
) -> None:
    """The previous release passed the gate, and a task waits for the init container."""
    # The gate crashes only on the release whose files contain a 2.
    dying = script(tmp_path / "gate", "grep -q 2 pkg0/m0.py && kill -9 $$\nexit 0")
    gate = {"S3_SYNC_GATE": "command", "S3_SYNC_GATE_COMMAND": dying}
    settings = {**RELEASE, **layout, **gate, "S3_SYNC_ONE_SHOT": "true"}
    shelf = Shelf(s3)
    shelf.publish(revision(1))
    if not is_new:
        assert 0 == start(settings).wait_for_exit().code
    shelf.publish(revision(2))

    assert 0 == start(settings, interval="0.2").wait_for_exit().code
    assert revision(1) == consumed(target)


@pytest.fixture
def groups_folder(open_folder: Path) -> Path:
    """A folder of root that its group can write to."""
    target = open_folder / "dags"
    target.mkdir()
    target.chmod(0o775)
    return target


@pytest.fixture
def start_as_user(groups_folder: Path, start: StartDaemon) -> Callable[[str], Daemon]:
    """A function that starts gated daemons on that folder as another user, for a source."""
    return lambda source: start(
        {**GATE, "S3_SYNC_SOURCE": source},
        target=groups_folder,
        interval="0.3",
        wrapper=as_user(50000, 0),
    )


@pytest.mark.parametrize("source", ["release", "listing"])
def test_a_partial_accepted_revision_does_not_admit_a_refused_one(
    s3: FakeS3, start_as_user: Callable[[str], Daemon], groups_folder: Path, source: str
) -> None:
    """A file of an accepted revision cannot be written; the next revision is broken."""
    shelf = Shelf(s3)

    def offer(files: Mapping[str, bytes]) -> None:
        if source == "release":
            shelf.publish(files)
        s3.put_all(files, "dags/")

    s3.objects.clear()
    offer({"a.py": b"V = 1\n"})
    daemon = start_as_user(source)
    daemon.wait_until_ready()
    (groups_folder / "pkg").mkdir(mode=0o755)  # root's
    accepted = {"a.py": b"V = 2\n", "pkg/x.py": b"X = 1\n"}
    offer(accepted)
    daemon.wait_for_event("cycle_failed", reason="target_denied")
    offer({**accepted, "a.py": BROKEN})

    daemon.wait_for_event("revision_refused")
    if source == "release":  # the accepted one is retried as a fallback
        daemon.wait_for_event("cycle_failed", reason="target_denied", after=len(daemon.events))
    else:
        wait_for_cycles(daemon, "refused", 3)
    assert {"a.py": accepted["a.py"]} == consumed(groups_folder)
    assert 503 == daemon.get("/readyz").status  # a partial revision is published
    shutil.chown(groups_folder / "pkg", 50000, 0)
    daemon.sighup()  # the backoff may be a minute
    if source == "release":
        wait_until(lambda: consumed(groups_folder) == accepted, "the revision is complete")
        wait_until(lambda: daemon.get("/readyz").status == 200, "the revision is complete again")
    offer(accepted | {"a.py": b"V = 3\n"})
    wait_until(lambda: consumed(groups_folder) == accepted | {"a.py": b"V = 3\n"}, "its files")
    wait_until(lambda: daemon.get("/readyz").status == 200, "the next revision is complete")


@pytest.mark.parametrize("source", ["release", "listing"])
def test_rolling_back_to_the_published_revision_ends_the_partial_state(
    s3: FakeS3, start_as_user: Callable[[str], Daemon], groups_folder: Path, source: str
) -> None:
    """A release that could not be written at all is rolled back."""
    (groups_folder / "pkg").mkdir(mode=0o755)  # root's
    shelf = Shelf(s3)
    s3.objects.clear()
    first = shelf.publish({"a.py": b"V = 1\n"})
    s3.put("dags/a.py", b"V = 1\n")
    daemon = start_as_user(source)
    daemon.wait_until_ready()
    shelf.publish({"a.py": b"V = 1\n", "pkg/x.py": b"X = 1\n"})
    s3.put("dags/pkg/x.py", b"X = 1\n")
    daemon.wait_for_event("cycle_failed", reason="target_denied")
    shelf.point_to(first, restores=1)
    s3.delete("dags/pkg/x.py")
    daemon.sighup()

    wait_until(lambda: daemon.get("/readyz").status == 200, "the earlier revision is complete")
    daemon.kill()
    daemon.start().wait_until_ready()


@pytest.fixture
def shown_in_part(
    s3: FakeS3, start_as_user: Callable[[str], Daemon], groups_folder: Path
) -> tuple[Daemon, dict[str, bytes]]:
    """A daemon that could write only one file of a release, and all files of the release."""
    shelf = Shelf(s3)
    shelf.publish({"a.py": b"V = 1\n"})
    daemon = start_as_user("release")
    daemon.wait_until_ready()
    (groups_folder / "pkg").mkdir(mode=0o755)
    files = {"a.py": b"V = 2\n", "pkg/x.py": b"X = 1\n"}
    shelf.publish(files)
    daemon.wait_for_event("cycle_failed", reason="target_denied")
    return daemon, files


def test_completes_a_partial_release_after_its_marker_file_was_removed(
    shown_in_part: tuple[Daemon, dict[str, bytes]], groups_folder: Path
) -> None:
    daemon, files = shown_in_part
    (groups_folder / ".s3-sync/publishing").unlink()
    shutil.chown(groups_folder / "pkg", 50000, 0)
    daemon.sighup()

    wait_until(lambda: daemon.get("/readyz").status == 200, "the revision is complete")
    assert files == consumed(groups_folder)


def test_completes_a_partial_release_after_a_staged_file_was_damaged(
    shown_in_part: tuple[Daemon, dict[str, bytes]], groups_folder: Path
) -> None:
    daemon, files = shown_in_part
    daemon.kill()
    (groups_folder / ".s3-sync/staged/pkg/x.py").write_bytes(b"")
    shutil.chown(groups_folder / "pkg", 50000, 0)

    daemon.start().wait_until_ready()

    assert files == consumed(groups_folder)
