"""
What a layout is: how files that cycles have brought up to date become what consumers see.

Ungated in place, the target folder itself is what cycles bring up to date. Everywhere else they
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
    What the cycle asks of a layout.

    Attributes:
        tree: What cycles bring up to date with the source.
    """

    tree: Target

    @property
    def shown(self) -> Target | None:
        """
        What consumers see; None before the first publish.
        """

    @property
    def revision(self) -> str:
        """
        The revision that is shown; empty where only the record of it can tell.
        """

    @property
    def problem(self) -> str:
        """
        Why consumers do not see all of what is on record as published; empty where they do.
        """

    @property
    def is_atomic(self) -> bool:
        """
        Whether a revision is published as a whole, or not at all.
        """

    def is_current(self) -> bool:
        """
        Whether the folders that are held open are still the ones at their paths.
        """

    def shows(self, revision: str) -> bool:
        """
        Whether consumers see all of the tree, as that revision.
        """

    def begin(self, revision: str, fence: Fence) -> None:
        """
        Note that files of the tree which belong together are about to be replaced one by one.
        """

    def changes(self) -> Plan:
        """
        Return the part of the tree that consumers do not see yet.
        """

    def repair(self, damaged: Collection[str], fence: Fence) -> CycleResult:
        """
        Undo what others did to what consumers see, as far as the tree has the same content.

        Raises:
            Torn: The tree itself is damaged.
        """

    def publish(self, revision: str, fence: Fence) -> CycleResult:
        """
        Let consumers see all of the tree.

        Raises:
            Torn: The tree itself is damaged; nothing, or nothing of the file, was published.
        """

    def prune(self, fence: Fence) -> None:
        """
        Remove what has been replaced long enough ago.
        """

    def finish(self, fence: Fence) -> None:
        """
        Remove what another layout left on this volume, now that what is shown is on record.
        """

    def close(self) -> None:
        """
        Close all that is open.
        """
