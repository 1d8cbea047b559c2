"""
One publisher at a time on a shared volume: an exclusive ``flock``.
"""

import errno
import fcntl
import json
import os
import socket
import time
from contextlib import ExitStack, suppress
from typing import Any

from sidecar_runtime.volume.errors import lacking
from sidecar_runtime.volume.files import is_at, read_facts
from sidecar_runtime.volume.trees import opened

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


class TargetLock:
    """
    An exclusive ``flock`` on a file of the target, held until the process ends.

    The kernel releases it when the holder dies, for any reason. The file's content describes the
    holder. The file is never removed: otherwise two processes could lock two files with the same
    name.
    """

    def __init__(self) -> None:
        self._fd: int | None = None

    def try_acquire(self, name: str, dir_fd: int) -> bool:
        """
        Try to become the lock holder; True if this process is, even if it already was.

        A lock file that was removed or replaced meanwhile (a wiped volume) is locked again.

        Raises:
            OSError: The file cannot be created or opened.
        """
        if self._fd is not None and is_at(name, dir_fd, self._fd):
            return True
        self.release()
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        if os.path.islink(f"/proc/self/fd/{dir_fd}/{name}"):  # a symlink is never a lock file
            os.unlink(name, dir_fd=dir_fd)
        fd = os.open(name, flags, 0o664, dir_fd=dir_fd)
        with ExitStack() as stack:
            stack.callback(os.close, fd)
            if not take_flock(fd):
                return False
            stack.pop_all()
        self._fd = fd
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": round(time.time(), 3)}
        with suppress(OSError):  # a full disk: the lock is held regardless
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(holder).encode(), 0)
        return True

    def release(self) -> None:
        """
        Release the lock.
        """
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def take_flock(fd: int) -> bool:
    """
    Lock an open file exclusively until it is closed; False while another process has locked it.

    Raises:
        OSError: The file system has no ``flock``.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK}:
            raise lacking("flock", error) from None
        raise
    return True


def find_holder(name: str, folder: str) -> dict[str, Any]:
    """
    Return the current lock holder as :func:`read_holder` does; empty if none. Writes nothing.

    To find out, it shares the lock for an instant; two callers do not mistake each other for a
    holder.
    """
    with suppress(OSError), opened(folder) as above, opened(name, above, _READ) as fd:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return read_holder(name, above)
    return {}


def read_holder(name: str, dir_fd: int) -> dict[str, Any]:
    """
    Return the lock holder as it describes itself: ``host``, ``pid``, ``since`` (Unix time).

    Another process may have written the file, so no other content of it is returned.
    """
    holder = read_facts(name, dir_fd)
    if not holder:
        return {}
    host = str(holder.get("host", "")).encode(errors="replace").decode()[:253]
    numbers = {key: holder.get(key) for key in ("pid", "since")}
    return {"host": host} | {k: v for k, v in numbers.items() if isinstance(v, int | float)}
