"""
The snapshot layout on a real file system.
"""

import errno
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from s3_sync.layouts.snapshot import Snapshot
from s3_sync.target.target import Torn
from s3_sync.target.volume import Volume
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.runtime.recording import Log
from tests.s3_sync.stage import SNAPSHOT, Stage, files_of, settings_of

ONE = {"a.py": "one", "d/b.py": "one"}
TWO = {"a.py": "two", "d/b.py": "one", "c.py": "two"}


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    """
    A volume on which nothing has been published.
    """
    stage = Stage(folder, **SNAPSHOT)
    yield stage
    stage.close()


@pytest.fixture
def one(stage: Stage) -> Stage:
    """
    The same with the revision r1.
    """
    stage.publish("r1", a="one", d__b="one")
    return stage


@pytest.fixture
def two(one: Stage) -> Stage:
    """
    The same with the revision r2 after it.
    """
    one.publish("r2", a="two", c="two")
    return one


def links(stage: Stage, path: str, *revisions: str) -> bool:
    """
    Whether a file of the tree and of these snapshots is one and the same.
    """
    places = [stage.state / "snapshots" / revision / path for revision in revisions]
    return all(place.samefile(stage.state / "tree" / path) for place in places)


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


# --- a torn tree


@pytest.mark.parametrize(
    "harm",
    [
        Path.unlink,
        lambda place: place.chmod(0o600),
        lambda place: os.utime(place, ns=(1, 1)),
        lambda place: place.parent.rename(place.parent.with_name("gone")),
        lambda place: (place.unlink(), place.symlink_to("/etc/hostname")),
        lambda place: (
            place.parent.rename(place.parent.with_name("gone")),
            place.parent.symlink_to("gone"),
        ),
        lambda place: (place.unlink(), place.mkdir()),
        lambda place: (shutil.rmtree(place.parent), place.parent.write_text("x")),
    ],
    ids=["removed", "mode", "time", "folder gone", "link", "folder linked", "folder", "file"],
)
@pytest.mark.parametrize("is_back", [False, True], ids=["new", "back"])
def test_a_torn_tree_is_not_shown(
    one: Stage, harm: Callable[[Path], object], is_back: bool
) -> None:
    """
    Somebody changes a file between the look at it and the publish.
    """
    if is_back:
        one.publish("r2", d__b="two")
        one.publish("r1", d__b="one")
        one.publish("r3", d__b="six")
    shown, before = one.layout.revision, one.current()
    one.put(d__b="two" if is_back else "new")

    harm(one.state / "tree/d/b.py")
    with pytest.raises(Torn):
        one.layout.publish("r2", Fence())

    assert (shown, before) == (one.layout.revision, one.current())
    assert not [name for name in one.snapshots if name.startswith(".")]


def test_a_torn_tree_that_was_mended_is_shown(one: Stage) -> None:
    one.put(a="two")
    (one.state / "tree/d/b.py").unlink()
    with pytest.raises(Torn):
        one.layout.publish("r2", Fence())

    one.publish("r2", d__b="one")

    assert {"a.py": "two", "d/b.py": "one"} == one.current()


# --- a revision that is back


def test_a_revision_that_is_back_is_used_again(two: Stage) -> None:
    before = (two.state / "snapshots/r1").stat().st_ino
    two.put(a="one")
    two.drop("c.py")
    work = two.layout.publish("r1", Fence())

    assert before == (two.folder / "current").stat().st_ino
    assert ONE == two.current() and two.layout.shows("r1")
    assert (1, 1) == (work.published, work.deleted)
    assert TWO == files_of(two.state / "snapshots/r2")
    assert set() == two.damaged()


def test_a_revision_that_is_back_is_new_to_who_compares_times(two: Stage) -> None:
    """
    Python's bytecode cache and Airflow's file processor compare whole seconds and sizes.
    """
    times = [int((two.folder / "current/a.py").stat().st_mtime)]
    for revision, content in (("r1", "one"), ("r2", "two"), ("r1", "one")):
        two.publish(revision, a=content)
        times.append(int((two.folder / "current/a.py").stat().st_mtime))

    assert times == sorted(set(times))


