"""
A temporary folder that only our UID can enter, for secrets and for what belongs to this process.
"""

import fcntl
import glob
import os
import shutil
import tempfile
from contextlib import suppress

LOCK = ".lock"


class PrivateFolder:
    """
    A folder with mode 0700 in `parent`; folders of killed processes, which no longer hold a
    ``flock`` on them, are removed.

    Args:
        prefix: The start of its name, and of the names of leftovers.

    Raises:
        OSError: It cannot be created.
    """

    def __init__(self, prefix: str, parent: str) -> None:
        _sweep(prefix, parent)
        lock = None
        while lock is None:
            # An unpredictable name, so no other process can take it first.
            self.path = tempfile.mkdtemp(prefix=prefix, dir=parent)
            lock = claim(self.path)
        self._lock = lock

    def remove(self) -> None:
        """
        Remove it with its content.
        """
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def parent_folder() -> str:
    """
    Return TMPDIR or /tmp; where neither can be written, because the root is read-only and nothing
    is mounted there, /dev/shm, which a container always has.
    """
    places = (os.environ.get("TMPDIR", ""), "/tmp", "/dev/shm")  # noqa: S108 - the folder is private
    return next((path for path in places if os.access(path, os.W_OK | os.X_OK)), places[1])


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


def _sweep(prefix: str, parent: str) -> None:
    """
    Remove folders whose lock is free, because their process is gone.
    """
    for path in glob.glob(os.path.join(glob.escape(parent), f"{prefix}*")):
        with suppress(OSError):
            if os.lstat(path).st_uid != os.getuid():
                continue
            lock = os.open(os.path.join(path, LOCK), os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
