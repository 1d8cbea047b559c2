"""
Reads small files that others may have made: never more of them than a limit.
"""

from __future__ import annotations

import errno
import os
import stat


def read_regular(path: str, limit_bytes: int, *, follow: bool = False) -> bytes:
    """
    Return the bytes of a regular file; one beyond the limit is not read at all.

    Args:
        follow: Whether the path may be a symlink, as the files of a Secret are.

    Raises:
        OSError: It is missing, not a regular file, or larger than the limit.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    fd = os.open(path, flags)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        if found.st_size > limit_bytes:
            raise OSError(errno.EFBIG, f"it has {found.st_size} bytes")
        return os.read(fd, limit_bytes)
    finally:
        os.close(fd)
