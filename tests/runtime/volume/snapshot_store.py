"""
A target folder with a snapshot store, on a real file system.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.snapshots import Snapshots

STORE = "own/store"


class Shelf:
    """A target folder with its store, and operations of a process on them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = root / STORE
        self.link = root / "current"
        self.store.mkdir(parents=True)
        self.root_fd = os.open(root, os.O_RDONLY)
        self.store_fd = os.open(self.store, os.O_RDONLY)

    def begin(self, **changes: Any) -> Snapshots:
        """Return the snapshots of the store, as a new process opens it."""
        arguments = {"retain_count": 2, "retain_seconds": 600.0, "fsync": False} | changes
        return Snapshots(self.root_fd, self.store_fd, STORE, link="current", **arguments)

    def make(self, *revisions: str, **changes: Any) -> Snapshots:
        """Add and show revisions one after the other; the file of each contains its name."""
        snapshots = self.begin(**changes)
        for revision in revisions:
            snapshots.add(revision, filling(revision), Fence())
            snapshots.show(revision, Fence())
        return snapshots

    def age(self, revision: str, seconds: float) -> None:
        """Set how long ago a snapshot was replaced."""
        at = time.time() - seconds
        os.utime(self.store / revision, (at, at))

    def names(self) -> set[str]:
        """Return all entries of the store."""
        return set(os.listdir(self.store))

    def close(self) -> None:
        os.close(self.root_fd)
        os.close(self.store_fd)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path / "root")
    yield shelf
    shelf.close()


def filling(content: str) -> Callable[[int], None]:
    """Return a function that fills a snapshot with one file."""

    def fill(folder: int) -> None:
        fd = os.open("a.py", os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=folder)
        os.write(fd, content.encode())
        os.close(fd)

    return fill


def pruned(snapshots: Snapshots) -> set[str]:
    """Prune as if the current revision were the published one; return the kept snapshots."""
    return set(snapshots.prune(snapshots.current(), Fence()))
