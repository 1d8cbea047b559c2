"""
In place: the files are directly under ``DEST_PATH``, each replaced by a rename.

Consumers may see a mix while a change is in progress, and the record says so until it
is over.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from s3_sync.journal import NAME as MANAGED
from s3_sync.journal import Held
from s3_sync.names import RESERVED, Files, not_held
from s3_sync.published import UNFINISHED, Published, Record
from s3_sync.settings import Settings
from s3_sync.tree import Build, Inspection, Tree
from s3_sync.volume import LINK, SNAPSHOTS, Volume, is_link
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.snapshots import Snapshots, opened, remove_tree

log = get_logger("in_place")


class InPlaceLayout:
    """
    Shows the target itself; see `Layout` for what the members mean.
    """

    problem = None

    def __init__(self, settings: Settings, volume: Volume, record: Record) -> None:
        self._settings = settings
        self._volume = volume
        self.record = record
        self.shown = open_in_place(volume, (record.published or Published()).files)
        # What was published before the record said that a change is in progress.
        self._before: tuple[Published, dict[str, Held]] | None = None

    def is_current(self) -> bool:
        return True  # as long as the volume is

    def has(self, name: str) -> bool:
        return not self.shown.is_lost

    def make_way(self) -> None:
        """
        Do nothing: it is where it has to be.
        """

    def inspect(self, inspection: Inspection) -> bool:
        return self.shown.inspect(inspection)

    def correct(self, fence: Fence) -> None:
        """
        Do nothing: only the source can restore a file.
        """

    def begin(self, build: Build, fence: Fence) -> Tree:
        """
        Return the target. Until the change is recorded, consumers see neither the old
        nor the new state, unless it is one file that is put.
        """
        tree = self.shown
        before = self.record.published
        files = build.state.files
        deleted = len(build.gone & tree.files.keys())
        changes = deleted + len(not_held(files, files, tree.intact))
        if before is None:  # readiness says that nothing is published
            with suppress(OSError):
                self.record.doubt(fence, changes)
            return tree
        is_other = before.aim != build.state.revision
        # Deletions alone, too, also of the same listing, after a change of the settings:
        # after a crash, fewer files than recorded count as damaged.
        if deleted or (is_other and changes > 1):
            self._before = before, dict(tree.files)
            # A full volume must not prevent it, because deletions may make room.
            with suppress(OSError):
                self.record.write(
                    fence,
                    Published(
                        # Of a mix with files of other settings, none until it is over.
                        aim=before.aim and build.state.revision,
                        name=UNFINISHED,
                        missing=changes,
                        published_at=before.published_at,
                        files=len(tree.files) - deleted,
                    ),
                )
        return tree

    def reuse(self, files: Files, tree: Tree, fence: Fence) -> list[str]:
        """
        Return the paths that it lacks: the others are there.
        """
        return not_held(files, files, tree.intact)

    def make_room(self, fence: Fence, build: Build | None = None) -> bool:
        """
        Delete first, once: what could not be deleted makes no room.
        """
        # Outside a build, it is unknown what will be deleted.
        if build is None or not build.gone:
            return False
        self._delete(build, fence)
        build.gone.clear()
        return True

    def undo(self, fence: Fence) -> None:
        if self._before is None:
            return
        published, files = self._before
        self._before = None
        if self.shown.files == files:  # no file was replaced
            # What ends the build is told or recorded, not this error.
            with suppress(OSError):
                self.record.write(fence, published)

    def stand_in(self, build: Build, fence: Fence) -> None:
        """
        Remove files that cannot be restored now, and those of another source, which
        must not stand in for files that could not be read.
        """
        tree = self.shown
        # In place there is nothing former to show instead: what is damaged goes, because
        # consumers would run it.
        wrong = set(tree.files if self.record.owner == "other" else tree.damaged)
        for path in wrong.intersection(build.missing):
            # Nothing is ever deleted then: it stays, and is no longer ours.
            if self._settings.delete == "none":
                tree.forget(path, fence)
            else:
                tree.delete(path, fence)

    def publish(self, build: Build, record: Callable[[], object], fence: Fence) -> None:
        """
        Delete, now that everything else is in place: whoever imports a file that moved
        finds it at one of both paths. Then record: a crash before that leaves a state
        that is said to be in progress, or one file that the record does not know yet.
        """
        self._delete(build, fence)
        # Not only once the change is over: what cannot be deleted adds lines each time.
        self.shown.compact(fence)
        # What could not be deleted: then the change is not over, and the record says so.
        build.fill.raise_first(build.missing)
        # No file came: then no change has been in progress.
        self.undo(fence)
        record()

    def _delete(self, build: Build, fence: Fence) -> None:
        """
        Delete files, but none that somebody has put where ours was.
        """
        tree = self.shown
        for path in build.gone & tree.files.keys():
            if tree.is_replaced(path):
                log.warning("leftover_kept", name=path, error="it is another file now")
                tree.forget(path, fence)
                continue
            try:
                tree.delete(path, fence)
            except OSError as error:
                build.fill.fail_on_disk(path, error)

    def tidy(self, fence: Fence) -> None:
        """
        Remove what the snapshot layout left, but for snapshots in use, now that the
        files in place are published; and compact the list, also of repairs.
        """
        self.shown.compact(fence)
        volume = self._volume
        place = f"{RESERVED}/{SNAPSHOTS}"
        # The link first: nobody should follow it to a snapshot that is being removed.
        if is_link(LINK, volume.root):
            with fence:
                if os.path.dirname(os.readlink(LINK, dir_fd=volume.root)) == place:
                    os.unlink(LINK, dir_fd=volume.root)
        in_use: list[str] = []
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            opened(SNAPSHOTS, volume.state) as store,
        ):
            left = Snapshots(volume.root, store, place, link=LINK)
            in_use = [name for name in left.revisions() if not left.remove(name, fence)]
        # The store of those in use stays with them, until a later cycle.
        if not in_use:
            with fence:
                remove_tree(SNAPSHOTS, volume.state)

    def close(self) -> None:
        self.shown.close()


def open_in_place(volume: Volume, published: int = 0) -> Tree:
    """
    Open the target itself as a tree of files, so many of which are published.
    """
    return Tree(volume.path, os.dup(volume.root), volume.staging).read(
        MANAGED, volume.state, published=published
    )
