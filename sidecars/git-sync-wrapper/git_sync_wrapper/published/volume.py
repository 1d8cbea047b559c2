"""
The open volume: snapshots of commits, their lists, and which of them is published.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress

from git_sync_wrapper.flags.options import Options
from git_sync_wrapper.published import contents, record
from git_sync_wrapper.published.commit import NAMED_PATHS, CommitFacts
from git_sync_wrapper.published.link import check_link, exchange, move_aside
from git_sync_wrapper.published.record import RECORD, STORE, Published
from git_sync_wrapper.published.sharing import differing, restore, share
from git_sync_wrapper.published.tree import fill, opened, taken
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.errors import explained
from sidecar_runtime.volume.files import (
    free_bytes,
    free_inodes,
    stat_in,
    write_file,
)
from sidecar_runtime.volume.snapshots import Snapshots, aside_name
from sidecar_runtime.volume.trees import FOLDER_FLAGS, FOLDER_MODE, remove_tree

LOCK = "lock"
LIST = ".files"
UNSHOWN = ".unshown"
"""The suffix of the marker of an unpublished snapshot: the pre-publish hook may still refuse it."""
HISTORY = ".history"
"""The ref's commits without files; a start removes the folder, and it is fetched again."""
AIRFLOWIGNORE = ".airflowignore"
# Matches any commit in both syntaxes of Airflow's ignore files: glob and regular expression.
_ANY_COMMIT = b"[0-9a-f]*\n"

log = get_logger("volume")


