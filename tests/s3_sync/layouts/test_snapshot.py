"""The snapshot layout on a real file system."""

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from s3_sync.layouts.snapshot import Snapshot
from s3_sync.tree.volume import Volume
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.runtime.recording import Log
from tests.s3_sync.layouts.revisions import ONE, TWO, links
from tests.s3_sync.stage import SNAPSHOT, Begin, Stage, files_of, settings_of
from tests.support.machine.descriptors import held

# --- publishing


def test_snapshots_share_unchanged_files(two: Stage) -> None:
    assert links(two, "d/b.py", "r1", "r2")
    assert links(two, "a.py", "r2") and not links(two, "a.py", "r1")


def test_a_revoked_fence_publishes_nothing(one: Stage, revoked: Fence) -> None:
    one.put(a="two")

    with pytest.raises(CycleAbandoned):
        one.layout.publish("r2", revoked)

    assert ONE == one.current() and "r1" == one.layout.revision
    assert {"r1"} == one.snapshots
    one.publish("r2")
    assert {"a.py": "two", "d/b.py": "one"} == one.current()


@pytest.mark.usefixtures("no_links")
def test_copies_files_if_hard_links_are_not_supported(folder: Path, begin: Begin) -> None:
    stage = begin(**SNAPSHOT)
    stage.publish("r1", a="one", d__b="one")

    assert ONE == stage.current()
    assert set() == stage.damaged() and not links(stage, "a.py", "r1")
    (folder / "current/a.py").chmod(0o644)
    assert {"a.py"} == stage.damaged()
    assert 1 == stage.repair().healed
    assert set() == stage.damaged() and ONE == stage.current()


@pytest.mark.parametrize("fsync", ["true", "false"])
def test_flushes_files_before_it_swaps_the_link(
    folder: Path, begin: Begin, fsync: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    flush = os.fsync

    def note(fd: int) -> None:
        seen.append(os.path.lexists(folder / "current"))
        flush(fd)

    stage = begin(**SNAPSHOT, S3_SYNC_FSYNC=fsync)
    stage.put(a="one", d__b="one")
    monkeypatch.setattr(os, "fsync", note)
    stage.layout.publish("r1", Fence())

    # Before the swap: folder d, the snapshot, its list and the store; after it: the link.
    assert (4, 1) == (seen.count(False), seen.count(True)) if fsync == "true" else not seen


# --- the next process


def test_a_snapshot_without_a_link_is_not_published_but_reused(one: Stage) -> None:
    """The process was killed between the snapshot and the link."""
    one.publish("r2", a="two")
    (one.folder / "current").unlink()
    (one.folder / "current").symlink_to(".s3-sync/snapshots/r1")

    one.begin()

    assert "r1" == one.layout.revision and not one.layout.shows("r2")
    one.publish("r2")
    assert {"a.py": "two", "d/b.py": "one"} == one.current()


def test_removes_an_unfinished_snapshot_at_start(one: Stage) -> None:
    left = one.state / "snapshots/.r2.12345"
    shutil.copytree(one.state / "tree", left)

    one.begin()

    assert {"r1"} == one.snapshots and ONE == one.current()


@pytest.mark.parametrize(
    "published", ["", "r9", ".r1.7", "../tree", "r1/../../tree", "r1/../../../..", "r1\0"]
)
def test_ignores_a_record_of_a_missing_snapshot(one: Stage, published: str) -> None:
    (one.folder / "current").unlink()
    one.published = published

    one.begin()

    assert (None, "") == (one.layout.shown, one.layout.revision)
    one.publish("r1")
    assert ONE == one.current()


def test_the_link_wins_over_the_record(two: Stage) -> None:
    """The process was killed between the link and the record."""
    two.published = "r1"

    two.begin()

    assert "r2" == two.layout.revision and "" == two.layout.problem and TWO == two.current()


@pytest.mark.parametrize("name", ["tree", "snapshots"])
@pytest.mark.parametrize("is_recreated", [True, False])
def test_is_not_current_after_a_state_folder_was_removed(
    one: Stage, name: str, is_recreated: bool
) -> None:
    assert one.layout.is_current()
    (one.state / name).rename(one.state / "away")
    if is_recreated:
        (one.state / name).mkdir()

    assert not one.layout.is_current()


def test_closing_leaks_no_descriptors(folder: Path) -> None:
    before = held(folder)
    stage = Stage(folder, **SNAPSHOT)
    for revision in ("r1", "r2", "r1", "r3"):
        stage.publish(revision, a=revision)
        stage.layout.prune(Fence())
    (folder / "current").unlink()
    stage.repair()

    stage.close()

    assert before == held(folder)


def test_a_layout_that_cannot_be_opened_leaks_no_descriptors(folder: Path) -> None:
    stage = Stage(folder, **SNAPSHOT)
    stage.publish("r1", a="one")
    stage.close()
    (folder / ".s3-sync/snapshots/r1.managed").unlink()
    (folder / ".s3-sync/snapshots/r1.managed").mkdir()
    (folder / ".s3-sync/snapshots/r1.managed/foreign").touch()
    settings, volume = settings_of(folder, **SNAPSHOT), Volume(str(folder), fsync=False)
    before = held(folder)

    with pytest.raises(OSError, match="irectory"):
        Snapshot(settings, volume, "r1")

    assert before == held(folder)
    volume.close()


# --- pruning


def age(stage: Stage, revision: str, seconds: float) -> None:
    """Date a snapshot as if it had been replaced that long ago."""
    at = time.time() - seconds
    os.utime(stage.state / "snapshots" / revision, (at, at))


@pytest.mark.parametrize(
    "harm",
    [Path.unlink, lambda link: (link.unlink(), link.symlink_to(".s3-sync/snapshots/r1"))],
    ids=["removed", "older"],
)
def test_never_prunes_the_published_snapshot(
    folder: Path, begin: Begin, harm: Callable[[Path], object]
) -> None:
    """A cycle prunes before it repairs."""
    stage = begin(**SNAPSHOT, S3_SYNC_RETAIN_COUNT="0", S3_SYNC_RETAIN_FOR="0")
    stage.publish("r1", a="one")
    stage.publish("r2", a="two")
    age(stage, "r2", 1000)
    resolved = (folder / "current").resolve()
    harm(folder / "current")

    stage.layout.prune(Fence())

    assert {"a.py": "two"} == files_of(resolved)
    stage.repair()
    assert {"a.py": "two"} == stage.current()


def test_a_failed_prune_does_not_fail_the_cycle(
    two: Stage, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listdir(_: object) -> list[str]:
        raise OSError(errno.EIO, "Input/output error", "snapshots")

    monkeypatch.setattr(os, "listdir", listdir)
    two.layout.prune(Fence())
    monkeypatch.undo()

    assert ["Input/output error"] == [event["error"] for event in log.events("leftover_kept")]
    assert TWO == two.current()
