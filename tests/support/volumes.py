"""
Small volumes, for tests of a full disk.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_volume(path: Path, size: str) -> Iterator[Path]:
    """
    Mount a volume of its own size (`4m`, and more options of tmpfs); skips where it may not.
    """
    path.mkdir(parents=True)
    if os.getuid() != 0 or not mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)):
        pytest.skip("mounting a volume needs root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def mount(*arguments: str) -> bool:
    """
    Run `mount`; False where that is not allowed.
    """
    return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0


def fill_up(path: Path) -> None:
    """
    Write a file until the volume has no room left.
    """
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