class Volume:
    """
    The open root of one wrapper.

    Args:
        reads: Whether the files of a new snapshot are read at once, for their digests. If not, the
            first inspection reads them.

    Raises:
        SidecarError: From every method: the volume failed. The link leads to the same commit as
            before, or possibly to the one that :meth:`show` or :meth:`turn_back` was called with.
    """

    def __init__(
        self,
        options: Options,
        *,
        retain_count: int,
        retain_seconds: float,
        retain_bytes: int | None = None,
        asked_count: int = 0,
        asked_bytes: int = 0,
        fsync: bool = True,
        reads: bool = True,
    ) -> None:
        self._options = options
        self._reads = reads
        # The recorded list of one commit, and the identity of the file that contains it.
        self._rows: tuple[object, contents.Contents] = (None, {})
        self._published = Published()
        self._published_by: object = None
        self._taken: dict[str, array[int]] = {}
        self._retain_bytes = retain_bytes
        self._fsync = fsync
        self.root = options.root
        with explained(f"cannot use {options.root}"), ExitStack() as stack:
            os.makedirs(options.root, FOLDER_MODE, exist_ok=True)
            store_path = os.path.join(options.root, STORE)
            self.store = _open_folder(store_path, stack)
            folder, link = os.path.split(options.link)
            os.makedirs(folder, FOLDER_MODE, exist_ok=True)
            self._link_folder = _open_folder(os.path.realpath(folder), stack)
            check_link(options)
            self._snapshots = Snapshots(
                self._link_folder,
                self.store,
                os.path.relpath(store_path, os.path.realpath(folder)),
                link=link,
                retain_count=retain_count,
                retain_seconds=retain_seconds,
                asked_count=asked_count,
                asked_bytes=asked_bytes,
                fsync=fsync,
            )
            self._open = [
                (path, _identity(os.fstat(opened)))
                for path, opened in ((store_path, self.store), (folder, self._link_folder))
            ]
            self._close = stack.pop_all()

    def close(self) -> None:
        """
        Close all open folders.
        """
        self._close.close()

    def is_current(self) -> bool:
        """
        Whether the open folders are still the folders at their paths.
        """
        try:
            return all(_identity(os.stat(path)) == known for path, known in self._open)
        except OSError:
            return False

    def prepare(self) -> None:
        """
        Remove leftovers of a crash. The caller must hold the lock.
        """
        with explained(f"cannot clear {self.root}/{STORE}"):
            self._snapshots.sweep()
            # Airflow's folder walk follows links: if it begins at the root, it must skip the store.
            write_file(AIRFLOWIGNORE, _ANY_COMMIT, 0o664, fsync=False, dir_fd=self.store)

    def published(self) -> Published:
        """
        Return the published commit, from disk.
        """
        commit = self._snapshots.current()
        found = stat_in(RECORD, self.store)
        by = commit, found and (found.st_ino, found.st_mtime_ns)
        if by != self._published_by:  # another process may write a new record of the same commit
            self._published = record.read(commit, self.store) if commit else Published()
            self._published_by = by
        return self._published

    def recorded(self) -> Published:
        """
        Return the recorded commit, if its snapshot still exists.
        """
        commit = record.recorded(self.store)
        return record.read(commit, self.store) if self._snapshots.has(commit) else Published()

    def add(self, commit: str, worktree: str, fence: Fence) -> None:
        """
        Make a snapshot of a worktree; it is not published yet, and cannot be requested.

        Files that are unchanged since the published commit are shared. An existing snapshot of the
        same commit is replaced: its files are the same, unless the settings have changed, but when
        a commit is published again, consumers that compare times must see new ones.
        """
        with explained(f"cannot make a snapshot of {commit}"):
            make = self._maker(commit, worktree, self._share(worktree), fence)
            if not self.has(commit):
                self._drop_unshown(fence)
                with fence:
                    write_file(commit + UNSHOWN, b"", 0o664, fsync=False, dir_fd=self.store)
            if self._snapshots.has(commit):
                self._replace(commit, make, fence)
            else:
                make(commit)

    def differing(self, worktree: str, commit: str) -> list[str]:
        """
        Return the files of a worktree that differ from a published commit's; all without a commit.

        Raises:
            OSError: Something cannot be read.
        """
        with ExitStack() as stack:
            checkout, shown = stack.enter_context(opened(worktree)), None
            if commit:
                with suppress(OSError):  # it cannot be read
                    shown = stack.enter_context(opened(commit, self.store))
            return sorted(differing(checkout, shown))

    def has(self, commit: str) -> bool:
        """
        Whether a snapshot of a commit exists that was published or requested; from any thread.
        """
        return self._snapshots.has(commit) and stat_in(commit + UNSHOWN, self.store) is None

    @property
    def asked_count(self) -> int:
        """
        The number of snapshots that exist because they were requested.
        """
        with explained(f"cannot read {self.root}"):
            return len(self._snapshots.asked())

    def keep_asked(
        self,
        commit: str,
        worktree: str,
        fence: Fence,
        check: Callable[[Fence], None] = lambda _: None,
    ) -> None:
        """
        Make a snapshot of a requested commit's worktree; the published commit does not change.

        Args:
            check: Raises if the worktree was not whole when it was copied.

        Raises:
            SidecarError: ``request_limit``: requested commits that are in use leave no room.
        """
        with explained(f"cannot make a snapshot of {commit}"):
            shared = self._share(worktree)
            shown = set(self._files(self._snapshots.current())[::2])
            with opened(worktree) as checkout:
                files = taken(".", checkout)
            own = zip(files[::2], files[1::2], strict=True)
            needed_bytes = sum(size for inode, size in own if inode not in shown)
            if not self._snapshots.make_room(needed_bytes, fence):
                raise SidecarError(
                    "request_limit",
                    f"commit {commit} and the snapshots in use exceed "
                    "GIT_SYNC_WRAPPER_KEEP_REQUESTED_BYTES",
                    "Raise GIT_SYNC_WRAPPER_KEEP_REQUESTED_BYTES and the sizeLimit of the volume.",
                )
            prepared = f".{commit}"
            self._maker(commit, worktree, shared, fence)(prepared)
            check(fence)
            self._snapshots.keep_asked(prepared, commit, fence)
            self._remove_lists()

    def drop_unshown(self, fence: Fence) -> None:
        """
        Remove snapshots that were never published: they were refused, or their cycle was cut short.
        """
        with explained(f"cannot clear {self.root}/{STORE}"):
            self._drop_unshown(fence)
            self._remove_lists()

    def _drop_unshown(self, fence: Fence) -> None:
        for name in os.listdir(self.store):
            commit = name.removesuffix(UNSHOWN)
            if commit != name:
                self._snapshots.remove(commit, fence)
                if not self._snapshots.has(commit):
                    with fence:
                        remove_tree(name, self.store)

    def drop_asked(self, fence: Fence) -> None:
        """
        Remove requested commits that are not in use, and the history; both can be fetched again.
        """
        with explained(f"cannot clear {self.root}/{STORE}"):
            self._snapshots.drop_asked(fence)
            self._remove_lists()
            with fence:
                remove_tree(HISTORY, self.store)

    def _maker(
        self, commit: str, worktree: str, shared: Mapping[str, str], fence: Fence
    ) -> Callable[[str], None]:
        """
        Return a function that makes a snapshot of a worktree under a name, and the commit's list.
        """
        self._taken.pop(commit, None)

        def fill_and_list(folder: int) -> None:
            with opened(worktree) as checkout:
                fill(checkout, folder)
            self._list(commit, folder, shared, reads=self._reads)

        return lambda name: self._snapshots.add(name, fill_and_list, fence)

    def _replace(self, commit: str, make: Callable[[str], None], fence: Fence) -> None:
        """
        Replace a snapshot in one step. On a file system that cannot exchange two folders (NFS), the
        link leads to the new snapshot under another name in the meantime.
        """
        # A new name each time: a folder of another user may remain of an earlier replacement.
        new, old, meanwhile = aside_name(commit), f".{commit}.old", f"{commit}.again"
        make(new)
        with fence:
            is_done = exchange(new, commit, self.store)
        if not is_done:
            is_shown = commit == self._snapshots.current()
            if is_shown:
                remove_tree(meanwhile, self.store)
                with fence:
                    os.rename(new, meanwhile, src_dir_fd=self.store, dst_dir_fd=self.store)
                self._snapshots.show(meanwhile, fence)
                make(new)
            with fence:
                for name, other in ((commit, old), (new, commit), (old, new)):
                    os.rename(name, other, src_dir_fd=self.store, dst_dir_fd=self.store)
            if is_shown:
                self._snapshots.show(commit, fence)
                remove_tree(meanwhile, self.store)
        remove_tree(new, self.store)

    def look(self, commit: str, *, is_holder: bool) -> list[str] | None:
        """
        Return the damaged files of a snapshot; None if the list does not exist or does not tell.

        Args:
            is_holder: Whether this process holds the lock, and may record new times. If not, the
                holder may remove the snapshot and its list at any time.
        """
        rows = self._listed(commit)
        if not rows:
            return None
        before = rows.copy()
        with explained(f"cannot read {commit}"):
            try:
                with opened(commit, self.store) as folder:
                    damaged = contents.damaged(rows, folder, self.store, reads=is_holder)
            except FileNotFoundError:
                return None
            except PermissionError:  # the snapshot itself is closed
                return sorted(rows)
            if is_holder and rows != before:
                with suppress(OSError):  # the list only saves reading; the next look repeats that
                    self._record(commit, rows)
        return damaged

    def repair(self, commit: str, worktree: str, fence: Fence) -> None:
        """
        Repair a snapshot from a worktree, and all older snapshots that share its damaged files.

        If another user's folder does not allow that, the whole snapshot is replaced.
        """
        replaced = set[str]()
        with explained(f"cannot repair {commit}"):
            try:
                self._restore(commit, worktree, replaced, fence)
            except (PermissionError, IsADirectoryError):
                replaced.update(self.differing(worktree, commit))
                make = self._maker(commit, worktree, self._share(worktree), fence)
                self._replace(commit, make, fence)
        if replaced:
            named = sorted(replaced)[:NAMED_PATHS]
            log.warning("damage_repaired", revision=commit, files=len(replaced), paths=named)

    def _restore(self, commit: str, worktree: str, replaced: set[str], fence: Fence) -> None:
        """
        Repair a snapshot in place, and add each path that is replaced to a set.
        """
        self._taken.clear()
        with ExitStack() as stack:
            checkout = stack.enter_context(opened(worktree))
            folder = stack.enter_context(opened(commit, self.store))
            older = {
                name: stack.enter_context(opened(name, self.store))
                for name in self._snapshots.revisions()
                if name != commit
            }
            ages = {name: os.fstat(fd).st_mtime_ns for name, fd in older.items()}
            replaced.update(restore(checkout, folder, list(older.values()), self.store, fence))
            for name, age in ages.items():  # a folder's mtime is the time of its replacement
                os.utime(name, ns=(age, age), dir_fd=self.store)
            shared = self._share(worktree)
            old = {path: shared[path] for path in shared.keys() - replaced}
            self._list(commit, folder, old, reads=True)

    def _share(self, worktree: str) -> dict[str, str]:
        """
        Share equal files of a worktree with the published commit.

        Returns:
            Their paths, each with its recorded digest, or an empty text.
        """
        shown = self._snapshots.current()
        if not shown:
            return {}
        rows = self._listed(shown)
        with ExitStack() as stack:
            checkout = stack.enter_context(opened(worktree))
            try:
                folder = stack.enter_context(opened(shown, self.store))
            except OSError:  # it cannot be read
                return {}
            return {
                path: contents.digest_of(path, found, rows)
                for path, found in share(checkout, folder, self.store)
            }

    def _list(self, commit: str, folder: int, old: Mapping[str, str], *, reads: bool) -> None:
        """
        Record the list of a snapshot's files.

        Args:
            old: The files that are on disk already, with their digests if known.
            reads: As in :class:`Volume`.
        """
        rows = contents.take(folder, old, reads=reads)
        if self._fsync:
            contents.flush(rows, old, folder)
        self._record(commit, rows)

    def _record(self, commit: str, rows: contents.Contents) -> None:
        self._rows = None, {}  # if the write fails, the next call reads the list again
        if contents.write(rows, commit + LIST, self.store, fsync=self._fsync):
            self._rows = self._list_of(commit), rows
        else:
            log.warning("list_too_long", revision=commit, files=len(rows))

    def _listed(self, commit: str) -> contents.Contents:
        """
        Return the recorded list of a commit; empty if there is none.
        """
        written = self._list_of(commit)
        if written is None or written != self._rows[0]:
            self._rows = written, contents.read(commit + LIST, self.store) or {}
        return self._rows[1]

    def _list_of(self, commit: str) -> tuple[object, ...] | None:
        """
        Return the identity of a commit's list, which differs for each version.
        """
        found = stat_in(commit + LIST, self.store)
        return found and (commit, found.st_ino, found.st_mtime_ns, found.st_size)

    def show(
        self,
        commit: str,
        made_by: str,
        fence: Fence,
        *,
        fallback: str = "",
        facts: CommitFacts | None = None,
    ) -> None:
        """
        Publish a snapshot: write the record, and swap the link.

        A failure half-way leaves the old link, possibly with the record of the new commit, whose
        snapshot then counts as published; or the new link, if only the flush to disk failed: a
        crash of the node may undo that swap. If something else was in place of the link, it may
        be moved aside already.
        """
        with explained(f"cannot swap the link {self._options.link}"):
            move_aside(self._options.link)
            with fence:
                remove_tree(commit + UNSHOWN, self.store)
                record.write(
                    commit,
                    made_by,
                    self._options,
                    self.store,
                    fallback=fallback,
                    facts=facts or CommitFacts(),
                    fsync=self._fsync,
                )
            # Last: after a kill in between, a new volume gets the link to the recorded commit.
            self._snapshots.show(commit, fence)

    def refuse(self, commit: str, fence: Fence) -> None:
        """
        Record that the gate refuses a newer commit, so that one-shots do not wait for it.
        """
        with fence, suppress(OSError):  # without room, one-shots wait
            record.refuse(commit, self.store, fsync=self._fsync)

    def turn_back(self, commit: str, fence: Fence) -> None:
        """
        Restore a removed link to the recorded commit.
        """
        with explained(f"cannot swap the link {self._options.link}"):
            move_aside(self._options.link)
            self._snapshots.show(commit, fence)

    def prune(self, commit: str, fence: Fence) -> None:
        """
        Remove commits that need not be kept any longer.
        """
        try:
            self._drop_unshown(fence)
            self._snapshots.prune(commit, fence)
            while (
                self._retain_bytes is not None
                and self._older_bytes() > self._retain_bytes
                and (dropped := self._snapshots.drop_oldest(fence))
            ):
                log.info("snapshot_dropped", revision=dropped)
            for gone in [one for one in self._taken if not self._snapshots.has(one)]:
                del self._taken[gone]
            self._remove_lists()
        except OSError as error:
            log.warning("leftover_kept", name=error.filename, error=error.strerror)

    def _older_bytes(self) -> int:
        """
        Return the size of older commits, without files that the published commit shares.
        """
        sizes: dict[int, int] = {}
        asked = set(self._snapshots.asked())  # these have a separate limit
        for commit in self._snapshots.revisions():
            files = self._files(commit) if commit not in asked else array("Q")
            sizes.update(zip(files[::2], files[1::2], strict=True))
        shown = set(self._files(self._snapshots.current())[::2])
        return sum(size for inode, size in sizes.items() if inode not in shown)

    def _files(self, commit: str) -> array[int]:
        """
        Return the files of a commit, as :func:`taken`; empty without a commit.

        The result is cached, because each file costs a round trip on NFS.
        """
        if commit and not self._taken.get(commit):
            self._taken[commit] = taken(commit, self.store)
        return self._taken.get(commit, array("Q"))

    def lacking_bytes(self) -> float:
        """
        Return how much room is missing for another commit; 0 or less if there is enough. It may
        need the published commit's size for its files, and as much again for git's objects.

        A missing inode counts as a file of mean size; on tmpfs, each link needs one too.
        """
        with explained(f"cannot read {self.root}"):
            shown = self._files(self._snapshots.current())
            files, size_bytes = len(shown) // 2, sum(shown[1::2])
            lacking_files = 3 * files - free_inodes(self.store)
            mean_bytes = max(1, size_bytes // max(1, files))
            return max(2 * size_bytes - free_bytes(self.store), lacking_files * mean_bytes)

    def older_bytes(self) -> int:
        """
        Return how much room the removal of all older commits would free.
        """
        with explained(f"cannot read {self.root}"):
            return self._older_bytes()

    def drop_oldest(self, fence: Fence) -> bool:
        """
        Remove the oldest kept commit, even before its time; return False if there is none.
        """
        with explained(f"cannot clear {self.root}/{STORE}"):
            dropped = self._snapshots.drop_oldest(fence)
            self._remove_lists()
        if dropped:
            log.warning("snapshot_dropped", revision=dropped)
        return bool(dropped)

    def _remove_lists(self) -> None:
        for name in os.listdir(self.store):
            commit = name.removesuffix(LIST)
            if commit != name and not self._snapshots.has(commit):
                remove_tree(name, self.store)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _open_folder(path: str, stack: ExitStack) -> int:
    with suppress(FileExistsError):
        os.mkdir(path, FOLDER_MODE)
    folder = os.open(path, FOLDER_FLAGS)
    stack.callback(os.close, folder)
    return folder
