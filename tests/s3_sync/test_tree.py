"""Every change to a folder, and none outside it."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from s3_sync.names import RESERVED
from s3_sync.tree import Fill, Tree
from s3_sync.volume import Volume, is_folding, walk
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.s3_sync.handling import opened, put


@pytest.mark.parametrize("fsync", [True, False])
def test_lists_a_file_before_its_rename_and_flushes_it_if_configured(
    folder: Path, fsync: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between line and rename leaves an extra line, not an unlisted file."""
    steps: list[str] = []
    flush = os.fsync
    rename = os.rename

    def note_flush(fd: int) -> None:
        place = Path(os.readlink(f"/proc/self/fd/{fd}"))
        steps.append(f"flush {place.suffix or place.name}")
        flush(fd)

    def note_rename(*arguments: Any, **folders: Any) -> None:
        steps.append(
            "rename, listed"
            if ('"a.py"' in (folder / RESERVED / "managed").read_text())
            else "rename, unknown"
        )
        rename(*arguments, **folders)

    with opened(folder, fsync=fsync) as target:
        monkeypatch.setattr(os, "fsync", note_flush)
        monkeypatch.setattr(os, "rename", note_rename)
        put(target, "a.py")

    assert steps == (
        ["flush .part", "flush managed", "rename, listed", f"flush {folder.name}"]
        if fsync
        else ["rename, listed"]
    )


def test_writes_stay_inside_if_a_folder_is_swapped_after_the_walk(
    volume: Volume, folder: Path, tmp_path: Path
) -> None:
    for place in (folder / "a", tmp_path / "outside"):
        place.mkdir()

    with walk(volume.root, "a/c") as (fd, name):
        (folder / "a").rename(folder / "moved")
        (folder / "a").symlink_to(tmp_path / "outside")
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=fd))

    assert [] == os.listdir(tmp_path / "outside")
    assert (folder / "moved/c").exists()


def test_an_abandoned_cycle_forgets_no_file(target: Tree, revoked: Fence) -> None:
    put(target, "a.py")

    with pytest.raises(CycleAbandoned):
        target.forget("a.py", revoked)

    assert "a.py" in target.files


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.ESTALE])
def test_a_failure_of_the_volume_is_not_that_of_a_path(
    folder: Path, number: int
) -> None:
    with opened(folder) as target:
        fill = Fill(target, Fence(), 0.0)
        fill.fail_on_disk("a.py", PermissionError(errno.EPERM, "no"))
        with pytest.raises(OSError, match="it fails"):
            fill.fail_on_disk("b.py", OSError(number, "it fails"))

    assert "cannot change 'a.py'" in fill.failed["a.py"].message


def test_a_volume_that_ignores_the_case_of_ascii_letters_only_is_folding(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As XFS with `-n version=ci`."""
    monkeypatch.setattr(
        "s3_sync.volume.stat_in", lambda name, folder: "FOLDING" in name or None
    )
    assert is_folding(volume.staging.fd)
