"""
A folder that only our UID can enter, for the socket and for repaired copies of keys.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress

PREFIX = "git-sync-wrapper-"
LOCK = "lock"
# mkdtemp creates an unpredictable name there, so no other process can take it first.
PARENTS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108
# The path of a socket has at most 107 bytes: unix(7).
LONGEST_PARENT_BYTES = 64


class PrivateFolder:
    """
    A folder with mode 0700 below TMPDIR or /tmp; folders of killed processes are removed.

    A container with a read-only root and nothing mounted on /tmp still has /dev/shm. A TMPDIR that
    is too long for a socket is skipped.

    Raises:
        OSError: It cannot be created.
    """

    def __init__(self, parents: Sequence[str] = PARENTS) -> None:
        parent = _parent(parents)
        _sweep(parent)
        lock = None
        while lock is None:
            self.path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
            lock = claim(self.path)
        self._lock = lock

    def remove(self) -> None:
        """
        Remove it with its content.
        """
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def claim(path: str) -> int | None:
    """
    Lock a new folder; None if another process that starts at the same time removes it as a
    leftover.
    """
    name = os.path.join(path, LOCK)
    try:
        lock = os.open(name, os.O_CREAT | os.O_RDWR, 0o600)
    except FileNotFoundError:
        return None
    fcntl.flock(lock, fcntl.LOCK_EX)
    if os.path.exists(name):
        return lock
    os.close(lock)
    return None


def _parent(parents: Sequence[str]) -> str:
    for path in (os.environ.get("TMPDIR", ""), *parents):
        if not path or len(os.fsencode(path)) > LONGEST_PARENT_BYTES:
            continue
        if os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK):
            return path
    return parents[0]


def _sweep(parent: str) -> None:
    """
    Remove folders whose lock is free, because their process is gone.
    """
    for path in glob.glob(os.path.join(glob.escape(parent), f"{PREFIX}*")):
        with suppress(OSError):
            if os.lstat(path).st_uid != os.getuid():
                continue
            lock = os.open(os.path.join(path, LOCK), os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
