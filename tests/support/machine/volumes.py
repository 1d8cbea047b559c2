"""
Volumes: small ones that fill up, disks that lose power, one that ignores case.
"""

import contextlib
import ctypes
import filecmp
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import SidecarProcess
from tests.support.waiting import wait_until

CLONE_NEWNS = 0x20000


def mount_in_private() -> None:
    """
    Move this process into a mount namespace of its own, if that is allowed: what it
    mounts ends with it and its children, even if they are killed. `os.unshare` is new
    in Python 3.12.
    """
    if ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0:
        mount("--make-rslave", "/")


@contextlib.contextmanager
def small_volume(path: Path, size: str) -> Iterator[Path]:
    """
    Mount a tmpfs of a given size (`4m`, and more options); skip if that is not allowed.
    """
    path.mkdir(parents=True)
    if os.getuid() != 0 or not mount(
        "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)
    ):
        pytest.skip("mounting a volume needs root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@contextlib.contextmanager
def disk(folder: Path, size_mib: int = 8) -> Iterator[Path]:
    """
    Mount `folder/image`, ext4 with a journal, at `folder/volume`; skip if that is not
    allowed.
    """
    path = folder / "volume"
    image = folder / "image"
    path.mkdir()
    with image.open("wb") as file:
        file.truncate(size_mib << 20)
    is_made = (
        os.getuid() == 0
        and shutil.which("mkfs.ext4")
        and subprocess.run(["mkfs.ext4", "-q", str(image)]).returncode == 0
        and mount("-o", "loop", str(image), str(path))
    )
    if not is_made:
        pytest.skip("a disk that fails needs root, mkfs.ext4 and loop devices")
    try:
        yield path
    finally:  # twice if another volume was mounted over it
        while (
            subprocess.run(
                ["umount", "--lazy", str(path)], capture_output=True
            ).returncode
            == 0
        ):
            pass


@contextlib.contextmanager
def ignoring_case(path: Path) -> Iterator[Path]:
    """
    Mount a file system that ignores case, as SMB does: FUSE over a folder. Its inodes
    reach 2**64. Skip if that is not allowed.
    """
    there = path.with_name(f"{path.name}-there")
    rclone = Path(sys.executable).parent / "rclone"
    there.mkdir()
    options = [
        "--vfs-case-insensitive",
        "--vfs-cache-mode=writes",
        "--config=/dev/null",
    ]
    command = [rclone, "mount", there, path, *options, f"--cache-dir={path}-cache"]
    path.mkdir()
    if os.getuid() != 0:
        pytest.skip("a volume that ignores case needs root")
    mounted = subprocess.Popen([*map(str, command)], stderr=subprocess.DEVNULL)
    try:
        wait_until(
            lambda: path.is_mount() or mounted.poll() is not None, "it is mounted"
        )
        if not path.is_mount():
            pytest.skip("a volume that ignores case needs /dev/fuse")
        yield path
    finally:
        mounted.terminate()
        mounted.wait()
        subprocess.run(["umount", "--lazy", str(path)], capture_output=True)


@contextlib.contextmanager
def power_cut(writer: SidecarProcess, folder: Path) -> Iterator[Path]:
    """
    Mount a copy of the content of a :func:`disk`, taken while its writer is stopped.

    At any moment, the image's content is the state after a power cut.
    """
    # A new name: another test's mount namespace may still use an earlier copy's loop
    # device.
    copy = Path(tempfile.mkdtemp(dir=folder), "copy")
    path = folder / "after"
    path.mkdir(exist_ok=True)
    writer.send_signal(signal.SIGSTOP)
    try:
        shutil.copyfile(folder / "image", copy)
        # the kernel was writing
        while not filecmp.cmp(folder / "image", copy, shallow=False):
            shutil.copyfile(folder / "image", copy)
    finally:
        writer.send_signal(signal.SIGCONT)
    filecmp.clear_cache()
    assert mount("-o", "loop", str(copy), str(path))
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)
        copy.unlink()


def mount(*arguments: str) -> bool:
    """
    Run `mount`; return False if it is not allowed.
    """
    return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0


def see_mounted(process: SidecarProcess, source: Path, place: Path) -> None:
    """
    Let a process see a file or folder mounted at a path; skip if that is not allowed.
    """
    if os.getuid() != 0:
        pytest.skip("mounting needs root")
    process.wrapper = (
        "unshare",
        "--mount",
        "/bin/sh",
        "-c",
        f'mount --bind {source} {place} && exec "$0" "$@"',
    )


def fill_up(path: Path) -> None:
    """
    Write a file until the volume is full.
    """
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
