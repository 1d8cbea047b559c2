"""
The snapshot layout: ``DEST_PATH/current`` is a link to one complete state.

A new state is built in a folder beside the current one, from links to it and downloads.
It gets its name, is recorded, and is shown by swapping the link: after a crash in
between, the record decides. A folder that was begun is thrown away at the next start;
in the same process, the next cycle goes on with its verified files.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

from s3_sync.folder.folder import Folder
from s3_sync.folder.journal import NAME as MANAGED
from s3_sync.folder.journal import Journal, Listed, read_journal
from s3_sync.folder.volume import LINK, SNAPSHOTS, Volume, open_own_folder
from s3_sync.names import RESERVED, Content, folders_of
from s3_sync.plan import is_held
from s3_sync.reasons import link_elsewhere
from s3_sync.settings import Settings
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import is_at
from sidecar_runtime.volume.snapshots import (
    FOLDER_FLAGS,
    Snapshots,
    aside_name,
    link_tree,
    opened,
    remove_tree,
)

_LIST_SUFFIX = f".{MANAGED}"

log = get_logger("snapshot")


class SnapshotLayout:
    """
    Shows one snapshot at a time.

    Attributes:
        shown: The snapshot that consumers see; None before the first publish.
        store: The open folder of all snapshots.
        snapshots: What is in the store.
    """

    def __init__(self, settings: Settings, volume: Volume, published: str) -> None:
        """
        Args:
            published: The name that is recorded as published; without it, the link
                decides.
        """
        self._volume = volume
        self.shown: Folder | None = None
        self._build: Folder | None = None
        # Whether older snapshots were whole when they were inspected: reading all files
        # of one takes longer than the answer to a consumer may.
        self._whole: dict[str, bool] = {}
        self.store = open_own_folder(SNAPSHOTS, volume.state)
        self.snapshots = Snapshots(
            volume.root,
            self.store,
            f"{RESERVED}/{SNAPSHOTS}",
            link=LINK,
            retain_count=settings.retain_count,
            retain_seconds=settings.retain_seconds,
            asked_count=settings.keep_requested,
            fsync=volume.staging.fsync,
        )
        with ExitStack() as stack:
            stack.callback(os.close, self.store)
            self.snapshots.sweep()
            name = (
                published if self.snapshots.has(published) else self.snapshots.current()
            )
            if name:
                self.shown = self._open(name)
            stack.pop_all()

    @property
    def name(self) -> str:
        """
        The name of what is shown; empty if that is nothing.
        """
        return os.path.basename(self.shown.path) if self.shown is not None else ""

    @property
    def problem(self) -> SidecarError | None:
        """
        Why consumers do not see what is shown; None if they do.
        """
        is_there = self.shown is None or self.snapshots.current() == self.name
        return None if is_there else link_elsewhere()

    def is_current(self) -> bool:
        """
        Whether the open folders are still at their paths.
        """
        is_there = is_at(SNAPSHOTS, self._volume.state, self.store)
        return is_there and (
            self.shown is None or is_at(self.name, self.store, self.shown.fd)
        )

    def drop_damaged(self, fence: Fence) -> None:
        """
        Remove older snapshots that were altered, at once or as soon as no process uses
        them: consumers request them again, or fail instead of running other code.
        """
        damaged = [
            n
            for n in self.snapshots.revisions()
            if n != self.name and not self._inspect(n)
        ]
        self._whole = dict.fromkeys(damaged, False)
        for name in damaged:
            is_removed = self.snapshots.remove(name, fence)
            log.warning("snapshot_damaged", revision=name, is_removed=is_removed)

    # --- building

    def begin(self) -> Folder:
        """
        Return a folder that nobody reads, with what earlier cycles of this process
        brought into it.
        """
        if self._build is not None:
            self._build.purge(Fence())
            if self._build.damaged(self._build.files):
                self.drop()
        if self._build is None:
            self._build = self._new_folder("build")
        if self.shown is not None:
            self._build.before = self.shown.files
        return self._build

    def link(self, paths: Collection[str], folder: Folder, fence: Fence) -> None:
        """
        Give a folder those files of what is shown that are as they were published.
        """
        shown, taken = self.shown, folder.files.keys()
        if shown is None or not paths:
            return
        above = {*taken, *folders_of(taken)}
        mine = [path for path in paths if path in shown.files and path not in above]
        if taken:
            mine = [path for path in mine if taken.isdisjoint(folders_of([path]))]
        hurt: list[str] = []
        for path, there in link_tree(
            shown.fd, folder.fd, mine, fsync=self._volume.staging.fsync
        ):
            held = shown.files[path].of(there)
            if held is None:  # it is damaged, or was replaced meanwhile
                hurt.append(path)
                continue
            # an abandoned cycle ends here, even if it copies files
            if fence.is_revoked:
                raise CycleAbandoned
            folder.files[path] = held
        for path in hurt:  # now that no folder is open that this may remove
            folder.delete(path, fence)

    def reuse(
        self, files: Mapping[str, Content], folder: Folder, fence: Fence
    ) -> list[str]:
        """
        Give a new folder the files that are shown already, and remove those of an
        earlier state; return the paths of the others.
        """
        for path, held in list(folder.files.items()):
            if path not in files or not is_held(held, files[path]):
                folder.delete(path, fence)
        shown = self.shown.files if self.shown is not None else {}
        same = [path for path, file in files.items() if is_held(shown.get(path), file)]
        self.link(same, folder, fence)
        return [path for path in files if path not in folder.files]

    def publish(self, name: str, folder: Folder, fence: Fence) -> None:
        """
        Give a complete folder its name; :meth:`show` shows it to consumers, once that
        is recorded.

        Raises:
            SidecarError: ``link_blocked``.
            CycleAbandoned: The fence was revoked; consumers see what they saw before.
        """
        is_first = not self.snapshots.revisions() and self.shown is None
        # before the folder gets its name: it is what the next try goes on with
        with fence:
            self.snapshots.make_way(is_first=is_first)
        there = self._keep_as(name, folder, fence)
        if there is folder:
            self._build = None
        self.drop()
        if self.shown is not None and self.shown is not there:
            self.shown.close()
        self.shown = there

    def show(self, fence: Fence) -> None:
        """
        Let consumers see what is published.

        Raises:
            SidecarError: ``link_blocked``.
            CycleAbandoned: The fence was revoked; consumers see what they saw before.
        """
        if self.problem:
            self.snapshots.show(self.name, fence)

    def drop(self) -> None:
        """
        Remove a folder that was begun and will not be shown.
        """
        build, self._build = self._build, None
        if build is not None:
            build.close()
            remove_tree(os.path.basename(build.path), self.store)

    # --- requested revisions

    @contextmanager
    def aside(self, name: str) -> Iterator[Folder]:
        """
        Yield a new folder for a requested revision, which :meth:`keep` turns into a
        snapshot.
        """
        folder = self._new_folder(name)
        aside = os.path.basename(folder.path)
        try:
            yield folder
        finally:
            folder.close()
            remove_tree(aside, self.store)

    def keep(self, name: str, folder: Folder, fence: Fence) -> None:
        """
        Turn a folder that was filled aside into a requested snapshot; the link does not
        change.
        """
        there = self._keep_as(name, folder, fence, is_asked=True)
        self._whole.pop(name, None)
        if there not in (folder, self.shown):
            there.close()

    # --- what is kept

    def is_whole(self, name: str) -> bool:
        """
        Whether a snapshot exists, and all of its files are as they were published;
        called from any thread.
        """
        if name == self.name or not self.snapshots.has(name):
            return self.snapshots.has(name)
        is_whole = self._whole.get(name)
        if is_whole is None:
            is_whole = self._whole[name] = self._inspect(name)
        return is_whole

    def _inspect(self, name: str) -> bool:
        try:
            with opened(name, self.store) as fd:
                listed = read_journal(list_name(name), self.store, fd, is_shared=False)
                folder = Folder("", fd, self._volume.staging)
                folder.files = listed.files
                return not (listed.is_lost or folder.damaged(folder.files))
        except OSError:
            return False

    def make_room(self, fence: Fence) -> bool:
        """
        Remove the oldest state that is kept for readers; False if there is none.
        """
        requested = self.snapshots.asked()
        dropped = self.snapshots.drop_oldest(fence)
        if dropped in requested:
            log.warning("requested_revisions_removed", kept=len(requested) - 1)
        return bool(dropped)

    def prune(self, fence: Fence) -> None:
        """
        Remove snapshots that need not be kept, and lists without a snapshot.
        """
        kept = self.snapshots.prune(self.name, fence)
        with fence:
            for name in os.listdir(self.store):
                if (
                    name.endswith(_LIST_SUFFIX)
                    and name.removesuffix(_LIST_SUFFIX) not in kept
                ):
                    os.unlink(name, dir_fd=self.store)
        for name, is_whole in list(self._whole.items()):
            if not (is_whole or self._inspect(name)):
                self.snapshots.remove(name, fence)

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

    def _new_folder(self, name: str) -> Folder:
        aside = aside_name(name)
        try:
            fd = open_own_folder(aside, self.store)
        except OSError:
            # Made, but not opened: nobody else would remove it before the next start.
            with suppress(OSError):
                os.rmdir(aside, dir_fd=self.store)
            raise
        return Folder(self._path(aside), fd, self._volume.staging)

    def _open(self, name: str) -> Folder:
        fd = os.open(name, FOLDER_FLAGS, dir_fd=self.store)
        folder = Folder(self._path(name), fd, self._volume.staging)
        return folder.read(list_name(name), self.store, is_shared=False)

    def _keep_as(
        self, name: str, folder: Folder, fence: Fence, *, is_asked: bool = False
    ) -> Folder:
        """
        Give a complete folder its name; return the snapshot of that name. One that
        exists has the same files, and readers: what differs, because it is damaged or
        must get a later time, is renamed into it.
        """
        if self.snapshots.has(name):
            there = self.shown if self.shown and name == self.name else self._open(name)
            try:
                _bring_up_to_date(there, folder, fence)
            except BaseException:
                if there is not self.shown:
                    there.close()
                raise
            return there
        with fence:
            remove_tree(name, self.store)  # whatever is not a folder is not a snapshot
            if folder.journal is not None:  # of a try that was abandoned
                folder.journal.close()
                folder.journal = None
            listed = Listed(folder.files, is_lost=True)
            fsync = self._volume.staging.fsync
            folder.journal = Journal(list_name(name), self.store, listed, fsync=fsync)
        aside = os.path.basename(folder.path)
        if is_asked:
            self.snapshots.keep_asked(aside, name, fence)
        else:
            with fence:
                os.rename(aside, name, src_dir_fd=self.store, dst_dir_fd=self.store)
        folder.path = self._path(name)
        return folder


def _bring_up_to_date(folder: Folder, build: Folder, fence: Fence) -> None:
    folder.purge(fence, build.files)  # a list that was lost names none of them
    differs = folder.damaged(folder.files)
    differs |= {
        path for path, held in build.files.items() if folder.files.get(path) != held
    }
    for path in folder.files.keys() - build.files.keys():
        folder.delete(path, fence)
    for path in differs & build.files.keys():
        folder.take(path, build, fence)


def list_name(name: str) -> str:
    """
    Return the name of the list of a snapshot.
    """
    return f"{name}{_LIST_SUFFIX}"
