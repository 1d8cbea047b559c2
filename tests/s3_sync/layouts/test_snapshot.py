"""
The snapshot layout on a real file system.
"""

import errno
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from s3_sync.layouts.snapshot import Snapshot
from s3_sync.target.volume import Volume
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.runtime.recording import Log
from tests.s3_sync.layouts.revisions import ONE, TWO, links
from tests.s3_sync.stage import SNAPSHOT, Stage, files_of, settings_of

# --- publishing


def test_nothing_is_shown_at_first(stage: Stage) -> None:
    assert (None, "", "") == (stage.layout.shown, stage.layout.revision, stage.layout.problem)
    assert not stage.layout.shows("r1")
    assert {} == stage.seen()
    assert stage.layout.is_atomic


def test_nothing_is_shown_before_it_is_published(stage: Stage) -> None:
    stage.put(a="one")

    assert {} == stage.seen()
    assert ["a.py"] == [path for path, _ in stage.layout.changes().publish]


def test_a_revision_is_shown_behind_a_relative_link(stage: Stage) -> None:
    work = stage.publish("r1", a="one", d__b="one")

    assert {"current": "-> .s3-sync/snapshots/r1"} == stage.seen()
    assert ONE == stage.current()
    assert (2, 0, 0) == (work.published, work.deleted, work.healed)
    assert "r1" == stage.layout.revision and stage.layout.shows("r1")
    assert stage.layout.changes().is_empty and set() == stage.damaged()


def test_the_link_works_wherever_the_volume_is_mounted(one: Stage, tmp_path: Path) -> None:
    one.close()
    one.folder.rename(tmp_path / "elsewhere")

    assert ONE == files_of(tmp_path / "elsewhere/current")


def test_who_resolved_the_link_before_sees_the_old_revision_to_its_end(one: Stage) -> None:
    resolved = (one.folder / "current").resolve()

    one.publish("r2", a="two", c="two")
    one.drop("d/b.py")
    work = one.layout.publish("r3", Fence())

    assert ONE == files_of(resolved)
    assert {"a.py": "two", "c.py": "two"} == one.current()
    assert (0, 1) == (work.published, work.deleted)


def test_a_snapshot_costs_names_and_no_data(two: Stage) -> None:
    assert links(two, "d/b.py", "r1", "r2")
    assert links(two, "a.py", "r2") and not links(two, "a.py", "r1")


@pytest.mark.parametrize(("mode", "expected"), [("0644", 0o444), ("0664", 0o444), ("0600", 0o400)])
def test_files_cannot_be_written(folder: Path, mode: str, expected: int) -> None:
    stage = Stage(folder, **SNAPSHOT, S3_SYNC_FILE_MODE=mode)
    stage.publish("r1", a="one")

    assert expected == stat.S_IMODE((folder / "current/a.py").stat().st_mode)
    stage.close()


def test_a_revoked_fence_shows_nothing(one: Stage) -> None:
    fence = Fence()
    fence.revoke()
    one.put(a="two")

    with pytest.raises(CycleAbandoned):
        one.layout.publish("r2", fence)

    assert ONE == one.current() and "r1" == one.layout.revision
    assert {"r1"} == one.snapshots
    one.publish("r2")
    assert {"a.py": "two", "d/b.py": "one"} == one.current()


