"""
A folder that only we can enter: for the socket, and for repaired copies of keys.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import tempfile
from contextlib import suppress

PREFIX = "git-sync-wrapper-"
LOCK = "lock"


class PrivateFolder:
    """
    Made with mode 0700 below TMPDIR; what a killed process left there is removed.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self) -> None:
        _sweep()
        self.path = tempfile.mkdtemp(prefix=PREFIX)
        self._lock = os.open(os.path.join(self.path, LOCK), os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """
        Remove it with all that is in it.
        """
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _sweep() -> None:
    """
    Remove the folders whose process is gone: its lock is free.
    """
    for path in glob.glob(os.path.join(glob.escape(tempfile.gettempdir()), f"{PREFIX}*")):
        with suppress(OSError):
            if os.lstat(path).st_uid != os.getuid():
                continue
            lock = os.open(os.path.join(path, LOCK), os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
