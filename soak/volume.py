"""
The volume with the targets of a station: a small one, which can be filled up.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Volume:
    """
    A folder for targets.

    Args:
        path: Its path.
        is_small: Whether it is a separate file system of limited size, which can be filled up.
    """

    path: Path
    is_small: bool

    @contextmanager
    def full(self) -> Iterator[None]:
        """
        Fill it up completely.
        """
        filler = self.path / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        try:
            yield
        finally:
            filler.unlink()


@contextmanager
def volume(path: Path, size: str) -> Iterator[Volume]:
    """
    Mount a volume in memory if that is allowed (root), otherwise use a plain folder.

    Args:
        size: The size in mount's notation, such as `16m`.
    """
    path.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", str(path)]
    is_small = os.getuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield Volume(path, is_small)
    finally:
        if is_small:
            subprocess.run(["umount", "--lazy", str(path)], check=True)
