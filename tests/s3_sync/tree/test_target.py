"""Every change to the target folder, and none outside it."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3_sync.keys import RESERVED
from s3_sync.tree.download import MEMORY_BYTES
from s3_sync.tree.target import Target
from s3_sync.tree.volume import Volume
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.s3_sync.tree.handling import (
    BODY,
    damaged,
    download_of,
    entry_of,
    nothing,
    opened,
    put,
    staged,
)
from tests.support.machine.descriptors import held

# --- opening


def test_a_target_that_cannot_be_opened_leaks_no_descriptor(folder: Path, volume: Volume) -> None:
    (folder / RESERVED / "above").mkdir()
    before = held(folder)

    for _ in range(3):
        with pytest.raises(OSError, match="File name too long"):
            Target(volume, file_mode=0o644, part="above/" + "x" * 256)

    assert before == held(folder)


# --- publishing


def test_publishes_a_file_and_records_it(folder: Path, target: Target) -> None:
    assert put(target, "a/b/c.py")

    assert BODY == (folder / "a/b/c.py").read_bytes()
    held = target.managed.files["a/b/c.py"]
    assert held.matches((folder / "a/b/c.py").stat())
    assert (entry_of("a/b/c.py").etag, len(BODY)) == (held.etag, held.size_bytes)
    assert [] == staged(folder)
    assert set() == damaged(target)


def test_replaces_a_file_atomically(folder: Path, target: Target) -> None:
    put(target, "a.py", b"old")
    with (folder / "a.py").open("rb") as reader:
        put(target, "a.py", b"new and longer")

        assert b"old" == reader.read()
    assert b"new and longer" == (folder / "a.py").read_bytes()


@pytest.mark.parametrize("fsync", [True, False])
def test_publishes_a_large_file_from_staging(folder: Path, fsync: bool) -> None:
    body = b"x" * (MEMORY_BYTES + 1)
    with opened(folder, file_mode=0o640, fsync=fsync) as target:
        download = download_of(target, body)
        assert download.staging is not None and len(staged(folder)) == 1

        assert target.publish("d/a.py", entry_of("d/a.py", body), download, Fence(), nothing)

    found = (folder / "d/a.py").stat()
    assert body == (folder / "d/a.py").read_bytes()
    assert 0o640 == stat.S_IMODE(found.st_mode)
    assert [] == staged(folder) and download.staging.fd == -1


@pytest.mark.parametrize("fsync", [True, False])
def test_records_a_file_before_its_rename_and_flushes_it_if_configured(
    folder: Path, fsync: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between record and rename leaves an extra line, not an unlisted file."""
    steps: list[str] = []
    flush, rename = os.fsync, os.rename

    def note_flush(fd: int) -> None:
        place = Path(os.readlink(f"/proc/self/fd/{fd}"))
        steps.append(f"flush {place.suffix or place.name}")
        flush(fd)

    def note_rename(*arguments: Any, **folders: Any) -> None:
        is_on_record = '"a.py"' in (folder / RESERVED / "managed").read_text()
        steps.append("rename, on record" if is_on_record else "rename, unknown")
        rename(*arguments, **folders)

    with opened(folder, fsync=fsync) as target:
        monkeypatch.setattr(os, "fsync", note_flush)
        monkeypatch.setattr(os, "rename", note_rename)
        put(target, "a.py")

    flushed = ["flush .part", "flush managed", "rename, on record", f"flush {folder.name}"]
    assert steps == (flushed if fsync else ["rename, on record"])


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


def test_keeps_a_file_with_the_same_content_and_its_mtime(folder: Path, target: Target) -> None:
    (folder / "a.py").write_bytes(BODY)
    os.chmod(folder / "a.py", 0o644)
    os.utime(folder / "a.py", (1_000_000_000, 1_000_000_000))
    inode = (folder / "a.py").stat().st_ino

    assert not put(target, "a.py")

    found = (folder / "a.py").stat()
    assert (inode, 1_000_000_000) == (found.st_ino, found.st_mtime)
    assert target.managed.files["a.py"].matches(found)


@pytest.mark.parametrize("difference", ["content", "size", "mode", "link to the same", "fifo"])
def test_replaces_a_foreign_file_at_the_path_of_a_key(
    folder: Path, target: Target, outside: Path, difference: str
) -> None:
    place = folder / "a.py"
    place.write_bytes({"content": b"Print('hello')\n", "size": b"x"}.get(difference, BODY))
    os.chmod(place, 0o600 if difference == "mode" else 0o644)
    if difference == "link to the same":
        place.unlink()
        (outside / "same").write_bytes(BODY)
        place.symlink_to(outside / "same")
    elif difference == "fifo":
        place.unlink()
        os.mkfifo(place, 0o644)

    assert put(target, "a.py")

    assert BODY == place.read_bytes()
    assert not place.is_symlink()
    assert set() == damaged(target)


def test_a_revoked_fence_changes_nothing(folder: Path, target: Target, revoked: Fence) -> None:
    put(target, "old.py")
    (folder / "same.py").write_bytes(BODY)
    os.chmod(folder / "same.py", 0o644)
    listed = sorted(os.listdir(folder))
    acts: list[Callable[[], object]] = [
        lambda: target.publish("a/n.py", entry_of("n"), download_of(target), revoked, nothing),
        lambda: target.publish("same.py", entry_of("n"), download_of(target), revoked, nothing),
        lambda: target.adopt("same.py", entry_of("same.py"), revoked),
        lambda: target.delete("old.py", revoked),
        lambda: target.forget("old.py", revoked),
        lambda: target.end_cycle(revoked),
    ]

    for act in acts:
        with pytest.raises(CycleAbandoned):
            act()

    assert listed == sorted(os.listdir(folder))
    assert ["old.py"] == list(target.managed.files)
    assert [] == staged(folder)


def test_a_failed_rename_keeps_the_old_file_and_its_record(folder: Path, target: Target) -> None:
    put(target, "a.py", b"old")
    before = target.managed.files["a.py"]
    download = download_of(target)
    download.staging = target.staging.open()
    os.unlink(download.staging.name, dir_fd=target.staging.fd)

    with pytest.raises(FileNotFoundError):
        target.publish("a.py", entry_of("a.py"), download, Fence(), nothing)

    assert b"old" == (folder / "a.py").read_bytes()
    assert before == target.managed.files["a.py"]


# --- deleting


def test_deletes_a_file_and_the_folders_left_empty(folder: Path, target: Target) -> None:
    put(target, "a/b/c.py")
    put(target, "a/d.py")

    assert target.delete("a/b/c.py", Fence())

    assert ["d.py"] == os.listdir(folder / "a")
    assert ["a/d.py"] == list(target.managed.files)
    assert target.delete("a/d.py", Fence())
    assert [RESERVED] == os.listdir(folder)


@pytest.mark.parametrize("instead", ["nothing", "folder", "no parent", "parent is a file"])
def test_deleting_a_missing_file_removes_it_from_the_list(
    folder: Path, target: Target, instead: str
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

    assert {} == target.managed.files
    assert (folder / "a/b.py/foreign").exists() == (instead == "folder")
    assert (folder / "a").is_file() == (instead == "parent is a file")


def test_a_forgotten_file_stays_on_disk(folder: Path, target: Target) -> None:
    put(target, "a.py")

    target.forget("a.py", Fence())

    assert BODY == (folder / "a.py").read_bytes()
    assert {} == target.managed.files
    assert ["a.py"] == target.foreign()
