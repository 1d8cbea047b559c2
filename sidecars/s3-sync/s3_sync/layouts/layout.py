"""
The interface of a layout: how files that cycles have brought up to date become visible.

In place and without a gate, cycles work on the target folder itself. In every other layout they
work on a copy in `.s3-sync`, the tree, and a revision becomes visible once it is complete there.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from s3_sync.plan import Plan
from s3_sync.result import CycleResult
from s3_sync.tree.target import Target
from sidecar_runtime.fence import Fence


class Layout(Protocol):
    """
    The interface between a cycle and its layout.

    Attributes:
        tree: The files that cycles bring up to date with the source.
    """

    tree: Target

    @property
    def shown(self) -> Target | None:
        """
        The published files; None before the first publish.
        """

    @property
    def revision(self) -> str:
        """
        The published revision; empty if only the record can tell.
        """

    @property
    def problem(self) -> str:
        """
        Why consumers do not see all files of the recorded state; empty if they do.
        """

    @property
    def unrecorded(self) -> str:
        """
        The partial name of published files that the record may not describe yet; empty if it does.
        """

    @property
    def is_atomic(self) -> bool:
        """
        Whether a revision is published either completely or not at all.
        """

    def is_current(self) -> bool:
        """
        Whether the open folders are still at their paths.
        """

    def shows(self, revision: str) -> bool:
        """
        Whether consumers see all files of the tree, under that revision.
        """

    def begin(self, revision: str, fence: Fence) -> None:
        """
        Note that files which belong together are about to be replaced one by one.
        """

    def changes(self) -> Plan:
        """
        Return the changes of the tree that consumers do not see yet.
        """

    def repair(self, damaged: Collection[str], fence: Fence) -> CycleResult:
        """
        Restore damaged published files whose content the tree has.

        Raises:
            Torn: The tree itself is damaged.
        """

    def publish(self, revision: str, fence: Fence) -> CycleResult:
        """
        Publish all files of the tree.

        Raises:
            Torn: The tree itself is damaged; nothing, or at least not that file, was published.
        """

    def prune(self, fence: Fence) -> None:
        """
        Remove states that were replaced longer ago than they are retained.
        """

    def finish(self, fence: Fence) -> bool:
        """
        Remove files of another layout from this volume, now that the published state is recorded.

        Returns:
            Whether nothing remains to be removed, such as a damaged snapshot that is in use.
        """

    def close(self) -> None:
        """
        Close all open folders and files.
        """
