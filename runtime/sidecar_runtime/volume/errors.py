"""
Failures of the shared volume, with advice.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.volume.files import free_inodes

FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT}
DENIED_ERRORS = {errno.EACCES, errno.EPERM, errno.EROFS}

# A sizeLimit makes only a volume in memory full: on disk, the kubelet evicts the pod instead.
FULL_ADVICE = (
    "Free space, or inodes (df -i), on the node's disk or enlarge the claim; for a volume in "
    "memory, raise its sizeLimit. The published files are unchanged."
)
DENIED_ADVICE = "Mount the volume writable here; set the pod's fsGroup or runAsUser to its owner."
INODES_ADVICE = (
    "Reduce the number of files, or use a volume with more inodes. The published files are "
    "unchanged."
)
OTHER_ADVICE = "Check the volume and its node. The published files are unchanged."
_ADVICE = {
    errno.EOPNOTSUPP: "Use a volume whose file system supports it, such as an emptyDir, a block "
    "device or NFS 4.",
    errno.EXDEV: "Another volume is mounted at that path, inside the target. Mount it elsewhere.",
}
LINK_ADVICE = "Move it away, and mount nothing at this path: consumers mount its parent folder."


class TargetError(SidecarError):
    """
    The target cannot be written.
    """


@contextmanager
def explained(what: str, path: str = "") -> Iterator[None]:
    """
    Turn failures of the file system into errors with advice; see :func:`explain_os_error`.
    """
    try:
        yield
    except OSError as error:
        raise explain_os_error(error, what, path) from error


def lacking(what: str, error: OSError) -> OSError:
    """
    Return the error for an operation that the file system of the volume lacks.
    """
    said = f"its file system does not support {what} ({error.strerror})"
    return OSError(errno.EOPNOTSUPP, said)


def explain_os_error(error: OSError, what: str, path: str = "") -> TargetError:
    """
    Return the error for a failure of the file system, with advice.

    Args:
        what: The failed operation, such as ``cannot write to /dags``.
        path: A path on the failing volume, to check whether it has no free inodes.
    """
    said = f"{what}: {error.strerror or error}"
    if error.errno in FULL_ERRORS:
        if path and _is_out_of_inodes(path):
            return TargetError("target_full", f"{said} (no free inodes)", INODES_ADVICE)
        return TargetError("target_full", said, FULL_ADVICE)
    if error.errno in DENIED_ERRORS:
        said += f" (as uid {os.getuid()}, gid {os.getgid()})"
        return TargetError("target_denied", said, DENIED_ADVICE)
    advice = _ADVICE.get(error.errno or 0, OTHER_ADVICE)
    return TargetError("target_failed", said, advice)


def _is_out_of_inodes(path: str) -> bool:
    with suppress(OSError):
        return free_inodes(path) == 0
    return False
