"""Every change to a folder, and none outside it."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3_sync.folder.folder import SECOND_NS, Folder
from s3_sync.folder.volume import Volume
from s3_sync.keys import RESERVED
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.runtime.recording import Log
from tests.s3_sync.folder.handling import (
    BODY,
    damaged,
    entry_of,
    nothing,
    opened,
    put,
    staged,
    staging_of,
)

# --- putting files into place


def test_lists_a_file_and_puts_it_into_place(folder: Path, target: Folder) -> None:
    put(target, "a/b/c.py")

    assert BODY == (folder / "a/b/c.py").read_bytes()
    held = target.files["a/b/c.py"]
    assert held.matches((folder / "a/b/c.py").stat())
    assert (entry_of("a/b/c.py").etag, len(BODY)) == (held.etag, held.size_bytes)
    assert [] == staged(folder)
    assert set() == damaged(target)


def test_replaces_a_file_atomically(folder: Path, target: Folder) -> None:
    put(target, "a.py", b"old")
    with (folder / "a.py").open("rb") as reader:
        put(target, "a.py", b"new and longer")

        assert b"old" == reader.read()
    assert b"new and longer" == (folder / "a.py").read_bytes()


@pytest.mark.parametrize("fsync", [True, False])
def test_lists_a_file_before_its_rename_and_flushes_it_if_configured(
    folder: Path, fsync: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between line and rename leaves an extra line, not an unlisted file."""
    steps: list[str] = []
    flush, rename = os.fsync, os.rename

    def note_flush(fd: int) -> None:
        place = Path(os.readlink(f"/proc/self/fd/{fd}"))
        steps.append(f"flush {place.suffix or place.name}")
        flush(fd)

    def note_rename(*arguments: Any, **folders: Any) -> None:
        is_listed = '"a.py"' in (folder / RESERVED / "managed").read_text()
        steps.append("rename, listed" if is_listed else "rename, unknown")
        rename(*arguments, **folders)

    with opened(folder, fsync=fsync) as target:
        monkeypatch.setattr(os, "fsync", note_flush)
        monkeypatch.setattr(os, "rename", note_rename)
        put(target, "a.py")

    flushed = ["flush .part", "flush managed", "rename, listed", f"flush {folder.name}"]
    assert steps == (flushed if fsync else ["rename, listed"])


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664, 0o755])
@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_files_have_the_configured_mode_under_any_umask(folder: Path, mode: int, mask: int) -> None:
    before = os.umask(mask)
    try:
        with opened(folder, file_mode=mode) as target:
            put(target, "a.py")
    finally:
        os.umask(before)

    assert mode == stat.S_IMODE((folder / "a.py").stat().st_mode)


def test_adopts_a_file_with_its_time(folder: Path, target: Folder) -> None:
    (folder / "a.py").write_bytes(BODY)
    os.utime(folder / "a.py", (1_000_000_000, 1_000_000_000))

    target.adopt("a.py", entry_of("a.py"), Fence())

    found = (folder / "a.py").stat()
    assert 1_000_000_000 == found.st_mtime
    assert target.files["a.py"].matches(found)


@pytest.mark.parametrize("kind", ["file", "link", "fifo"])
def test_replaces_a_foreign_file_at_the_path_of_a_key(
    folder: Path, target: Folder, outside: Path, kind: str
) -> None:
    place = folder / "a.py"
    if kind == "link":
        place.symlink_to(outside / "a.py")
    elif kind == "fifo":
        os.mkfifo(place, 0o644)
    else:
        place.write_bytes(b"foreign")

    put(target, "a.py")

    assert BODY == place.read_bytes()
    assert not place.is_symlink()
    assert b"victim" == (outside / "a.py").read_bytes()
    assert set() == damaged(target)


def test_a_revoked_fence_changes_nothing(folder: Path, target: Folder, revoked: Fence) -> None:
    put(target, "old.py")
    (folder / "same.py").write_bytes(BODY)
    listed = sorted(os.listdir(folder))
    staging = staging_of(target)
    acts: list[Callable[[], object]] = [
        lambda: target.put("a/n.py", entry_of("n"), staging, revoked, nothing),
        lambda: target.adopt("same.py", entry_of("same.py"), revoked),
        lambda: target.delete("old.py", revoked),
        lambda: target.end_cycle(revoked),
    ]

    for act in acts:
        with pytest.raises(CycleAbandoned):
            act()

    target.staging.discard(staging)
    assert listed == sorted(os.listdir(folder))
    assert ["old.py"] == list(target.files)
    assert [] == staged(folder)


def test_a_failed_rename_keeps_the_old_file_and_its_line(folder: Path, target: Folder) -> None:
    put(target, "a.py", b"old")
    before = target.files["a.py"]
    staging = staging_of(target)
    os.unlink(staging.name, dir_fd=target.staging.fd)

    with pytest.raises(FileNotFoundError):
        target.put("a.py", entry_of("a.py"), staging, Fence(), nothing)

    assert b"old" == (folder / "a.py").read_bytes()
    assert before == target.files["a.py"]
    with opened(folder) as successor:
        assert before == successor.files["a.py"]


def test_takes_a_file_of_another_folder(folder: Path, volume: Volume, tmp_path: Path) -> None:
    """It keeps its time, and readers of the old file are not disturbed."""
    target, _ = volume.open_in_place()
    (tmp_path / "other").mkdir()
    fd = os.open(tmp_path / "other", os.O_RDONLY)
    other = Folder(str(tmp_path / "other"), fd, {}, None, volume.staging)
    put(target, "a/b.py", b"old")
    put(other, "a/b.py")
    with (folder / "a/b.py").open("rb") as reader:
        target.take("a/b.py", other, Fence())

        assert b"old" == reader.read()
    assert BODY == (folder / "a/b.py").read_bytes()
    assert other.files == target.files and set() == damaged(target)
    target.close()
    other.close()
    with opened(folder) as successor:
        assert other.files == successor.files


