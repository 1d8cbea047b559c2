"""
The layouts: how files that cycles have brought up to date become what consumers see.

Ungated in place, the target folder itself is what cycles bring up to date. Everywhere else they
work on a copy in `.s3-sync`, the tree, and a revision becomes visible once it is complete there.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import ExitStack
from typing import Protocol

from s3_sync.bring import bring, difference, mend, restore
from s3_sync.leftovers import clear_snapshots, clear_tree
from s3_sync.managed import Managed
from s3_sync.plan import Plan
from s3_sync.settings import Settings
from s3_sync.snapshot import Snapshot
from s3_sync.target import Target, Torn
from s3_sync.volume import PUBLISHING, STAGED, TREE, Volume, is_at, is_there
from s3_sync.work import Work
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

    def prune(self, fence: Fence) -> None:
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

    def prune(self, fence: Fence) -> None:
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
        self._delete = settings.delete
        with ExitStack() as stack:
            self.tree = Target(volume, file_mode=settings.file_mode, part=STAGED)
            stack.callback(self.tree.close)
            self.shown = Target(volume, file_mode=settings.file_mode)
            stack.callback(self.shown.close)
            self._open = stack.pop_all()
        # An accepted revision of which a part is shown: nothing else is done before the rest is.
        self._is_half_shown = is_there(PUBLISHING, volume.state)
        if not self.tree.managed.files:
            restore(self.shown.managed.files, self.shown, self.tree, Fence())

    def is_current(self) -> bool:
        return is_at(STAGED, self._volume.state, self.tree.folder)

    def shows(self, revision: str) -> bool:
        return self.changes().is_empty

    def changes(self) -> Plan[Managed]:
        plan = difference(self.tree, self.shown, may_delete=self._delete != "none")
        if self._delete != "all":
            return plan
        foreign = [path for path in self.shown.foreign() if path not in self.tree.managed.files]
        return Plan(plan.publish, (*plan.delete, *foreign))

    def mend(self, damaged: Collection[str], fence: Fence) -> Work:
        work = mend(self.tree, self.shown, damaged, fence)
        if self._is_half_shown:
            work.add(self._show(fence))
        return work

    def publish(self, revision: str, fence: Fence) -> Work:
        self._volume.write_state(PUBLISHING, f"{revision}\n".encode(), fence)
        self._is_half_shown = True
        return self._show(fence)

    def _show(self, fence: Fence) -> Work:
        """
        Show all of the tree; where that fails, or the process is killed, the next cycle goes on.
        """
        plan = self.changes()
        # All of it is looked at before the first is shown: a gate's command may have meddled.
        for path in self.tree.damaged(path for path, _ in plan.publish):
            raise Torn(path)
        work = bring(self.tree, self.shown, plan, fence)
        if not work.failed:
            with fence:
                os.unlink(PUBLISHING, dir_fd=self._volume.state)
            self._is_half_shown = False
        return work

    def prune(self, fence: Fence) -> None:
        pass

    def clear_others(self, fence: Fence) -> None:
        with fence:
            clear_snapshots(self._volume)

    def close(self) -> None:
        self._open.close()
