"""
The snapshot layout: ``DEST_PATH/current`` points to one complete revision.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress

from s3_sync.digest import Content
from s3_sync.layouts.leftovers import clear_in_place
from s3_sync.layouts.publish import bring, difference, repair, restore
from s3_sync.plan import Plan
from s3_sync.result import CycleResult
from s3_sync.settings import Settings
from s3_sync.tree.damage import damaged
from s3_sync.tree.journal import NAME as MANAGED
from s3_sync.tree.journal import Managed, load_managed
from s3_sync.tree.parts import list_name
from s3_sync.tree.target import Target, Torn
from s3_sync.tree.volume import (
    LINK,
    SNAPSHOTS,
    SNAPSHOTS_PATH,
    TREE,
    Volume,
    open_own_folder,
)
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.errors import explain_os_error
from sidecar_runtime.volume.files import is_at
from sidecar_runtime.volume.snapshots import Snapshots, aside_name, is_name
from sidecar_runtime.volume.trees import FOLDER_FLAGS, link_tree, remove_tree

WRITE_BITS = 0o222
# The allocation unit of most file systems: file sizes are rounded up to it.
BLOCK_BYTES = 4096
_LIST_SUFFIX = f".{MANAGED}"
# Errors of linking when files of the tree were removed or replaced.
_TORN = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR}

log = get_logger("snapshot")


class Snapshot:
    """
    Publishes complete revisions: ``DEST_PATH/current`` is swapped in one step.

    Attributes:
        store: The open folder of all snapshots.
    """

    is_atomic = True
    unrecorded = ""

    def __init__(self, settings: Settings, volume: Volume, published: str) -> None:
        self._volume = volume
        self._delete = settings.delete
        # Hard links share their content: an edit in one snapshot would change all of them.
        self._file_mode = settings.file_mode & ~WRITE_BITS
        # Older snapshots that may be damaged, and whether the log has named them.
        self._doubted: dict[str, bool] = {}
        self._open_folders = ExitStack()
        with ExitStack() as stack:
            self._begin(settings, volume, published, stack)
            self._open_folders = stack.pop_all()

    def _begin(self, settings: Settings, volume: Volume, published: str, stack: ExitStack) -> None:
        """
        Open the store, the tree, and the published snapshot.
        """
        self.store = open_own_folder(SNAPSHOTS, volume.state)
        stack.callback(os.close, self.store)
        self._snapshots = Snapshots(
            volume.root,
            self.store,
            SNAPSHOTS_PATH,
            link=LINK,
            retain_count=settings.retain_count,
            retain_seconds=settings.retain_seconds,
            asked_count=settings.keep_requested,
            asked_bytes=settings.keep_requested_bytes,
            fsync=volume.fsync,
        )
        self._snapshots.sweep()
        self._doubt()
        self.tree = Target(volume, file_mode=self._file_mode, part=TREE)
        stack.callback(self.tree.close)
        self.shown: Target | None = None
        self.revision = self._snapshots.current()
        if not self.revision and self._snapshots.has(published):
            self.revision = published  # the link was removed
        self._has_shown = bool(self.revision or self._snapshots.revisions())
        if self.revision:
            self.shown = self._open(self.revision)
            if not self.tree.managed.files:
                restore(self.shown.managed.files, self.shown, self.tree, Fence())
        elif is_name(published) and list_name(published) in os.listdir(self.store):
            self._recreate(published)

    @property
    def problem(self) -> str:
        is_there = self._snapshots.current() == self.revision
        return "" if is_there else f"{LINK} does not point to the published revision"

    def is_current(self) -> bool:
        state = self._volume.state
        return is_at(TREE, state, self.tree.folder) and is_at(SNAPSHOTS, state, self.store)

    def shows(self, revision: str) -> bool:
        return revision == self.revision and self.changes().is_empty

    def begin(self, revision: str, fence: Fence) -> None:
        pass

    def changes(self) -> Plan:
        return difference(self.tree, self.shown)

    def repair(self, damaged: Collection[str], fence: Fence) -> CycleResult:
        is_replaced = self._replace_lost(fence)
        if self.shown is None:
            return CycleResult()
        if damaged:  # older snapshots may share the damaged files
            self._doubt()
        result = repair(self.tree, self.shown, damaged, fence)
        if self._delete == "all":  # only s3-sync writes to a snapshot, so foreign files go
            for path in self.shown.foreign():
                try:
                    if self.shown.delete(path, fence):
                        result.delete(path)
                except OSError as error:
                    result.fail_to_delete(path, error, self.shown)
        result.healed += is_replaced
        if self.problem:
            self._snapshots.show(self.revision, fence)
            result.healed += 1
        return result

    def publish(self, revision: str, fence: Fence) -> CycleResult:
        plan = self.changes()
        is_back = self._snapshots.has(revision)
        shown = self._renew(revision, fence) if is_back else self._add(revision, fence)
        try:
            self._snapshots.show(revision, fence, is_first=not self._has_shown)
        except BaseException:
            shown.close()
            raise
        self._has_shown = True
        if self.shown is not None:
            self.shown.close()
        before = self.shown.managed.files if self.shown is not None else {}
        result = CycleResult()
        for path in plan.publish:
            result.succeed(path, is_published=True, is_healed=False, is_new=path not in before)
        for path in plan.delete:
            result.delete(path)
        self.shown, self.revision = shown, revision
        return result

    def prune(self, fence: Fence) -> None:
        try:
            kept = self._snapshots.prune(self.revision, fence)
            with fence:
                for name in os.listdir(self.store):
                    if name.endswith(_LIST_SUFFIX) and name.removesuffix(_LIST_SUFFIX) not in kept:
                        os.unlink(name, dir_fd=self.store)
        except OSError as error:
            log.warning("leftover_kept", name=error.filename, error=error.strerror)
        self._settle_doubts(fence)

    @property
    def asked_count(self) -> int:
        """
        The number of snapshots kept because consumers requested them.
        """
        return len(self._snapshots.asked())

    def has(self, revision: str) -> bool:
        """
        Whether a snapshot of a revision exists, published or not.
        """
        return self._snapshots.has(revision)

    def is_whole(self, revision: str) -> bool:
        """
        Whether a snapshot of a revision exists and is undamaged.

        The published one is not inspected here: cycles inspect and repair it.
        """
        if revision == self.revision:
            return self.has(revision)
        try:
            folder = os.open(revision, FOLDER_FLAGS, dir_fd=self.store)
        except OSError:
            return False
        try:
            files, is_lost = load_managed(self.store, folder, list_name(revision), is_shared=False)
            is_listed = not is_lost and bool(files or not os.listdir(folder))
            return is_listed and not damaged(files, files, folder)
        finally:
            os.close(folder)

    def make_room(self, wanted: Mapping[str, Content], fence: Fence) -> bool:
        """
        Make room for a requested revision; False if it does not fit.
        """
        held = self.shown.managed.files if self.shown is not None else {}
        same = set(_same(wanted, held))
        new = (content.size_bytes for path, content in wanted.items() if path not in same)
        needed_bytes = sum(-(-size // BLOCK_BYTES) * BLOCK_BYTES for size in new)
        return self._snapshots.make_room(needed_bytes, fence)

    def drop_asked(self, fence: Fence) -> None:
        """
        Remove all requested snapshots that are not in use.
        """
        self._snapshots.drop_asked(fence)

    @contextmanager
    def aside(self, revision: str, wanted: Mapping[str, Content], fence: Fence) -> Iterator[Target]:
        """
        Yield a hidden folder for a revision, with the files it shares with the published one.
        """
        name = aside_name(revision)
        target = self._open(name)
        try:
            if self.shown is not None:
                restore(_same(wanted, self.shown.managed.files), self.shown, target, fence)
            yield target
        finally:
            target.close()
            remove_tree(name, self.store)
            remove_tree(list_name(name), self.store)

    def keep(self, revision: str, target: Target, fence: Fence) -> None:
        """
        Turn a folder that was filled aside into a snapshot; the published one does not change.

        Raises:
            Torn: A file of the folder is damaged.
        """
        target.end_cycle(fence)
        for path in target.damaged(iter(target.managed.files)):
            raise Torn(path)
        name = os.path.basename(target.path)
        with fence:
            if self.has(revision):  # a damaged one
                os.rename(revision, f"{name}.old", src_dir_fd=self.store, dst_dir_fd=self.store)
            os.rename(
                list_name(name),
                list_name(revision),
                src_dir_fd=self.store,
                dst_dir_fd=self.store,
            )
        self._snapshots.keep_asked(name, revision, fence)
        remove_tree(f"{name}.old", self.store)

    def finish(self, fence: Fence) -> bool:
        clear_in_place(self._volume, fence, may_delete=self._delete != "none")
        self._settle_doubts(fence)
        return not self._doubted

    def close(self) -> None:
        if self.shown is not None:
            self.shown.close()
        self._open_folders.close()

    def _doubt(self) -> None:
        self._doubted = dict.fromkeys(self._snapshots.revisions(), False) | self._doubted

    def _settle_doubts(self, fence: Fence) -> None:
        """
        Repair older snapshots with files of the tree, and remove those that stay damaged: consumers
        request them again, or fail instead of running other code.
        """
        for revision, is_named in list(self._doubted.items()):
            try:
                is_sound = not self.has(revision) or self.is_whole(revision)
                if is_sound or self._heal(revision, fence):
                    del self._doubted[revision]
                    continue
                self._snapshots.remove(revision, fence)
                if not self.has(revision):
                    with fence:
                        remove_tree(list_name(revision), self.store)
            except OSError as error:
                log.warning("leftover_kept", name=revision, error=error.strerror)
            is_kept = self.has(revision)  # until no process uses it
            if not is_named:
                log.warning("snapshot_damaged", revision=revision, is_removed=not is_kept)
            if is_kept:
                self._doubted[revision] = True
            else:
                del self._doubted[revision]

    def _heal(self, revision: str, fence: Fence) -> bool:
        """
        Repair an older snapshot with files of the tree; return whether it is undamaged now.
        """
        try:
            with closing(self._open(revision)) as older:
                repair(self.tree, older, older.damaged(iter(older.managed.files)), fence)
                is_lost = older.managed.is_lost
        except (Torn, OSError):  # the tree is damaged as well, or the volume is full
            return False
        return not is_lost and self.is_whole(revision)

    def _replace_lost(self, fence: Fence) -> bool:
        """
        Recreate the current snapshot if its folder was removed; return whether that was done.

        If the tree is ahead of it, the next publish replaces it.
        """
        shown, revision = self.shown, self.revision
        if shown is None or is_at(revision, self.store, shown.folder):
            return False
        is_same = difference(self.tree, shown).is_empty
        shown.close()
        self.shown, self.revision = None, ""
        if is_same:
            self.publish(revision, fence)
        return is_same

    def _recreate(self, revision: str) -> None:
        """
        Recreate a snapshot whose folder was removed, if the tree has all files of its list.
        """
        self._has_shown = True
        listed, _ = load_managed(self.store, None, list_name(revision), is_shared=False)
        if _etags(listed) == _etags(self.tree.managed.files):
            with suppress(Torn):  # the tree is damaged as well: a cycle downloads it again
                self.publish(revision, Fence())

    def _open(self, revision: str, files: dict[str, Managed] | None = None) -> Target:
        part = f"{SNAPSHOTS}/{revision}"
        return Target(self._volume, file_mode=self._file_mode, part=part, files=files)

    def _add(self, revision: str, fence: Fence) -> Target:
        """
        Link the whole tree into a new snapshot.
        """
        files, taken = self.tree.managed.files, {}

        def fill(folder: int) -> None:
            for path, found in link_tree(self.tree.folder, folder, files, fsync=self._volume.fsync):
                if (facts := files[path].of(found)) is None:
                    raise Torn(path)
                taken[path] = facts

        try:
            self._snapshots.add(revision, fill, fence)
        except OSError as error:
            if error.errno in _TORN:
                raise Torn(error.filename) from error
            raise
        return self._open(revision, taken)

    def _renew(self, revision: str, fence: Fence) -> Target:
        """
        Reuse an unpruned snapshot, because the source is back at its revision.

        The content is the same, but readers that compare modification times must see it as new.
        """
        folder = self._open(revision)
        try:
            ours, old = self.tree.managed.files, folder.managed.files
            damaged = folder.damaged(iter(old))
            renewed = tuple(
                path for path, held in ours.items() if old.get(path) != held or path in damaged
            )
            gone = tuple(path for path in old if path not in ours)
            result = bring(self.tree, folder, Plan(renewed, gone), fence)
            for path in result.blocked:
                occupied = OSError(errno.EEXIST, f"files that s3-sync does not own block {path!r}")
                raise explain_os_error(occupied, f"cannot reuse {folder.path}")
            for error in result.failed.values():
                raise error
        except BaseException:
            folder.close()
            raise
        return folder


def _same(wanted: Mapping[str, Content], held: Mapping[str, Managed]) -> list[str]:
    """
    Return the paths whose content exists already.
    """
    return [
        path for path, content in wanted.items() if path in held and held[path].etag == content.etag
    ]


def _etags(files: Mapping[str, Managed]) -> dict[str, str]:
    return {path: managed.etag for path, managed in files.items()}
