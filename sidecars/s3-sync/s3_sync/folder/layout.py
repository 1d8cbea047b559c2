"""
The two layouts: how the files of a state become visible to consumers.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from s3_sync.folder.folder import Folder
from sidecar_runtime.fence import Fence


class Layout(Protocol):
    """
    The interface between a cycle and its layout.

    Attributes:
        shown: What consumers see; None before the first publish.
        is_lost: Whether the list of what is shown was missing or damaged, so that only the source
            can tell what should be there.
    """

    shown: Folder | None
    is_lost: bool

    @property
    def name(self) -> str:
        """
        The name of what is shown; empty if only the record can tell.
        """

    @property
    def problem(self) -> str:
        """
        Why consumers do not see what is shown; empty if they do.
        """

    def tidy(self, fence: Fence, *, is_damaged: bool) -> None:
        """
        Undo what other processes did, as far as that needs no source.

        Args:
            is_damaged: Whether files of what is shown turned out to be damaged.
        """

    def foreign(self) -> list[str]:
        """
        Return the files of other owners that ``S3_SYNC_DELETE=all`` removes with a plan.
        """

    def is_current(self) -> bool:
        """
        Whether the open folders are still at their paths.
        """

    def begin(self) -> Folder:
        """
        Return the folder to bring up to date with a state: what is shown if its files are replaced
        one by one, else one that nobody reads yet.
        """

    def link(self, paths: Collection[str], folder: Folder, fence: Fence) -> None:
        """
        Give a folder those files of what is shown that are as they were published.
        """

    def publish(self, name: str, folder: Folder, fence: Fence) -> None:
        """
        Show a complete folder under a name.

        Raises:
            SidecarError: ``link_blocked``.
            CycleAbandoned: The fence was revoked; consumers see what they saw before.
        """

    def drop(self) -> None:
        """
        Remove a folder that was begun and will not be shown.
        """

    def make_room(self, fence: Fence) -> bool:
        """
        Remove the oldest state that is kept for readers; False if there is none.
        """

    def finish(self, fence: Fence) -> None:
        """
        Remove states that need not be kept, and what another layout left on this volume, now that
        what is shown is recorded.
        """

    def close(self) -> None:
        """
        Close all open folders and files.
        """
