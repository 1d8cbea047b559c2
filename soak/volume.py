"""
The volume that the targets of a station lie on: a small one, which can be full.
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
    Args:
        path: Its folder.
        is_small: It has a size of its own, so that it can be filled.
    """

    path: Path
    is_small: bool

    @contextmanager
    def full(self) -> Iterator[None]:
        """
        Leave no room on it.
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
    Mount a volume in memory where that is allowed (root), else take a plain folder.

    Args:
        size: As mount takes it: `16m`.
    """
    path.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", str(path)]
    is_small = os.getuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield Volume(path, is_small)
    finally:
        if is_small:
            subprocess.run(["umount", "--lazy", str(path)], check=True)
