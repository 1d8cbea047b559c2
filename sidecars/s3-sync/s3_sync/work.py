"""
What one cycle brings into a folder, and what became of it.
"""

from __future__ import annotations

import errno
from collections.abc import Collection
from dataclasses import dataclass, field

from s3_sync.folder.folder import Folder
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.files import explain_os_error

# Errors that end the cycle, because the volume fails and not a single path.
VOLUME_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE}


@dataclass(slots=True)
class Work:
    """
    The work of one cycle in one folder.

    Args:
        until: When the cycle's time for downloads is up (monotonic seconds).
        damaged: Files of the folder that are not as they were put into place.
        failed: The error of each file that could not be brought, by path.
        blocked: Paths that a file of another owner blocks.
        adopted: Paths whose file on disk had the content already.
        unreached: Paths for which the time was not enough.
    """

    folder: Folder
    fence: Fence
    until: float
    damaged: Collection[str] = ()
    failed: dict[str, SidecarError] = field(default_factory=dict)
    blocked: set[str] = field(default_factory=set)
    adopted: set[str] = field(default_factory=set)
    unreached: set[str] = field(default_factory=set)
    downloaded_bytes: int = 0

    def fail_on_disk(self, path: str, error: OSError) -> None:
        """
        Note a file-system error of one path.

        Raises:
            OSError: The volume fails as a whole.
        """
        if error.errno in VOLUME_ERRORS:
            raise error
        self.failed[path] = explain_os_error(error, f"cannot write {path!r}")
