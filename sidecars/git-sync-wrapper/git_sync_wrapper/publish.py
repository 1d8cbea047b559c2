"""
The volume: snapshots of commits, which of them the link shows, and whether it is whole.

The link is swapped in :meth:`Volume.show`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple, TypeVar

from git_sync_wrapper import engine, record, trees
from git_sync_wrapper.options import Options
from git_sync_wrapper.record import RECORD, STORE, Published
from git_sync_wrapper.settings import Settings
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import (
    LINK_ADVICE,
    explained,
    free_bytes,
    free_inodes,
    write_file,
)
from sidecar_runtime.volume.snapshots import (
    FOLDER_FLAGS,
    FOLDER_MODE,
    Snapshots,
    aside_name,
    remove_tree,
)

LOCK = "lock"
LIST = ".files"
AIRFLOWIGNORE = ".airflowignore"
# Matches any commit in both syntaxes of Airflow's ignore files: glob and regular expression.
_ANY_COMMIT = b"[0-9a-f]*\n"

T = TypeVar("T")

log = get_logger("volume")


class Build(NamedTuple):
    """
    A snapshot of a commit that is not shown yet, in a folder that a crash leaves to the next start.

    Args:
        path: The folder, for those who judge it.
        changed: Its files that are not those of the published commit.
        links: All its symlinks, which may lead to changed files; empty if there are none.
        pointers: Its files that are pointers of Git LFS.
    """

    commit: str
    name: str
    path: str
    changed: list[str]
    links: list[str]
    pointers: list[str]


class Volume:
    """
    The open root of one wrapper.

    Raises:
        SidecarError: From every method: the volume failed. The link leads to the same commit as
            before, or possibly to the one that :meth:`show` was called with.
    """

    def __init__(self, settings: Settings, options: Options) -> None:
        self.root = options.root
        self._options = options
        self._retain_bytes = settings.retain_bytes
        self._fsync = settings.fsync
        self._rows: tuple[str, trees.Rows | None] = ("", None)
        """The list of one commit, from the last time it was read or written."""
        with explained(f"cannot use {options.root}"), ExitStack() as stack:
            folder, link = os.path.split(options.link)
            store = os.path.join(options.root, STORE)
            for path in (options.root, store, folder):
                os.makedirs(path, FOLDER_MODE, exist_ok=True)
            above = os.path.realpath(folder)
            opened = [os.open(path, FOLDER_FLAGS) for path in (store, above)]
            for fd in opened:
                stack.callback(os.close, fd)
            self.store, self._above = opened
            self.snapshots = Snapshots(
                self._above,
                self.store,
                os.path.relpath(store, above),
                link=link,
                retain_count=settings.retain_count,
                retain_seconds=max(settings.retain_seconds, options.stale_worktree_timeout),
                fsync=settings.fsync,
            )
            self._closing = stack.pop_all()

    def close(self) -> None:
        """
        Close all open folders.
        """
        self._closing.close()

    # --- what is shown

    def published(self) -> Published:
        """
        Return the published commit, from disk.
        """
        commit = self.snapshots.current()
        return record.read(commit, self.store) if commit else Published()

    def restore(self, fence: Fence, *, is_first: bool) -> Published:
        """
        Return the published commit; if the link is gone, show the recorded one again. The caller
        holds the lock.

        Args:
            is_first: Whether a crash may have left something in the store.
        """
        if is_first:
            with explained(f"cannot clear {self.root}/{STORE}"), fence:
                self.snapshots.sweep()
                # Airflow's folder walk follows links: if it begins at the root, it must skip this.
                write_file(AIRFLOWIGNORE, _ANY_COMMIT, 0o664, fsync=False, dir_fd=self.store)
        published = self.published()
        last = "" if published.commit else record.recorded(self.store)
        if last and self.snapshots.has(last):
            self._swap(last, fence)
            log.warning("link_restored", revision=last)
            published = self.published()
        return published

    def damage(self, commit: str, *, is_fresh: bool = False) -> list[str] | None:
        """
        Return the damaged or missing files of a snapshot; None if it has no list of them.

        Args:
            is_fresh: Whether to read the list again: another process publishes on this volume.
        """
        if is_fresh:
            self._rows = "", None
        rows = self._listed(commit)
        if not rows:
            return None
        try:
            folder = os.open(commit, FOLDER_FLAGS, dir_fd=self.store)
        except OSError:
            return sorted(path or "." for path in rows)
        try:
            return trees.damaged(rows, folder)
        finally:
            os.close(folder)

    def _listed(self, commit: str) -> trees.Rows | None:
        if self._rows[0] != commit:
            self._rows = commit, trees.read_rows(commit + LIST, self.store)
        return self._rows[1]

    # --- a new snapshot

    def build(self, commit: str, checkout: str, fence: Fence) -> Build:
        """
        Make a snapshot of a checkout, which nobody sees yet.
        """
        name = aside_name(commit)
        shown = self.snapshots.current()
        path = os.path.join(self.root, STORE, name)
        with explained(f"cannot make a snapshot of {commit}"), ExitStack() as stack:
            with fence:
                os.mkdir(name, FOLDER_MODE, dir_fd=self.store)
            try:
                new = _opened(name, self.store, stack)
                before = _opened(shown, self.store, stack) if shown else None
                changed = trees.build(_opened(checkout, None, stack), new, before, engine.ROOT)
                rows = trees.rows_of(new)
                if self._fsync:
                    trees.flush(new, rows, changed)
                links = trees.links(rows) if changed else []
                pointers = trees.lfs_pointers(new, rows)
                trees.write_rows(rows, name + LIST, self.store, fsync=self._fsync)
            except BaseException:
                self._drop(name)
                raise
        return Build(commit, name, path, changed, links, pointers)

    def drop(self, build: Build) -> None:
        """
        Remove a snapshot that is not shown.
        """
        with explained(f"cannot clear {self.root}/{STORE}"):
            self._drop(build.name)

    def _drop(self, name: str) -> None:
        for one in (name, name + LIST):
            remove_tree(one, self.store)

    def show(
        self, build: Build, facts: Mapping[str, Any], fence: Fence, *, fallback: str = ""
    ) -> None:
        """
        Publish a snapshot: rename it to its commit, write the record, and swap the link.

        A failure half-way leaves the old link, possibly with the record of the new commit, whose
        snapshot then counts as published; or the new link, if only the flush to disk failed: a
        crash of the node may undo that swap.
        """
        commit = build.commit
        with explained(f"cannot swap the link {self._options.link}"):
            self._rows = "", None
            with fence:
                self._take_place(build.name, commit)
                os.rename(
                    build.name + LIST, commit + LIST, src_dir_fd=self.store, dst_dir_fd=self.store
                )
            self.note(commit, facts, fence, fallback=fallback)
            # Last: after a kill in between, a new volume gets the link to the recorded commit.
            self._swap(commit, fence)
            self._drop(build.name)

    def _take_place(self, name: str, commit: str) -> None:
        """
        Rename a snapshot to its commit; one that is there already is replaced in one step, or on a
        file system that cannot do so (NFS), in two.
        """
        places = {"src_dir_fd": self.store, "dst_dir_fd": self.store}
        if self.snapshots.has(commit):
            if trees.exchange(name, commit, self.store):
                return
            os.rename(commit, f".{name}.old", **places)
        else:
            remove_tree(commit, self.store)
        os.rename(name, commit, **places)
        remove_tree(f".{name}.old", self.store)

    def note(
        self, commit: str, facts: Mapping[str, Any], fence: Fence, *, fallback: str = ""
    ) -> None:
        """
        Record a commit as published, for the settings of now.
        """
        with explained(f"cannot write {RECORD}"), fence:
            options, fsync = self._options, self._fsync
            record.write(commit, options, self.store, facts, fallback=fallback, fsync=fsync)

    def refuse(self, commit: str, fence: Fence) -> None:
        """
        Record that the gate refuses a newer commit, so that one-shots do not wait for it.
        """
        with fence, suppress(OSError):  # without room, one-shots wait
            record.refuse(commit, self.store, fsync=self._fsync)

    def _swap(self, commit: str, fence: Fence) -> None:
        with explained(f"cannot swap the link {self._options.link}"):
            _move_aside(self._options.link)
            self.snapshots.show(commit, fence)

    # --- older ones

    def prune(self, commit: str, fence: Fence) -> None:
        """
        Remove commits that need not be kept any longer.
        """
        try:
            self.snapshots.prune(commit, fence)
            while (
                self._retain_bytes is not None
                and self.older_bytes() > self._retain_bytes
                and (dropped := self.snapshots.drop_oldest(fence))
            ):
                log.info("snapshot_dropped", revision=dropped)
            self._remove_lists()
        except OSError as error:
            log.warning("leftover_kept", name=error.filename, error=error.strerror)

    def older_bytes(self) -> int:
        """
        Return the size of older commits, without files that the published commit shares.
        """
        sizes: dict[int, int] = {}
        for commit in self.snapshots.revisions():
            sizes |= trees.sizes_of(trees.read_rows(commit + LIST, self.store) or {})
        shown = trees.sizes_of(self._listed(self.snapshots.current()) or {})
        return sum(size for inode, size in sizes.items() if inode not in shown)

    def lacking_bytes(self) -> float:
        """
        Return how much room is missing for another commit; 0 or less if there is enough. It may
        need the published commit's size for its files, and as much again for git's objects.

        A missing inode counts as a file of mean size; on tmpfs, each link needs one too.
        """
        with explained(f"cannot read {self.root}"):
            shown = trees.sizes_of(self._listed(self.snapshots.current()) or {})
            size_bytes = sum(shown.values())
            lacking_files = 3 * len(shown) - free_inodes(self.store)
            mean_bytes = max(1, size_bytes // max(1, len(shown)))
            return max(2 * size_bytes - free_bytes(self.store), lacking_files * mean_bytes)

    def drop_oldest(self, fence: Fence) -> bool:
        """
        Remove the oldest kept commit, even before its time; return False if there is none.
        """
        with explained(f"cannot clear {self.root}/{STORE}"):
            dropped = self.snapshots.drop_oldest(fence)
            self._remove_lists()
        if dropped:
            log.warning("snapshot_dropped", revision=dropped)
        return bool(dropped)

    def _remove_lists(self) -> None:
        for name in os.listdir(self.store):
            commit = name.removesuffix(LIST)
            if commit != name and not commit.startswith(".") and not self.snapshots.has(commit):
                remove_tree(name, self.store)


def make_room(
    attempt: Callable[[], T], throw_away: Callable[[], None], volume: Volume, fence: Fence
) -> T:
    """
    Check out and publish a commit with enough room; return the result of `attempt`.

    git-sync does not recover from a full volume: an incomplete checkout stays. So room is made
    before it runs, and again if that was not enough: its repository goes first, because it collects
    garbage by number of packs, not by size; then replaced commits, the oldest first.

    Args:
        attempt: Checks out and publishes, from the start each time.
        throw_away: Removes git-sync's repository.

    Raises:
        SidecarError: It failed; ``target_full`` if there is nothing left to remove.
        CycleAbandoned: The fence was revoked.
    """
    # Older commits that together free less than a tenth of the missing room are kept.
    while 0 < volume.lacking_bytes() < 10 * volume.older_bytes():
        if not volume.drop_oldest(fence):
            break
    is_first = True
    while True:
        try:
            return attempt()
        except SidecarError as error:
            if error.reason != "target_full":
                raise
            throw_away()
            if not (is_first or volume.drop_oldest(fence)):
                raise
            is_first = False


def _move_aside(link: str) -> None:
    """
    Move aside a file or folder that is where the link should be; an empty folder is replaced.

    Raises:
        SidecarError: ``link_blocked``.
    """
    if os.path.islink(link) or not os.path.exists(link):
        return
    if os.path.isdir(link) and not os.listdir(link):
        return
    aside = f"{link}.replaced-{int(time.time())}"
    try:
        os.rename(link, aside)
    except OSError as error:
        said = f"{link} is not a link and cannot be moved aside: {error.strerror}"
        raise SidecarError("link_blocked", said, LINK_ADVICE) from error
    log.warning("folder_moved_aside", folder=link, to=aside)


def _opened(name: str, above: int | None, stack: ExitStack) -> int:
    fd = os.open(name, FOLDER_FLAGS, dir_fd=above)
    stack.callback(os.close, fd)
    return fd
