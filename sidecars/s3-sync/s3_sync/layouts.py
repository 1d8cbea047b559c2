"""
The layouts: how files that cycles have brought up to date become what consumers see.

Ungated in place, the target folder itself is what cycles bring up to date. Everywhere else they
work on a copy in `.s3-sync`, the tree, and a revision becomes visible once it is complete there.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Protocol

from s3_sync.apply import Work
from s3_sync.bring import bring, difference, mend
from s3_sync.leftovers import clear_snapshots, clear_tree
from s3_sync.managed import Managed
from s3_sync.plan import Plan
from s3_sync.settings import Settings
from s3_sync.snapshot import Snapshot
from s3_sync.target import Target, Torn
from s3_sync.volume import STAGED, TREE, Volume, is_at
from s3_sync.walk import Blocked
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
        Why consumers see nothing although all is in its place; empty where they do.
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

    def changes(self) -> Plan[Managed]:
        """
        Return what of the tree consumers do not see yet.
        """

    def mend(self, damaged: Collection[str], fence: Fence) -> Work:
        """
        Undo what others did to what consumers see, as far as the tree has the same content.

        Raises:
            Torn: The tree itself is damaged.
        """

    def publish(self, revision: str, fence: Fence) -> Work:
        """
        Let consumers see all of the tree.

        Raises:
            Torn: The tree itself is damaged; nothing, or nothing of the file, was published.
        """

    def prune(self) -> None:
        """
        Remove what has been replaced long enough ago.
        """

    def clear_others(self, fence: Fence) -> None:
        """
        Remove what another layout left on this volume, now that this one has all in its place.
        """

    def close(self) -> None:
        """
        Close all that is open.
        """


def open_layout(settings: Settings, volume: Volume, published: str) -> Layout:
    """
    Open the layout that the settings ask for.

    Args:
        published: The revision that is on record as published.

    Raises:
        OSError: The volume fails.
    """
    if settings.layout == "snapshot":
        return Snapshot(settings, volume, published)
    if settings.gate != "off":
        return Staged(settings, volume)
    return Direct(settings, volume)


def tree_part(settings: Settings) -> str:
    """
    Return which part of `.s3-sync` cycles work on; empty for the target folder itself.
    """
    if settings.layout == "snapshot":
        return TREE
    return STAGED if settings.gate != "off" else ""


class Direct:
    """
    In place, without a gate: each file is visible at once.
    """

    is_atomic = False
    revision = problem = ""

    def __init__(self, settings: Settings, volume: Volume) -> None:
        self._volume = volume
        self.tree = self.shown = Target(volume, file_mode=settings.file_mode)

    def is_current(self) -> bool:
        return True

    def shows(self, revision: str) -> bool:
        return True

    def changes(self) -> Plan[Managed]:
        return Plan((), ())

    def mend(self, damaged: Collection[str], fence: Fence) -> Work:
        return Work()

    def publish(self, revision: str, fence: Fence) -> Work:
        return Work()

    def prune(self) -> None:
        pass

    def clear_others(self, fence: Fence) -> None:
        with fence:
            clear_tree(STAGED, self._volume)
            clear_snapshots(self._volume)

    def close(self) -> None:
        self.tree.close()


class Staged:
    """
    In place, behind a gate: the files of a revision follow one another, each by rename.
    """

    is_atomic = True
    revision = problem = ""

    def __init__(self, settings: Settings, volume: Volume) -> None:
        self._volume = volume
        self._takes_all = settings.delete == "all"
        self.tree = Target(volume, file_mode=settings.file_mode, part=STAGED)
        self.shown = Target(volume, file_mode=settings.file_mode)
        if not self.tree.managed.files:
            self._seed()

    def _seed(self) -> None:
        """
        Begin with links to what was published before there was a gate; the rest is downloaded.
        """
        for path in self.shown.managed.files:
            with suppress(Torn, Blocked, OSError):
                self.tree.take(path, self.shown, Fence(), lambda _: False)

    def is_current(self) -> bool:
        return is_at(STAGED, self._volume.state, self.tree.folder)

    def shows(self, revision: str) -> bool:
        return self.changes().is_empty

    def changes(self) -> Plan[Managed]:
        return difference(self.tree, self.shown)

    def mend(self, damaged: Collection[str], fence: Fence) -> Work:
        return mend(self.tree, self.shown, damaged, self._takes_all, fence)

    def publish(self, revision: str, fence: Fence) -> Work:
        plan = self.changes()
        # All of it is looked at before the first is shown: a gate's command may have meddled.
        for path in self.tree.damaged(path for path, _ in plan.publish):
            raise Torn(path)
        return bring(self.tree, self.shown, plan, fence)

    def prune(self) -> None:
        pass

    def clear_others(self, fence: Fence) -> None:
        with fence:
            clear_snapshots(self._volume)

    def close(self) -> None:
        self.tree.close()
        self.shown.close()
