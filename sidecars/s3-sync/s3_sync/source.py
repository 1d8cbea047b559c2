"""
What a cycle reads from: two sources with the same members, `listing.py` and `release`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from s3_sync.fill import Fill
from s3_sync.plan import State
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence

Sequenced = tuple[int, str]


class Source(Protocol):
    """
    Tells the state that should be on disk, and brings its files; belongs to one thread.

    Raises:
        SidecarError: From every coroutine: the source fails as a whole.
        CycleAbandoned: The fence was revoked.
    """

    async def read(self, fence: Fence, seen: Sequenced = (0, "")) -> State:
        """
        Return the newest state.

        Args:
            seen: Of releases: the highest sequence that the volume has seen, and the
                key that signed it. An older one is a replay.
        """

    async def confirm(self, paths: Collection[str], fence: Fence) -> set[str]:
        """
        Return those of the paths that are not in the newest state for certain.
        """

    async def fetch(
        self,
        paths: Sequence[str],
        state: State,
        fill: Fill,
        before: Mapping[str, SidecarError],
    ) -> None:
        """
        Bring files into a tree, or adopt those that it has; the fill notes those that
        fail.

        Args:
            before: Earlier errors by path.
        """

    def earlier(self) -> list[str]:
        """
        Return the states before the newest one that can be read, newest first.
        """

    async def find(self, revision: str, fence: Fence) -> State:
        """
        Return an earlier state by its name.
        """
