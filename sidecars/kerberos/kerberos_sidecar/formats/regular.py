"""
Reads small files that other processes may have created, up to a size limit.
"""

from __future__ import annotations

import errno
import os
import stat


def read_regular(path: str, limit_bytes: int, *, follow: bool = False) -> bytes:
    """
    Return the bytes of a regular file; do not read a file that exceeds the limit.

    Args:
        follow: Whether the path may be a symlink, as a Secret's files are.

    Raises:
        OSError: The file is missing, not a regular file, or larger than the limit.
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