def test_damage_to_a_revision_that_is_back_is_mended(two: Stage) -> None:
    two.publish("r3", z="last")
    two.publish("r4", a="six")
    place = two.state / "snapshots/r3"
    (place / "d/b.py").unlink()
    (place / "a.py").unlink()
    (place / "a.py").write_text("planted")

    two.publish("r3", a="two")

    assert TWO | {"z.py": "last"} == two.current() and set() == two.damaged()


def test_files_whose_keys_were_kept_then_go_from_a_revision_that_is_back(two: Stage) -> None:
    """
    What S3_SYNC_DELETE=none keeps is in no listing, and so in no revision's name.
    """
    two.drop("c.py", "d/b.py")

    two.publish("r1", a="one")

    assert {"a.py": "one"} == two.current() and two.layout.shows("r1")


def test_a_revision_that_cannot_be_renewed_is_not_shown(
    two: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def refuse(source: str, target: str, **fds: int) -> None:
        if target == "a.py":
            raise OSError(errno.EACCES, "Permission denied", target)
        rename(source, target, **fds)

    two.put(a="one")
    two.drop("c.py")
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(SidecarError) as caught:
        two.layout.publish("r1", Fence())
    monkeypatch.undo()

    assert "target_denied" == caught.value.reason
    assert TWO == two.current() and "r2" == two.layout.revision
    two.publish("r1")
    assert ONE == two.current()


def test_a_revision_whose_list_was_lost_is_used_again(two: Stage) -> None:
    (two.state / "snapshots/r1.managed").unlink()
    two.put(a="one")
    two.drop("c.py")

    two.layout.publish("r1", Fence())

    assert ONE == two.current() and set() == two.damaged()


def test_a_revision_that_cannot_be_used_again_is_not_shown(two: Stage) -> None:
    """
    Somebody put files of their own where a file of ours must be.
    """
    place = two.state / "snapshots/r1/a.py"
    place.unlink()
    place.mkdir()
    (place / "somebody's").write_text("x")
    two.put(a="one")
    two.drop("c.py")

    with pytest.raises(SidecarError) as caught:
        two.layout.publish("r1", Fence())

    assert "target_failed" == caught.value.reason
    assert "'a.py' is occupied by files of others" in caught.value.message
    assert TWO == two.current() and "r2" == two.layout.revision


# --- mending


def test_nothing_is_mended_before_the_first_publish(stage: Stage) -> None:
    stage.put(a="one")

    assert 0 == stage.mend().healed
    assert {} == stage.seen()


@pytest.mark.parametrize(
    "harm",
    [
        Path.unlink,
        lambda link: (link.unlink(), link.symlink_to(".s3-sync/snapshots/r1")),
        lambda link: (link.unlink(), link.symlink_to("/etc")),
        lambda link: (link.unlink(), link.symlink_to("nowhere")),
        lambda link: (link.unlink(), link.symlink_to(link.parent / ".s3-sync/snapshots/r2")),
        lambda link: (link.unlink(), link.mkdir()),
        lambda link: (link.unlink(), link.write_text("x")),
    ],
    ids=["removed", "older", "elsewhere", "dangling", "absolute", "empty folder", "file"],
)
def test_the_link_is_mended(two: Stage, harm: Callable[[Path], object]) -> None:
    harm(two.folder / "current")
    assert two.layout.problem

    work = two.mend()

    assert 1 == work.healed and "" == two.layout.problem
    assert {"current": "-> .s3-sync/snapshots/r2"} == two.seen()
    assert TWO == two.current()


def test_a_folder_with_files_in_place_of_the_link_is_not_touched(one: Stage) -> None:
    (one.folder / "current").unlink()
    (one.folder / "current").mkdir()
    (one.folder / "current/somebody's").write_text("x")

    with pytest.raises(SidecarError) as caught:
        one.mend()

    assert "link_blocked" == caught.value.reason
    assert {"current/somebody's": "x"} == one.seen()
    shutil.rmtree(one.folder / "current")
    assert 1 == one.mend().healed and ONE == one.current()


@pytest.mark.parametrize("path", ["a.py", "d/b.py"])
def test_a_file_that_was_removed_is_put_back_from_the_tree(one: Stage, path: str) -> None:
    (one.folder / "current" / path).unlink()
    assert {path} == one.damaged() and set() == one.torn()

    work = one.mend()

    assert (1, 0) == (work.healed, work.published)
    assert ONE == one.current() and set() == one.damaged() and links(one, path, "r1")


def test_a_folder_that_was_removed_is_put_back_from_the_tree(one: Stage) -> None:
    shutil.rmtree(one.folder / "current/d")

    assert 1 == one.mend().healed
    assert ONE == one.current()


def test_an_edit_damages_the_tree_too_and_is_not_mended_from_it(one: Stage) -> None:
    place = one.folder / "current/a.py"
    place.chmod(0o644)
    place.write_text("edited")

    assert {"a.py"} == one.damaged() == one.torn()
    assert 0 == one.mend().healed
    one.put(a="one")
    assert {"a.py"} == one.damaged() and set() == one.torn()
    assert 1 == one.mend().healed
    assert ONE == one.current() and set() == one.damaged()


def test_a_file_that_is_newer_in_the_tree_is_not_mixed_in(one: Stage) -> None:
    one.put(a="two")
    (one.folder / "current/a.py").unlink()

    assert 0 == one.mend().healed
    assert {"d/b.py": "one"} == one.current()
    one.publish("r2")
    assert {"a.py": "two", "d/b.py": "one"} == one.current()


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_snapshot_whose_folder_is_gone_is_made_anew_from_the_tree(
    two: Stage, is_replaced: bool
) -> None:
    place = (two.folder / "current").resolve()
    shutil.rmtree(place)
    if is_replaced:
        place.mkdir()

    two.mend()

    assert "r2" == two.layout.revision and two.layout.shows("r2") and "" == two.layout.problem
    assert TWO == two.current() and set() == two.damaged()


def test_a_snapshot_whose_folder_is_gone_is_not_made_of_a_newer_tree(one: Stage) -> None:
    """
    A tree between two revisions is neither.
    """
    one.put(a="two")
    shutil.rmtree((one.folder / "current").resolve())

    one.mend()

    assert (None, "") == (one.layout.shown, one.layout.revision)
    assert {} == one.current()
    one.publish("r2", c="two")
    assert TWO == one.current() and set() == one.damaged()


def test_a_snapshot_whose_folder_is_gone_is_not_made_of_a_torn_tree(one: Stage) -> None:
    shutil.rmtree((one.folder / "current").resolve())
    (one.state / "tree/a.py").unlink()

    with pytest.raises(Torn):
        one.layout.mend(one.damaged(), Fence())

    assert {} == one.current()
    one.publish("r1", a="one")
    assert ONE == one.current()


@pytest.mark.parametrize("delete", ["managed", "all"])
def test_files_of_others_go_only_where_that_is_asked(folder: Path, delete: str) -> None:
    stage = Stage(folder, **SNAPSHOT, S3_SYNC_DELETE=delete)
    stage.publish("r1", a="one")
    (folder / "current/theirs").write_text("x")
    (folder / "current/__pycache__").mkdir()
    (folder / "current/__pycache__/a.pyc").write_text("x")

    work = stage.mend()

    assert (delete == "all") == bool(work.deleted)
    assert (delete != "all") == (folder / "current/theirs").exists()
    assert (folder / "current/__pycache__/a.pyc").exists()
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
