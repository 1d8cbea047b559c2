"""
What one cycle brings into a tree, and which errors of the volume end it.
"""

from __future__ import annotations

import errno
from collections.abc import Collection
from dataclasses import dataclass, field

from s3_sync.files import Tree
from s3_sync.plan import State
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import RevisionRefused
from sidecar_runtime.volume.files import explain_os_error

# Errors that end the cycle, because the volume fails and not a single path.
VOLUME_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EROFS,
    errno.ESTALE,
}


@dataclass(slots=True)
class Fill:
    """
    What is brought into one tree.

    Args:
        until: When the cycle's time for downloads is up (monotonic seconds).
        failed: The error of each file that could not be brought, or removed, by path.
        unreached: Paths for which the time was not enough.
    """

    tree: Tree
    fence: Fence
    until: float
    failed: dict[str, SidecarError] = field(default_factory=dict)
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

    def raise_first(self, but: Collection[str] = ()) -> None:
        """
        Raise the first error of a file that is not among those to pass over.
        """
        for path, error in self.failed.items():
            if path not in but:
                raise error


@dataclass(slots=True)
class Build:
    """
    A tree that is brought up to date with a state, as far as possible.

    Args:
        gone: Files that no state has any more, in place: removed last, or first where
            the volume is full.
        name: The name of what it holds: a revision, which may have an appendix, or a
            partial state.
        missing: Files of the state that are missing or out of date, with the error.
        fallback: The refused revision that it replaces; empty if this is the newest.
        refusal: Why that was refused.
    """

    state: State
    gone: set[str]
    fill: Fill = field(init=False)
    name: str = ""
    missing: dict[str, SidecarError] = field(default_factory=dict)
    fallback: str = ""
    refusal: RevisionRefused | None = None