# --- times


def test_a_changed_file_gets_a_later_second(folder: Path, target: Folder) -> None:
    """Python's bytecode cache and Airflow's file processor compare whole seconds and sizes."""
    seconds = []
    for content in (b"one", b"two", b"six"):
        put(target, "a.py", content)
        seconds.append((folder / "a.py").stat().st_mtime_ns // SECOND_NS)

    assert seconds == sorted(set(seconds))


def test_a_file_put_again_within_a_second_gets_a_later_one(folder: Path, target: Folder) -> None:
    put(target, "a.py", b"one")
    first = (folder / "a.py").stat().st_mtime_ns // SECOND_NS
    target.delete("a.py", Fence())
    target.end_cycle(Fence())

    put(target, "a.py", b"two")

    assert (folder / "a.py").stat().st_mtime_ns // SECOND_NS > first


def test_a_folder_that_follows_another_gives_no_file_its_time(
    folder: Path, volume: Volume, target: Folder, tmp_path: Path
) -> None:
    """As a snapshot after a snapshot: also of a file that was deleted a moment ago."""
    put(target, "a.py", b"one")
    put(target, "gone.py", b"one")
    before = {path: held.mtime_ns // SECOND_NS for path, held in target.files.items()}
    target.delete("gone.py", Fence())
    (tmp_path / "next").mkdir()
    fd = os.open(tmp_path / "next", os.O_RDONLY)
    successor = Folder(str(tmp_path / "next"), fd, {}, None, volume.staging)
    successor.follow(target)

    for path in before:
        put(successor, path, b"two")

    assert all(held.mtime_ns // SECOND_NS > before[p] for p, held in successor.files.items())
    successor.close()


def test_replacing_a_file_from_the_future_uses_a_later_second(folder: Path, target: Folder) -> None:
    (folder / "a.py").write_bytes(b"x")
    future = int(time.time()) + 5000
    os.utime(folder / "a.py", (future, future))

    put(target, "a.py")

    assert future + 1 == (folder / "a.py").stat().st_mtime


def test_a_new_file_has_the_time_of_its_publish(folder: Path, target: Folder) -> None:
    before = time.time_ns()
    put(target, "a.py")

    assert before <= (folder / "a.py").stat().st_mtime_ns <= time.time_ns()


# --- deleting


def test_deletes_a_file_and_the_folders_left_empty(folder: Path, target: Folder) -> None:
    put(target, "a/b/c.py")
    put(target, "a/d.py")

    assert target.delete("a/b/c.py", Fence())

    assert ["d.py"] == os.listdir(folder / "a")
    assert ["a/d.py"] == list(target.files)
    assert target.delete("a/d.py", Fence())
    assert [RESERVED] == os.listdir(folder)


def test_does_not_remove_empty_folders_behind_a_link(
    folder: Path, target: Folder, outside: Path
) -> None:
    (outside / "b").mkdir()
    (folder / "a").symlink_to(outside)

    assert not target.delete("a/b/gone", Fence())

    assert ["a.py", "b"] == sorted(os.listdir(outside))
    assert (folder / "a").is_symlink()


@pytest.mark.parametrize("instead", ["nothing", "folder", "no parent", "parent is a file"])
def test_deleting_a_missing_file_removes_it_from_the_list(
    folder: Path, target: Folder, instead: str
) -> None:
    put(target, "a/b.py")
    (folder / "a/b.py").unlink()
    if instead == "folder":
        (folder / "a/b.py/foreign").mkdir(parents=True)
    elif instead != "nothing":
        (folder / "a").rmdir()
        if instead == "parent is a file":
            (folder / "a").write_bytes(b"foreign")

    assert not target.delete("a/b.py", Fence())

    assert {} == target.files
    assert (folder / "a/b.py/foreign").exists() == (instead == "folder")
    assert (folder / "a").is_file() == (instead == "parent is a file")


def test_a_failed_removal_keeps_a_file_listed(
    folder: Path, target: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(target, "a.py")
    held = dict(target.files)

    def busy(*_: object, **__: object) -> None:
        raise OSError("Device or resource busy")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", busy)
        with pytest.raises(OSError, match="busy"):
            target.delete("a.py", Fence())

    assert held == target.files
    with opened(folder) as successor:
        assert held == successor.files


def test_names_a_foreign_file_that_stays_once(
    folder: Path, target: Folder, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    """Such as a file that is mounted there, or in a folder of root; there may be thousands."""
    paths = [f"{number}.theirs" for number in range(60)]
    for path in [*paths, "gone"]:
        (folder / path).touch()
    unlink = os.unlink

    def busy(name: str, **more: int) -> None:
        if name.endswith(".theirs"):
            raise OSError("Device or resource busy")
        unlink(name, **more)

    monkeypatch.setattr(os, "unlink", busy)
    for _ in range(3):
        target.clear([*paths, "gone"], Fence())

    assert paths[:50] == [event["name"] for event in log.events("leftover_kept")]
    assert not (folder / "gone").exists()


def test_a_forgotten_file_stays_on_disk(folder: Path, target: Folder) -> None:
    put(target, "a.py")

    target.forget("a.py")

    assert BODY == (folder / "a.py").read_bytes()
    assert {} == target.files
    assert ["a.py"] == target.foreign()
