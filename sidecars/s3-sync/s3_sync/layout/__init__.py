"""
What consumers see, and the only writer of it: two layouts with the same members.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from s3_sync.files import Tree
from s3_sync.fill import Build
from s3_sync.layout.in_place import InPlaceLayout
from s3_sync.layout.snapshots import SnapshotLayout
from s3_sync.names import Content
from s3_sync.record import Record
from s3_sync.settings import Settings
from s3_sync.volume import Volume
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence


class Layout(Protocol):
    """
    How a state is shown; belongs to one thread.

    =============  ===========================  ==========================================
    member         in place                     snapshots
    =============  ===========================  ==========================================
    ``begin``      notes in the record that     makes a folder beside what is shown, or
                   files are about to change    goes on with the one of an earlier cycle
    ``reuse``      nothing: they are there      links what is shown already
    ``make_room``  deletions first              drops what is retained, the oldest first
    ``undo``       takes that note back, if     nothing: the next cycle goes on
                   no file was replaced
    ``stand_in``   removes what is damaged      links the former files
    ``publish``    deletions → record           name → record → link
    ``tidy``       removes snapshots            prunes; removes files in place
    =============  ===========================  ==========================================

    Attributes:
        is_atomic: Whether consumers see a change as a whole.

    Raises:
        OSError: From every method, if the volume fails.
        CycleAbandoned: The fence was revoked.
    """

    is_atomic: bool

    @property
    def shown(self) -> Tree | None:
        """
        What consumers see; None before the first publish of a snapshot.
        """

    @property
    def problem(self) -> SidecarError | None:
        """
        Why consumers do not see what is published; None if they do.
        """

    def is_current(self) -> bool:
        """
        Whether the open folders are still at their paths.
        """

    def has(self, name: str) -> bool:
        """
        Whether what is shown, and its list, are of the state of this name.
        """

    def make_way(self) -> None:
        """
        Find out whether what consumers look at can be put there.

        Raises:
            SidecarError: ``link_blocked``.
        """

    def inspect(self, most: int, parts: int) -> bool:
        """
        Inspect a part of what is shown; return whether there is new damage.
        """

    def correct(self, fence: Fence) -> None:
        """
        Undo what needs no source.
        """

    def foreign(self) -> Collection[str]:
        """
        Return files of others that ``S3_SYNC_DELETE=all`` deletes.
        """

    def begin(self, build: Build, fence: Fence) -> Tree:
        """
        Return the tree to bring up to date.
        """

    def reuse(self, files: Mapping[str, Content], tree: Tree, fence: Fence) -> None:
        """
        Give it the files that consumers see already.
        """

    def make_room(self, build: Build, fence: Fence) -> bool:
        """
        Remove something that need not be there, on a full volume; False if there is
        nothing.
        """

    def undo(self, fence: Fence) -> None:
        """
        Note that a build is not published in this cycle.
        """

    def drop(self) -> None:
        """
        Discard a build that will not be published.
        """

    def stand_in(self, build: Build, fence: Fence) -> None:
        """
        Let the former version of a file that could not be read stand in for it.
        """

    def publish(
        self, build: Build, record: Callable[[Tree], None], fence: Fence
    ) -> None:
        """
        Let consumers see a build.

        Args:
            record: Records a tree as published.

        Raises:
            SidecarError: A file cannot be removed; or ``link_blocked``.
        """

    def tidy(self, fence: Fence) -> None:
        """
        Remove what need not be kept, and what another layout left, now that what is
        shown is recorded.
        """

    def close(self) -> None:
        """
        Close all open folders and files.
        """


def open_layout(settings: Settings, volume: Volume, record: Record) -> Layout:
    """
    Open what the settings ask for.
    """
    layout = SnapshotLayout if settings.layout == "snapshot" else InPlaceLayout
    return layout(settings, volume, record)
