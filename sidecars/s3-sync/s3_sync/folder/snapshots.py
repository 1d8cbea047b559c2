"""
The snapshot layout: ``DEST_PATH/current`` is a link to one complete state.

A new state is built in a folder beside the current one, from links to it and downloads, and shown
by swapping the link. A folder that was begun is thrown away at the next start; in the same process,
the next cycle goes on with its verified files.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager

from s3_sync.folder.folder import Folder
from s3_sync.folder.journal import NAME as MANAGED
from s3_sync.folder.journal import read_journal
from s3_sync.folder.paths import BYTECODE, Blocked, open_own_folder, opened
from s3_sync.folder.volume import LINK, SNAPSHOTS, Volume, list_name
from s3_sync.keys import RESERVED
from s3_sync.settings import Settings
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import TargetError, is_at
from sidecar_runtime.volume.snapshots import (
    FOLDER_FLAGS,
    FOLDER_MODE,
    Snapshots,
    aside_name,
    link_tree,
    remove_tree,
)

_LIST_SUFFIX = f".{MANAGED}"

log = get_logger("snapshot")


class SnapshotLayout:
    """
    Shows one snapshot at a time.

    Attributes:
        shown: The snapshot that consumers see; None before the first publish.
        is_lost: Whether the list of what is shown was missing or damaged, so that only the source
            can tell what should be there.
        store: The open folder of all snapshots.
        snapshots: What is in the store.
    """

    def __init__(self, settings: Settings, volume: Volume, published: str) -> None:
        """
        Args:
            published: The name that is recorded as published; used if the link is gone.
        """
        self._volume = volume
        self._delete = settings.delete
        self.shown: Folder | None = None
        self.is_lost = False
        self._build: Folder | None = None
        # Damaged snapshots that a process still uses.
        self._damaged: set[str] = set()
        self.store = open_own_folder(SNAPSHOTS, volume.state)
        self.snapshots = Snapshots(
            volume.root,
            self.store,
            f"{RESERVED}/{SNAPSHOTS}",
            link=LINK,
            retain_count=settings.retain_count,
            retain_seconds=settings.retain_seconds,
            asked_count=settings.keep_requested,
            fsync=volume.fsync,
        )
        with ExitStack() as stack:
            stack.callback(os.close, self.store)
            self.snapshots.sweep()
            name = self.snapshots.current()
            if not name and self.snapshots.has(published):
                name = published  # the link was removed
            if name:
                self.shown, self.is_lost = self._open(name)
            stack.pop_all()

    @property
    def name(self) -> str:
        """
        The name of what is shown; empty if that is nothing.
        """
        return os.path.basename(self.shown.path) if self.shown is not None else ""

    @property
    def problem(self) -> str:
        """
        Why consumers do not see what is shown; empty if they do.
        """
        if self.shown is None:
            return ""
        is_there = self.snapshots.current() == self.name
        return "" if is_there else f"{LINK} does not point to the published revision"

    def tidy(self, fence: Fence, *, is_damaged: bool) -> None:
        """
        Undo what other processes did, as far as that needs no source.

        Args:
            is_damaged: Whether files of what is shown turned out to be damaged.
        """
        shown = self.shown
        if shown is None:
            return
        if self._delete == "all":  # only s3-sync writes to a snapshot
            shown.clear(shown.foreign(), fence)
        for name in self._damaged:
            self.snapshots.remove(name, fence)
        self._damaged = {name for name in self._damaged if self.snapshots.has(name)}
        if is_damaged:
            self.drop_damaged(fence)
        if self.problem:
            self.snapshots.show(self.name, fence)

    def is_current(self) -> bool:
        """
        Whether the open folders are still at their paths.
        """
        if not is_at(SNAPSHOTS, self._volume.state, self.store):
            return False
        return self.shown is None or is_at(self.name, self.store, self.shown.fd)

    def begin(self) -> Folder:
        """
        Return a folder that nobody reads, with what earlier cycles of this process brought into it.
        """
        build = self._build
        if build is not None:
            _purge(build)
            if build.damaged(build.files):
                self.drop()
        if self._build is None:
            self._build = self.new_folder("build")
        if self.shown is not None:
            self._build.follow(self.shown)
        return self._build

    def new_folder(self, name: str) -> Folder:
        """
        Create a folder that nobody reads yet.
        """
        aside = aside_name(name)
        os.mkdir(aside, FOLDER_MODE, dir_fd=self.store)
        fd = os.open(aside, FOLDER_FLAGS, dir_fd=self.store)
        return Folder(self._path(aside), fd, {}, None, self._volume.staging)

    @contextmanager
    def aside(self, name: str) -> Iterator[Folder]:
        """
        Yield a new folder for a requested revision, which :meth:`keep` turns into a snapshot.
        """
        folder = self.new_folder(name)
        aside = os.path.basename(folder.path)
        try:
            yield folder
        finally:
            folder.close()
            remove_tree(aside, self.store)

    def keep(self, name: str, folder: Folder, fence: Fence) -> None:
        """
        Turn a folder that was filled aside into a requested snapshot; the link does not change.

        Raises:
            TargetError: A file of the folder is damaged.
        """
        for path in folder.damaged(folder.files):
            raise changed_by_others(path)
        aside = os.path.basename(folder.path)
        with fence:
            if self.snapshots.has(name):  # a damaged one
                remove_tree(name, self.store)
                self._damaged.discard(name)
            folder.journal = self._volume.list(name, self.store, folder.files, is_lost=True)
        self.snapshots.keep_asked(aside, name, fence)

    def link(self, paths: Collection[str], folder: Folder, fence: Fence) -> None:
        """
        Give a folder those files of what is shown that are as they were published.
        """
        shown = self.shown
        if shown is None:
            return
        lost = shown.damaged(paths)
        mine = [path for path in paths if path in shown.files and path not in lost]
        for path, there in link_tree(shown.fd, folder.fd, mine, fsync=self._volume.fsync):
            if (held := shown.files[path].of(there)) is None:
                raise changed_by_others(path)
            with fence:  # an abandoned cycle ends here, even if it copies files
                folder.files[path] = held

    def publish(self, name: str, folder: Folder, fence: Fence) -> None:
        """
        Show a complete folder under a name.

        Raises:
            SidecarError: ``link_blocked``; or a file of it was changed by others.
            CycleAbandoned: The fence was revoked; consumers see what they saw before.
        """
        _purge(folder)
        for path in folder.damaged(folder.files):  # the gate's command may have changed files
            raise changed_by_others(path)
        is_first = not self.snapshots.revisions() and self.shown is None
        folder = self._keep(name, folder, fence)
        try:
            self.snapshots.show(name, fence, is_first=is_first)
        except BaseException:
            if folder is not self.shown:
                folder.close()
            raise
        if self.shown is not None and self.shown is not folder:
            self.shown.close()
        self.shown = folder
        self.is_lost = False

    def drop(self) -> None:
        """
        Remove a folder that was begun and will not be shown.
        """
        build, self._build = self._build, None
        if build is not None:
            build.close()
            remove_tree(os.path.basename(build.path), self.store)

    def make_room(self, fence: Fence) -> bool:
        """
        Remove the oldest state that is kept for readers; False if there is none.
        """
        if requested := len(self.snapshots.asked()):
            self.snapshots.drop_asked(fence)
            kept = len(self.snapshots.asked())
            log.warning("requested_revisions_removed", kept=kept)
            if kept < requested:
                return True
        return bool(self.snapshots.drop_oldest(fence))

    def drop_damaged(self, fence: Fence) -> None:
        """
        Remove older snapshots that were altered, unless a process uses them: consumers request them
        again, or fail instead of running other code.
        """
        for name in self.snapshots.revisions():
            if name != self.name and name not in self._damaged and not self.is_whole(name):
                self.snapshots.remove(name, fence)
                is_kept = self.snapshots.has(name)
                self._damaged |= {name} if is_kept else set()
                log.warning("snapshot_damaged", revision=name, is_removed=not is_kept)

    def has(self, name: str) -> bool:
        """
        Whether a snapshot exists, and is not known to be damaged.
        """
        return name not in self._damaged and self.snapshots.has(name)

    def is_whole(self, name: str) -> bool:
        """
        Whether a snapshot exists, and all of its files are as they were published.
        """
        if self.shown is not None and name == self.name:
            return self.snapshots.has(name)
        try:
            with opened(name, self.store) as fd:
                files, is_lost = read_journal(list_name(name), self.store, fd, is_shared=False)
                folder = Folder("", fd, files, None, self._volume.staging)
                return not (is_lost or folder.damaged(files))
        except OSError:
            return False

    def prune(self, fence: Fence) -> None:
        """
        Remove snapshots that need not be kept, and lists without a snapshot.
        """
        try:
            kept = self.snapshots.prune(self.name, fence)
            with fence:
                for name in os.listdir(self.store):
                    if name.endswith(_LIST_SUFFIX) and name.removesuffix(_LIST_SUFFIX) not in kept:
                        os.unlink(name, dir_fd=self.store)
        except OSError as error:
            log.warning("leftover_kept", name=error.filename, error=error.strerror)

    def close(self) -> None:
        """
        Close all open folders and files.
        """
        self.drop()
        if self.shown is not None:
            self.shown.close()
        os.close(self.store)

    # --- inside

    def _path(self, name: str) -> str:
        return f"{self._volume.path}/{RESERVED}/{SNAPSHOTS}/{name}"

    def _open(self, name: str) -> tuple[Folder, bool]:
        return self._volume.open_listed(name, self.store, self._path(name))

    def _keep(self, name: str, build: Folder, fence: Fence) -> Folder:
        """
        Give a build its name and its list, and return its folder; the link does not show it yet.

        A snapshot of that name has the same files, and readers: what differs, because it is damaged
        or must get a later time, is renamed into it.
        """
        is_shown = name == self.name
        if not (is_shown or self.is_whole(name)):
            with fence:
                remove_tree(name, self.store)
                self._damaged.discard(name)
                build.journal = self._volume.list(name, self.store, build.files, is_lost=True)
                aside = os.path.basename(build.path)
                os.rename(aside, name, src_dir_fd=self.store, dst_dir_fd=self.store)
            build.path, self._build = self._path(name), None
            return build
        folder = self.shown if is_shown and self.shown is not None else self._open(name)[0]
        if not is_shown:
            _purge(folder)
        differs = folder.damaged(folder.files)
        differs |= {path for path, held in build.files.items() if folder.files.get(path) != held}
        for path in folder.files.keys() - build.files.keys():
            folder.delete(path, fence)
        for path in differs & build.files.keys():
            try:
                folder.take(path, build, fence)
            except Blocked:
                raise changed_by_others(path) from None
        self.drop()
        return folder


def _purge(folder: Folder) -> None:
    """
    Remove everything from a folder that is not part of the state: a gate's command may leave files.
    """
    for path in folder.foreign():
        folder.delete(path, Fence())
    for here, folders, _, inner in os.fwalk(dir_fd=folder.fd):
        if BYTECODE in folders:
            at = os.path.normpath(os.path.join(here, BYTECODE))
            if not any(path.startswith(f"{at}/") for path in folder.files):
                folders.remove(BYTECODE)
                remove_tree(BYTECODE, inner)


def changed_by_others(path: str) -> TargetError:
    """
    Return the error for a file that changed while s3-sync worked on it.
    """
    return TargetError(
        "target_failed",
        f"another process changed {path!r} in .s3-sync before it was published",
        "The published files stay. Find the process that writes to .s3-sync; only s3-sync should.",
    )
