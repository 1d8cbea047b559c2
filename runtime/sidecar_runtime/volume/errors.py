"""
Failures of the shared volume, told with what to do about them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from sidecar_runtime.errors import SidecarError

FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT}
DENIED_ERRORS = {errno.EACCES, errno.EPERM, errno.EROFS}


class TargetError(SidecarError):
    """
    The target cannot be written.
    """


@contextmanager
def explained(what: str, path: str = "") -> Iterator[None]:
    """
    Turn failures of the file system into errors that teach; see :func:`explain_os_error`.
    """
    try:
        yield
    except OSError as error:
        raise explain_os_error(error, what, path) from error


def explain_os_error(error: OSError, what: str, path: str = "") -> TargetError:
    """
    Return the error for a failure of the file system, with what to do.

    Args:
        what: What could not be done, such as ``cannot write to /dags``.
        path: On the volume that fails, to look at what it has run out of.
    """
    said = f"{what}: {error.strerror or error}"
    if error.errno in FULL_ERRORS:
        advice = "Raise the volume's size (emptyDir: sizeLimit). What is published is untouched."
        if path and _has_no_inode(path):
            said += " (no inode is free)"
            advice = "Fewer files, or a volume with more inodes. What is published is untouched."
        return TargetError("target_full", said, advice)
    if error.errno in DENIED_ERRORS:
        said += f" (as uid {os.getuid()}, gid {os.getgid()})"
        advice = "Mount the volume writable here, and let the pod's fsGroup or runAsUser own it."
        return TargetError("target_denied", said, advice)
    advice = "Look at the volume and its node. What is published is untouched."
    if error.errno == errno.EXDEV:
        advice = "Another volume is mounted there, inside the target. Mount it elsewhere."
    return TargetError("target_failed", said, advice)


def _has_no_inode(path: str) -> bool:
    try:
        found = os.statvfs(path)
    except OSError:
        return False
    return found.f_files > 0 and found.f_favail == 0