def test_copies_where_there_can_be_no_links(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    stage = Stage(folder, **SNAPSHOT)
    stage.publish("r1", a="one", d__b="one")

    assert ONE == stage.current()
    assert set() == stage.damaged() and not links(stage, "a.py", "r1")
    (folder / "current/a.py").chmod(0o644)
    assert {"a.py"} == stage.damaged()
    assert 1 == stage.mend().healed
    assert set() == stage.damaged() and ONE == stage.current()
    stage.close()


@pytest.mark.parametrize("fsync", ["true", "false"])
def test_all_is_flushed_before_it_is_shown(
    folder: Path, fsync: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    flush = os.fsync

    def note(fd: int) -> None:
        seen.append(os.path.lexists(folder / "current"))
        flush(fd)

    stage = Stage(folder, **SNAPSHOT, S3_SYNC_FSYNC=fsync)
    stage.put(a="one", d__b="one")
    monkeypatch.setattr(os, "fsync", note)
    stage.layout.publish("r1", Fence())

    # The folder d, the snapshot, its list and the store before it; the link itself after it.
    assert (4, 1) == (seen.count(False), seen.count(True)) if fsync == "true" else not seen
    stage.close()


# --- the next process


def test_the_next_process_sees_what_is_shown(two: Stage) -> None:
    two.begin()

    assert "r2" == two.layout.revision and two.layout.shows("r2")
    assert set() == two.damaged() == two.torn()
    assert TWO == two.current()


def test_what_was_killed_before_the_link_is_not_shown_and_used_later(one: Stage) -> None:
    """
    Killed between the snapshot and the link.
    """
    one.publish("r2", a="two")
    (one.folder / "current").unlink()
    (one.folder / "current").symlink_to(".s3-sync/snapshots/r1")

    one.begin()

    assert "r1" == one.layout.revision and not one.layout.shows("r2")
    one.publish("r2")
    assert {"a.py": "two", "d/b.py": "one"} == one.current()


def test_what_was_killed_half_way_is_swept(one: Stage) -> None:
    left = one.state / "snapshots/.r2.12345"
    shutil.copytree(one.state / "tree", left)

    one.begin()

    assert {"r1"} == one.snapshots and ONE == one.current()


@pytest.mark.parametrize("to", ["nowhere", ".s3-sync/snapshots/r9", "/etc", ".s3-sync/snapshots/"])
def test_a_link_that_shows_nothing_of_ours_is_mended_by_the_record(one: Stage, to: str) -> None:
    (one.folder / "current").unlink()
    (one.folder / "current").symlink_to(to)

    one.begin()

    assert "r1" == one.layout.revision and one.layout.problem
    assert 1 == one.mend().healed and ONE == one.current()


@pytest.mark.parametrize(
    "published", ["", "r9", ".r1.7", "../tree", "r1/../../tree", "r1/../../../..", "r1\0"]
)
def test_a_record_of_what_is_not_there_counts_as_none(one: Stage, published: str) -> None:
    (one.folder / "current").unlink()
    one.published = published

    one.begin()

    assert (None, "") == (one.layout.shown, one.layout.revision)
    one.publish("r1")
    assert ONE == one.current()


def test_what_the_link_shows_wins_over_the_record(two: Stage) -> None:
    """
    Killed between the link and the record.
    """
    two.published = "r1"

    two.begin()

    assert "r2" == two.layout.revision and "" == two.layout.problem and TWO == two.current()


@pytest.mark.parametrize("name", ["tree", "snapshots"])
@pytest.mark.parametrize("is_made_anew", [True, False])
def test_is_not_current_after_somebody_removed_a_folder_of_ours(
    one: Stage, name: str, is_made_anew: bool
) -> None:
    assert one.layout.is_current()
    (one.state / name).rename(one.state / "away")
    if is_made_anew:
        (one.state / name).mkdir()

    assert not one.layout.is_current()


@pytest.mark.parametrize("name", ["snapshots", "tree", "snapshots/r1"])
def test_a_symlink_at_a_folder_of_ours_is_not_followed(
    folder: Path, tmp_path: Path, name: str, log: Log
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.py").write_text("victim")
    (folder / ".s3-sync" / name).parent.mkdir(parents=True)
    (folder / ".s3-sync" / name).symlink_to(outside)

    stage = Stage(folder, **SNAPSHOT)
    stage.publish("r1", a="one")

    assert {"a.py": "one"} == stage.current()
    assert {"a.py": "victim"} == files_of(outside)
    stage.close()


def test_closing_leaves_no_descriptor(folder: Path) -> None:
    before = os.listdir("/proc/self/fd")
    stage = Stage(folder, **SNAPSHOT)
    for revision in ("r1", "r2", "r1", "r3"):
        stage.publish(revision, a=revision)
        stage.layout.prune(Fence())
    (folder / "current").unlink()
    stage.mend()

    stage.close()

    assert before == os.listdir("/proc/self/fd")


def test_a_layout_that_cannot_be_opened_leaves_no_descriptor(folder: Path) -> None:
    stage = Stage(folder, **SNAPSHOT)
    stage.publish("r1", a="one")
    stage.close()
    (folder / ".s3-sync/snapshots/r1.managed").unlink()
    (folder / ".s3-sync/snapshots/r1.managed").mkdir()
    (folder / ".s3-sync/snapshots/r1.managed/foreign").touch()
    settings, volume = settings_of(folder, **SNAPSHOT), Volume(str(folder), fsync=False)
    before = os.listdir("/proc/self/fd")

    with pytest.raises(OSError, match="irectory"):
        Snapshot(settings, volume, "r1")

    assert before == os.listdir("/proc/self/fd")
    volume.close()


# --- pruning


def age(stage: Stage, revision: str, seconds: float) -> None:
    """
    Let a snapshot have been replaced that long ago.
    """
    at = time.time() - seconds
    os.utime(stage.state / "snapshots" / revision, (at, at))


def test_older_snapshots_go_with_their_lists_once_they_are_old_enough(folder: Path) -> None:
    stage = Stage(folder, **SNAPSHOT, S3_SYNC_RETAIN_COUNT="1", S3_SYNC_RETAIN_FOR="10m")
    for number in range(1, 5):
        stage.publish(f"r{number}", a=str(number))
    for number in range(1, 4):
        age(stage, f"r{number}", 1000 - number)
    age(stage, "r2", 500)

    stage.layout.prune(Fence())

    # r4 is current, r2 was replaced last, and less than ten minutes ago
    assert {"r4", "r2"} == stage.snapshots
    assert {"r4.managed", "r2.managed"} == {
        name for name in os.listdir(stage.state / "snapshots") if name.endswith("managed")
    }
    assert {"a.py": "4"} == stage.current()
    stage.close()


@pytest.mark.parametrize(
    "harm",
    [Path.unlink, lambda link: (link.unlink(), link.symlink_to(".s3-sync/snapshots/r1"))],
    ids=["removed", "older"],
)
def test_what_is_published_is_never_pruned_whatever_the_link_shows(
    folder: Path, harm: Callable[[Path], object]
) -> None:
    """
    A cycle prunes before it mends.
    """
    stage = Stage(folder, **SNAPSHOT, S3_SYNC_RETAIN_COUNT="0", S3_SYNC_RETAIN_FOR="0")
    stage.publish("r1", a="one")
    stage.publish("r2", a="two")
    age(stage, "r2", 1000)
    resolved = (folder / "current").resolve()
    harm(folder / "current")

    stage.layout.prune(Fence())

    assert {"a.py": "two"} == files_of(resolved)
    stage.mend()
    assert {"a.py": "two"} == stage.current()
    stage.close()


def test_a_volume_that_cannot_be_pruned_is_no_failure(
    two: Stage, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listdir(_: object) -> list[str]:
        raise OSError(errno.EIO, "Input/output error", "snapshots")

    monkeypatch.setattr(os, "listdir", listdir)
    two.layout.prune(Fence())
    monkeypatch.undo()

    assert ["Input/output error"] == [event["error"] for event in log.events("leftover_kept")]
    assert TWO == two.current()
