"""
The snapshot layout: ``DEST_PATH/current`` is a link to one complete state.

A new state is built in a folder beside the current one, from links to it and downloads.
It gets its name, is recorded, and is shown by swapping the link: after a crash in
between, the record decides. A folder that was begun is thrown away at the next start;
in the same process, the next cycle goes on with its verified files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from math import inf

from s3_sync.journal import NAME as MANAGED
from s3_sync.journal import Journal, Listed, read_journal
from s3_sync.layout.in_place import open_in_place
from s3_sync.names import RESERVED, Files, folders_of, is_held
from s3_sync.published import Record
from s3_sync.reasons import link_elsewhere
from s3_sync.settings import Settings
from s3_sync.tree import Build, Inspection, Tree
from s3_sync.volume import LINK, SNAPSHOTS, Volume
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import is_at, stat_in
from sidecar_runtime.volume.own import own_folder
from sidecar_runtime.volume.snapshots import (
    FOLDER_FLAGS,
    FOLDER_MODE,
    Snapshots,
    aside_name,
    link_tree,
    opened,
    remove_tree,
)

_LIST_SUFFIX = f".{MANAGED}"
# How many files of older snapshots one cycle inspects.
OLDER_FILES = 500

log = get_logger("snapshot")


class SnapshotLayout:
    """
    Shows one snapshot at a time; see `Layout` for what the members mean.

    Attributes:
        shown: The snapshot that consumers see; before the first publish, no files, and
            no name.
        snapshots: What is in the store, the open folder of all snapshots.
    """

    def __init__(self, settings: Settings, volume: Volume, record: Record) -> None:
        """
        Open what is recorded as published.
        """
        self._settings = settings
        self.volume = volume
        self.record = record
        self._build: Tree | None = None
        # Whether older snapshots were whole when they were inspected: reading all files
        # of one takes longer than the answer to a consumer may.
        self._whole: dict[str, bool] = {}
        # None: not even their names are known.
        self._uninspected: list[str] | None = None
        with ExitStack() as stack:
            store = stack.enter_context(own_folder(SNAPSHOTS, volume.state))
            self.snapshots = Snapshots(
                volume.root,
                store,
                f"{RESERVED}/{SNAPSHOTS}",
                link=LINK,
                retain_count=settings.retain_count,
                retain_seconds=settings.retain_seconds,
                asked_count=settings.keep_requested,
                fsync=volume.staging.fsync,
            )
            # What killed processes left takes room, and a mark that was left would make
            # a later snapshot a requested one.
            self.snapshots.sweep()
            if name := self._recorded():
                self.shown = self._open(name)
            else:
                self.shown = Tree("", os.dup(store), volume.staging)
            self._close_store = stack.pop_all().close

    @property
    def store(self) -> int:
        return self.snapshots.store

    @property
    def name(self) -> str:
        """
        The name of what is shown; empty if that is nothing.
        """
        return self.shown.name

    @property
    def problem(self) -> SidecarError | None:
        """
        Why consumers do not see what is shown; None if they do.
        """
        if not self.name or self.snapshots.current() == self.name:
            return None
        return link_elsewhere()

    def is_current(self) -> bool:
        """
        Whether the open folders are still at their paths. They are no more where a
        cycle was abandoned after it named its snapshot: as after a crash, the record
        decides.
        """
        if not is_at(SNAPSHOTS, self.volume.state, self.store):
            return False
        is_there = not self.name or is_at(self.name, self.store, self.shown.fd)
        return is_there and self.name == self._recorded()

    def _recorded(self) -> str:
        """
        Return the name of what consumers should see: without its record or snapshot,
        the link decides.
        """
        published = self.record.published
        if published and self.snapshots.has(published.name):
            return published.name
        return self.snapshots.current()

    def has(self, name: str) -> bool:
        return self.name == name and not self.shown.is_lost

    def make_way(self) -> None:
        is_first = not self.name and not self.snapshots.revisions()
        self.snapshots.make_way(is_first=is_first)

    def inspect(self, inspection: Inspection) -> bool:
        is_new = self.shown.inspect(inspection)
        # Begin to inspect what is retained, too; who asks for a snapshot meanwhile waits
        # for its inspection.
        if is_new:
            self._whole = {}
            self._uninspected = None
        return is_new

    def correct(self, fence: Fence) -> None:
        """
        Set the link again, which somebody changed, or a kill left at the former state.
        """
        if self.problem:
            self.snapshots.swap_link(self.name, fence)

    # --- older snapshots

    def inspect_older(self, fence: Fence) -> None:
        """
        Inspect a part of what is retained, after what is shown: at a start, and after
        damage, which hits all hard links to a file.

        Snapshots that were altered are removed, at once or as soon as no process uses
        them: consumers request them again, or fail instead of running other code.
        """
        left = OLDER_FILES
        if self._uninspected is None:
            self._uninspected = self.snapshots.revisions()
        while self._uninspected and left > 0:
            left -= self._inspect(self._uninspected.pop(0))
        # a copy: the listener's thread inspects, too
        for name, is_whole in list(self._whole.items()):
            if not is_whole:
                self.snapshots.remove(name, fence)

    def is_whole(self, name: str) -> bool:
        """
        Whether a snapshot exists, and all of its files are as they were published;
        called from any thread.
        """
        if not self.snapshots.has(name):
            return False
        if name == self.name:
            return not self.shown.damaged
        if name not in self._whole:
            self._inspect(name)
        return self._whole.get(name, False)

    def _inspect(self, name: str) -> int:
        """
        Inspect an older snapshot; return how many files it has, at least 1.
        """
        count = 1
        if name == self.name or not self.snapshots.has(name):
            return count
        is_whole = False
        with suppress(OSError), opened(name, self.store) as fd:
            tree = Tree("", fd, self.volume.staging)
            listed = read_journal(list_name(name), self.store, fd, published=inf)
            tree.files = listed.files
            count += len(tree.files)
            is_whole = not (listed.is_lost or tree.altered(tree.files))
        if not is_whole:
            log.warning("snapshot_damaged", revision=name)
        self._whole[name] = is_whole
        return count

    # --- building

    def begin(self, build: Build, fence: Fence) -> Tree:
        """
        Return a folder that nobody reads, with what earlier cycles of this process
        brought into it.
        """
        begun = self._build
        if begun:
            begun.purge(fence)  # the gate's command may have written here
            is_there = is_at(begun.name, self.store, begun.fd)
            # One altered file: others may be, too, in ways that no stat shows.
            if not is_there or begun.altered(begun.files):
                self.drop()
        tree = self._build or self._new_folder("build")
        tree.before = self.shown.files
        self._build = tree
        return tree

    def reuse(self, files: Files, tree: Tree, fence: Fence) -> list[str]:
        """
        Link what is shown already, and remove files of an earlier state; return the
        paths that it still lacks.
        """
        # Removed before anything is linked: a folder may take the place of a file.
        for path, held in list(tree.files.items()):
            if path not in files or not is_held(held, files[path]):
                tree.delete(path, fence)
        shown = self.shown.intact
        self._link(
            [path for path, file in files.items() if is_held(shown.get(path), file)],
            tree,
            fence,
        )
        return [path for path in files if path not in tree.files]

    def undo(self, fence: Fence) -> None:
        """
        Do nothing: the next cycle goes on with what was brought.
        """

    def stand_in(self, build: Build, fence: Fence) -> None:
        """
        Link the former files, but not those of another source.
        """
        stale = () if self.record.owner == "other" else build.missing
        self._link({*stale, *build.state.kept}, build.fill.tree, fence)

    def _link(self, paths: Collection[str], tree: Tree, fence: Fence) -> None:
        """
        Give a tree those files of what is shown that are as they were published.
        """
        shown = self.shown
        taken = tree.files.keys()
        above = {*taken, *folders_of(taken)}
        intact = shown.intact
        mine = [
            path
            for path in paths
            if path in intact
            and path not in above
            and (not taken or taken.isdisjoint(folders_of([path])))
        ]
        wrong: list[str] = []
        for path, there in link_tree(
            shown.fd, tree.fd, mine, fsync=self.volume.staging.fsync
        ):
            held = shown.files[path]
            if not held.is_like(there):  # it is damaged, or was replaced meanwhile
                wrong.append(path)
                continue
            # an abandoned cycle ends here, even if it copies files
            if fence.is_revoked:
                raise CycleAbandoned
            if there.st_ino != held.inode:  # it is a copy
                held = held._replace(inode=there.st_ino)
            tree.files[path] = held
        for path in wrong:  # now that no folder is open that this may remove
            tree.delete(path, fence)

    def publish(self, build: Build, record: Callable[[], object], fence: Fence) -> None:
        """
        Give a complete tree its name, record it, and only then swap the link: what is
        linked is always recorded, so a standby, and the next start after a crash, know
        what they look at. If the record fails, the link follows all the same: this
        process knows it, and writes the record again. A cycle that is abandoned before
        the record has published nothing; see :meth:`is_current`.
        """
        # A link that cannot be made fails here: the tree has no name yet, and the next
        # try goes on with it.
        with fence:
            self.make_way()
        tree = build.fill.tree
        # If a snapshot of that name was retained, the tree is what is left over.
        there = self._keep_as(build.name, tree, fence)
        if there is tree:
            self._build = None
        self.drop()
        if self.shown is not there:
            self.shown.close()
        self.shown = there
        # It was inspected before it got what differed.
        self._whole.pop(build.name, None)
        try:
            record()
        finally:
            self.correct(fence)

    def drop(self) -> None:
        """
        Remove a tree that was begun and will not be shown.
        """
        build = self._build
        self._build = None
        if build:
            build.close()
            remove_tree(build.name, self.store)

    # --- requested revisions

    @contextmanager
    def aside(self, name: str) -> Iterator[Tree]:
        """
        Yield a new folder for a requested revision, which :meth:`keep` turns into a
        snapshot.
        """
        folder = self._new_folder(name)
        aside = folder.name
        try:
            yield folder
        finally:
            folder.close()
            remove_tree(aside, self.store)

    def keep(self, name: str, folder: Tree, fence: Fence) -> None:
        """
        Turn a folder that was filled aside into a requested snapshot; the link does not
        change.
        """
        there = self._keep_as(name, folder, fence, is_asked=True)
        self._whole.pop(name, None)
        if there not in (folder, self.shown):
            there.close()

    # --- what is kept

    def make_room(self, fence: Fence, build: Build | None = None) -> bool:
        """
        Remove the oldest state that is kept for readers; False if there is none.
        """
        # Before one is dropped: afterwards it is unknown whether that one was requested.
        requested = self.snapshots.asked()
        dropped = self.snapshots.drop_oldest(fence)
        if dropped in requested:
            log.warning("requested_revisions_removed", kept=len(requested) - 1)
        return bool(dropped)

    def tidy(self, fence: Fence) -> None:
        self.shown.compact(fence)
        self.prune(fence)
        if self._settings.delete != "none":
            _remove_in_place(self.volume, fence)

    def prune(self, fence: Fence) -> None:
        """
        Remove snapshots that need not be kept, and lists without a snapshot.
        """
        kept = self.snapshots.prune(self.name, fence)
        with fence:
            for name in os.listdir(self.store):
                snapshot = name.removesuffix(_LIST_SUFFIX)
                if snapshot != name and snapshot not in kept:
                    os.unlink(name, dir_fd=self.store)

    def close(self) -> None:
        self.drop()
        self.shown.close()
        self._close_store()

    # --- inside

    def _path(self, name: str) -> str:
        return f"{self.volume.path}/{RESERVED}/{SNAPSHOTS}/{name}"

    def _new_folder(self, name: str) -> Tree:
        aside = aside_name(name)
        try:
            os.mkdir(aside, FOLDER_MODE, dir_fd=self.store)
            fd = os.open(aside, FOLDER_FLAGS, dir_fd=self.store)
        except OSError:
            # Made, but not opened: nobody else would remove it before the next start.
            with suppress(OSError):
                os.rmdir(aside, dir_fd=self.store)
            raise
        return Tree(self._path(aside), fd, self.volume.staging)

    def _open(self, name: str) -> Tree:
        fd = os.open(name, FOLDER_FLAGS, dir_fd=self.store)
        return Tree(self._path(name), fd, self.volume.staging).read(
            list_name(name), self.store, published=inf
        )

    def _keep_as(
        self, name: str, folder: Tree, fence: Fence, *, is_asked: bool = False
    ) -> Tree:
        """
        Give a complete folder its name; return the snapshot of that name. One that
        exists has the same files, and readers: what differs, because it is damaged or
        must get a later time, is renamed into it.
        """
        if self.snapshots.has(name):
            there = self.shown if name == self.name else self._open(name)
            try:
                _bring_up_to_date(there, folder, fence)
            except BaseException:
                if there is not self.shown:
                    there.close()
                raise
            return there
        with fence:
            remove_tree(name, self.store)  # whatever is not a folder is not a snapshot
            if folder.journal:  # of a try that was abandoned
                folder.journal.close()
                folder.journal = None
            # The list before the name: each snapshot has one, after a crash, too.
            folder.journal = Journal(
                list_name(name),
                self.store,
                Listed(folder.files, is_lost=True),
                fsync=self.volume.staging.fsync,
            )
        aside = folder.name
        # What was asked for is marked in the same step, or the next pruning removes it.
        if is_asked:
            self.snapshots.keep_asked(aside, name, fence)
        else:
            with fence:
                os.rename(aside, name, src_dir_fd=self.store, dst_dir_fd=self.store)
        folder.path = self._path(name)
        return folder


def _bring_up_to_date(tree: Tree, build: Tree, fence: Fence) -> None:
    """
    Let a snapshot that readers may see have the files of a build. What others wrote
    into it, such as bytecode, stays.
    """
    differs = tree.altered(tree.files)
    differs |= {
        path for path, held in build.files.items() if tree.files.get(path) != held
    }
    for path in differs & build.files.keys():
        tree.take(path, build, fence)


def _remove_in_place(volume: Volume, fence: Fence) -> None:
    """
    Remove the files that were published in place, now that a snapshot is; those that
    were altered belong to others.
    """
    if stat_in(MANAGED, volume.state) is None:
        return
    with closing(open_in_place(volume)) as tree:
        for path in tree.files.keys() - tree.altered(tree.files):
            tree.delete(path, fence)
    # The list goes last: after a crash or an error, the next cycle removes the rest.
    with fence:
        os.unlink(MANAGED, dir_fd=volume.state)


def list_name(name: str) -> str:
    """
    Return the name of the list of a snapshot.
    """
    return f"{name}{_LIST_SUFFIX}"
