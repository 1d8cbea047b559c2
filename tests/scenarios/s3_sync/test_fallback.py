"""
A gate stops a change, never a pod: a new pod gets a fallback for a refused revision.
"""

import os
import random
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from s3_sync.release.format import manifest_key
from tests import Bodies, Facts
from tests.conftest import Counts
from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.aws.fake_s3 import FakeS3
from tests.support.daemon import Daemon
from tests.support.reading import reading
from tests.support.revisions import make_revision
from tests.support.s3_sync.scripted import record_of
from tests.support.s3_sync.shelf import RELEASE, Shelf
from tests.support.s3_sync.snapshots import consumed, count_of
from tests.support.scripts import script
from tests.support.waiting import wait_until

GATE = {"S3_SYNC_LAYOUT": "snapshot", "S3_SYNC_GATE": "syntax"}
BROKEN = b"x = (\n"


def revision(number: int, *, broken: bool = False) -> Bodies:
    return {f"pkg{n % 3}/m{n}.py": f"V = {number}\n".encode() for n in range(12)} | (
        {"pkg0/m0.py": BROKEN} if broken else {}
    )


def kill_at_random(
    daemon: Daemon, target: Path, counts: Counts, *revisions: Mapping[str, bytes]
) -> None:
    """
    Kill the daemon at random moments; assert that a snapshot is complete or absent.
    """
    chance = random.Random(7)
    for _ in range(counts.kills // 2):
        time.sleep(chance.uniform(0.2, 1.2))
        daemon.kill()
        if (target / "current").is_symlink():
            assert consumed(target) in ({}, *revisions)
        daemon.start()


def test_a_new_pod_gets_the_newest_accepted_release(
    s3: FakeS3, start: StartDaemon, target: Path, counts: Counts
) -> None:
    shelf = Shelf(s3)
    shelf.publish(revision(1))
    good = shelf.publish(revision(2))
    shelf.publish(revision(3, broken=True))
    bad = shelf.publish(revision(4, broken=True))
    daemon = start({**RELEASE, **GATE}, interval="0.3")

    kill_at_random(daemon, target, counts, revision(2))

    daemon.wait_until_ready()
    wait_until(lambda: daemon.reason() == "revision_refused", "refused")
    ready = daemon.get("/readyz").json()
    assert (good.revision, True) == (ready["revision"], ready["ready"])
    assert bad.revision in ready["shortfall"]
    assert bad.revision == record_of(daemon)["fallback"]
    assert 1 == count_of(daemon, "sidecar_gate_fallback")
    assert revision(2) == consumed(target)

    better = shelf.publish(revision(5))
    wait_until(
        lambda: daemon.status()["revision"] == better.revision, "the next good release"
    )
    assert revision(5) == consumed(target)
    assert daemon.get("/readyz").json()["shortfall"] is None
    assert 0 == count_of(daemon, "sidecar_gate_fallback")


@pytest.mark.timeout(3_600)
def test_readers_see_only_complete_accepted_releases(
    s3: FakeS3, start: StartDaemon, target: Path, tmp_path: Path, counts: Counts
) -> None:
    """Refused releases contain a file that the readers report as a flaw."""
    check = script(
        tmp_path / "check", "test ! -e no.py || { echo no.py:1: no; exit 1; }"
    )
    gate = GATE | {"S3_SYNC_GATE": "command", "S3_SYNC_GATE_COMMAND": check}
    shelf = Shelf(s3)
    chance = random.Random(5)
    seen: Facts = {}
    shelf.publish(make_revision(1))
    shelf.publish(make_revision(2) | {"no.py": b"no\n"})
    daemon = start({**RELEASE, **gate, "S3_SYNC_RETAIN_FOR": "10s"}, interval="0.2")
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
    s3: FakeS3, start: StartDaemon, target: Path, tmp_path: Path, is_new: bool
) -> None:
    """The previous release passed the gate, and a task waits for the init container."""
    # The gate crashes only on the release whose files contain a 2.
    settings = {
        **RELEASE,
        **GATE,
        "S3_SYNC_GATE": "command",
        "S3_SYNC_GATE_COMMAND": script(
            tmp_path / "gate", "grep -q 2 pkg0/m0.py && kill -9 $$\nexit 0"
        ),
        "S3_SYNC_ONE_SHOT": "true",
    }
    shelf = Shelf(s3)
    shelf.publish(revision(1))
    if not is_new:
        assert 0 == start(settings).wait_for_exit().code
    lost = shelf.publish(revision(3))
    shelf.remove(manifest_key(lost.revision))
    shelf.publish(revision(2))

    daemon = start(settings, interval="0.2")

    assert 0 == daemon.wait_for_exit().code
    assert revision(1) == consumed(target)
    unusable = daemon.find_events("fallback_unusable", reason="release_missing")
    assert ([lost.revision] if is_new else []) == [e["revision"] for e in unusable]
