"""Every change to a folder, and none outside it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3_sync.folder.folder import Folder
from s3_sync.names import RESERVED
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.s3_sync.folder.handling import (
    BODY,
    entry_of,
    opened,
    put,
    staged,
    staging_of,
)

# --- putting files into place


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


def test_a_revoked_fence_changes_nothing(
    folder: Path, target: Folder, revoked: Fence
) -> None:
    put(target, "old.py")
    (folder / "same.py").write_bytes(BODY)
    listed = sorted(os.listdir(folder))
    staging = staging_of(target)
    acts: list[Callable[[], object]] = [
        lambda: target.put("a/n.py", entry_of("n"), staging, revoked),
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


def test_a_failed_rename_keeps_the_old_file_and_its_line(
    folder: Path, target: Folder
) -> None:
    put(target, "a.py", b"old")
    before = target.files["a.py"]
    staging = staging_of(target)
    os.unlink(staging.name, dir_fd=target.staging.fd)

    with pytest.raises(FileNotFoundError):
        target.put("a.py", entry_of("a.py"), staging, Fence())

    assert b"old" == (folder / "a.py").read_bytes()
    assert before == target.files["a.py"]
    with opened(folder) as successor:
        assert before == successor.files["a.py"]


# --- deleting


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
