"""
Snapshots: complete copies of revisions side by side, and a link that shows the current
one.

``ROOT/<link>`` is a relative symlink to ``ROOT/<store>/<revision>``, swapped with a
rename. A reader that resolves it once keeps seeing one revision. A copy consists of
hard links, so it costs directory entries but no data. All operations work inside open
folders and follow no symlink, because other processes may be able to write to the
volume.
"""

import errno
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, TypeVar

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import (
    LINK_ADVICE,
    NEW_FILE,
    needing,
    set_mode,
    stat_in,
    sync_folder,
    take_flock,
)

FOLDER_MODE = 0o775
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# A hard link is impossible: protected_hardlinks, a file system without hard links, too
# many links to the file, another mount.
# https://docs.kernel.org/admin-guide/sysctl/fs.html#protected-hardlinks
NO_LINK = {errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS}
# A file or folder cannot be linked: it is missing, of another kind, or closed to this
# user.
_NOT_OURS = (FileNotFoundError, NotADirectoryError, PermissionError)
OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
# The suffix of the empty file beside a requested snapshot.
ASKED = ".asked"
# The suffix of a link that is not in its place yet. It is in the same folder: the store
# may be on another volume.
BESIDE = ".next-snapshot"

T = TypeVar("T")

log = get_logger("snapshots")


class Snapshots(NamedTuple):
    """
    The snapshots of one volume.

    Names that begin with a dot are copies that are being created or removed;
    :meth:`sweep` removes what a crash left. A snapshot is in use, and kept, while any
    process holds a shared ``flock`` on its folder.

    Args:
        root: The open folder that holds the link.
        store: The open folder that holds the snapshots.
        store_path: The path from the root to the store, for the link.
        link: The link's name.
        retain_count: How many older snapshots to keep.
        retain_seconds: Keep all snapshots that were replaced, requested or in use less
            than this long ago.
        asked_count: How many requested snapshots to keep: the most recently used ones.
        fsync: Flush directory entries to disk before the link shows them, and the link
            itself.

    Raises:
        OSError: From every method. The link shows what it showed before, except
            after a :meth:`show` that could not flush its swap to disk.
    """

    root: int
    store: int
    store_path: str
    link: str
    retain_count: int = 0
    retain_seconds: float = 0.0
    asked_count: int = 0
    fsync: bool = False

    def current(self) -> str:
        """
        Return the revision that the link shows; empty if that is not a snapshot of this
        store.
        """
        folder, _, revision = self._link().rpartition("/")
        return revision if folder == self.store_path and self.has(revision) else ""

    def has(self, revision: str) -> bool:
        """
        Whether a snapshot of a revision exists.
        """
        return self._found(revision) is not None

    def _found(self, name: str) -> os.stat_result | None:
        found = stat_in(name, self.store) if is_name(name) else None
        return found if found and stat.S_ISDIR(found.st_mode) else None

    def revisions(self) -> list[str]:
        """
        Return all snapshots that this process may open, most recently replaced first;
        the current one has no fixed position.
        """
        dated = [
            (found.st_mtime_ns, name)
            for name in os.listdir(self.store)
            if (found := self._found(name))
            and os.access(name, os.R_OK, dir_fd=self.store, effective_ids=True)
        ]
        return [name for _, name in sorted(dated, reverse=True)]

    def add(self, revision: str, fill: Callable[[int], T], fence: Fence) -> T:
        """
        Create a snapshot in a temporary folder, then rename it; return what `fill`
        does. The link does not show it yet.

        Args:
            revision: A name that begins with a dot is private to the caller, until the
                next start.
            fill: Writes all files into the open folder.

        Raises:
            ValueError: The revision is not a file name.
            CycleAbandoned: The fence was revoked; the temporary folder is removed.
        """
        # checked earlier; this is the last safeguard
        if not is_name(revision.removeprefix(".")):
            raise ValueError(f"not the name of a snapshot: {revision!r}")
        name = aside_name(revision)
        os.mkdir(name, FOLDER_MODE, dir_fd=self.store)
        try:
            with opened(name, self.store) as folder:
                filled = fill(folder)
            with fence:
                if not self.has(revision):  # whatever is not a folder is not a snapshot
                    remove_tree(revision, self.store)
                os.rename(name, revision, src_dir_fd=self.store, dst_dir_fd=self.store)
        except BaseException:
            remove_tree(name, self.store)
            raise
        return filled

    def swap_link(self, revision: str, fence: Fence) -> None:
        """
        Swap the link to a snapshot, in one step.

        Raises:
            SidecarError: ``link_blocked``: the path of the link is occupied.
            CycleAbandoned: The fence was revoked; the link is unchanged.
        """
        if self.fsync:
            sync_folder(self.store)
        with fence:
            before = self.current()
            if before and before != revision:
                # It becomes an older snapshot; its age counts from now.
                with suppress(OSError):
                    os.utime(before, dir_fd=self.store, follow_symlinks=False)
            # it no longer counts as a requested snapshot
            with suppress(FileNotFoundError):
                os.unlink(revision + ASKED, dir_fd=self.store)
            self.make_way(is_first=False)
            beside = self.link + BESIDE
            root = self.root
            remove_tree(beside, root)  # of a swap that failed
            if stat_in(beside, root):
                raise SidecarError(
                    "link_blocked",
                    f"{beside!r} is in the way of the link, and cannot be removed",
                    LINK_ADVICE,
                )
            make_symlink(f"{self.store_path}/{revision}", beside, dir_fd=root)
            os.rename(beside, self.link, src_dir_fd=root, dst_dir_fd=root)
            if self.fsync:
                sync_folder(self.root)

    def keep_asked(self, prepared: str, revision: str, fence: Fence) -> None:
        """
        Turn a folder in the store into a requested snapshot; the link does not change.

        Args:
            prepared: The folder's name, which begins with a dot.
        """
        with fence:
            os.close(
                os.open(
                    revision + ASKED,
                    os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK,
                    0o664,
                    dir_fd=self.store,
                )
            )
            os.rename(prepared, revision, src_dir_fd=self.store, dst_dir_fd=self.store)

    def asked(self) -> list[str]:
        """
        Return the requested snapshots, those fetched or used most recently first.
        """
        return [name for name in self.revisions() if stat_in(name + ASKED, self.store)]

    def prune(self, published: str, fence: Fence) -> list[str]:
        """
        Remove the snapshots that need not be kept; return the kept ones.

        Args:
            published: Is kept, and so is the snapshot that the link shows, if that was
                changed.
        """
        kept = [name for name in {published, self.current()} if name]
        older = [revision for revision in self.revisions() if revision not in kept]
        asked = [name for name in older if stat_in(name + ASKED, self.store)]
        others = [revision for revision in older if revision not in asked]
        # If nothing is shown, one of the others is all that is left of the last good
        # state.
        spared = {
            *asked[: self.asked_count],
            *(others[: self.retain_count] if kept else others),
        }
        for revision in older:
            is_young = self._is_young(revision)
            if is_young or revision in spared or not self.remove(revision, fence):
                kept.append(revision)
        return kept

    def _is_young(self, revision: str) -> bool:
        """
        Whether a snapshot was replaced, fetched or in use less than `retain_seconds`
        ago.
        """
        now = time.time()
        with opened(revision, self.store) as folder:
            is_in_use = not _lock_alone(folder)
            replaced_at = os.fstat(folder).st_mtime
        if replaced_at <= now and not is_in_use:
            return now - replaced_at < self.retain_seconds
        # It is in use, or the clock was set back: its age restarts.
        with suppress(PermissionError):  # another user's
            os.utime(revision, (now, now), dir_fd=self.store, follow_symlinks=False)
        return True

    def drop_oldest(self, fence: Fence) -> str:
        """
        Remove a snapshot before its retention ends, and return it: a requested one,
        because it can be requested again, or else the one that was replaced first.

        Returns an empty text if all are current or in use. While the link shows nothing,
        only requested ones are removed: one of the others is the last good one.
        """
        current = self.current()
        asked = self.asked()
        others = [name for name in self.revisions() if name not in (current, *asked)]
        older = [*others, *asked] if current else asked
        return next((name for name in reversed(older) if self.remove(name, fence)), "")

    def remove(self, revision: str, fence: Fence) -> bool:
        """
        Remove a snapshot, unless the link shows it or it is in use; return whether it
        was removed.
        """
        if not self.has(revision):
            return False
        gone = aside_name(revision)
        with opened(revision, self.store) as folder, fence:
            if revision == self.current() or not _lock_alone(folder):
                return False
            # Renamed first, so that a half-removed folder can never count as a
            # snapshot.
            os.rename(revision, gone, src_dir_fd=self.store, dst_dir_fd=self.store)
            with suppress(FileNotFoundError):
                os.unlink(revision + ASKED, dir_fd=self.store)
        remove_tree(gone, self.store)
        return True

    def sweep(self) -> None:
        """
        Remove copies that a crash left half created or half removed, links not yet
        renamed, and the marks of requested snapshots that are gone.
        """
        with suppress(OSError):
            os.unlink(self.link + BESIDE, dir_fd=self.root)
        for name in os.listdir(self.store):
            if name.startswith(".") or (
                name.endswith(ASKED) and not self.has(name.removesuffix(ASKED))
            ):
                remove_tree(name, self.store)

    def _link(self) -> str:
        """
        Return the target of the link; empty if the link does not exist.
        """
        try:
            return os.readlink(self.link, dir_fd=self.root)
        except OSError:  # missing, or not a link
            return ""

    def make_way(self, *, is_first: bool) -> None:
        """
        Remove an empty folder in the link's place, as a mount or a subPath leaves
        behind.

        Args:
            is_first: The link was never created here, so a file in its place is a
                foreign one.

        Raises:
            SidecarError: ``link_blocked``: the path of the link is occupied.
        """
        found = stat_in(self.link, self.root)
        leads_to = self._link()
        # Of a link that led to a snapshot once, somebody may have changed where to.
        is_foreign = not leads_to or (
            is_first and os.path.dirname(leads_to) != self.store_path
        )
        try:
            if found and stat.S_ISDIR(found.st_mode):
                os.rmdir(self.link, dir_fd=self.root)
            elif found and is_foreign:
                raise FileExistsError(
                    errno.EEXIST, "it is not a link of this sidecar", self.link
                )
        except OSError as error:
            raise SidecarError(
                "link_blocked",
                f"{self.link!r} cannot be replaced with the link: {error.strerror}",
                LINK_ADVICE,
            ) from error


def is_name(revision: str) -> bool:
    """
    Whether a text is a valid name of a snapshot; it may come from a file that others
    can write.
    """
    with suppress(UnicodeError):
        return bool(re.fullmatch(rb"[^./\0][^/\0]*", os.fsencode(revision)))
    return False


def make_symlink(path: str, name: str, *, dir_fd: int | None = None) -> None:
    """
    Create a symlink in a folder that this process can write to.

    Raises:
        OSError: The disk is full, or the file system has no symlinks.
    """
    with needing("symlinks"):
        os.symlink(path, name, dir_fd=dir_fd)


def _lock_alone(folder: int) -> bool:
    """
    Lock an open folder exclusively until it is closed; False while another process uses
    it.
    """
    with suppress(OSError):  # no locks on folders (NFS): no other process can hold one
        return take_flock(folder)
    return True


def aside_name(name: str) -> str:
    """
    Return a temporary name that is not a snapshot's, and that no other process or cycle
    uses.
    """
    return f".{name}.{os.urandom(8).hex()}"


# --- trees in open folders: removed, or linked file by file; no symlink is followed


@contextmanager
def opened(
    name: str, dir_fd: int | None = None, flags: int = FOLDER_FLAGS
) -> Iterator[int]:
    """
    Open a folder, or a file with other flags, and close it afterwards.
    """
    fd = os.open(name, flags, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def remove_tree(name: str, folder: int) -> None:
    """
    Remove a file or a whole folder in an open folder, if it exists.

    Content that cannot be removed (a bytecode folder of another user) stays and is
    logged.

    Raises:
        OSError: A file cannot be removed.
    """
    found = stat_in(name, folder)
    if found is None:
        return
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(name, dir_fd=folder)
        return
    shutil.rmtree(name, ignore_errors=True, dir_fd=folder)
    if stat_in(name, folder):
        log.warning("leftover_kept", name=name)


def link_tree(
    source: int, target: int, paths: Iterable[str], *, fsync: bool, above: str = ""
) -> Iterator[tuple[str, os.stat_result]]:
    """
    Link files of an open folder into another, which has none of them; copy those that
    cannot be hard-linked, and omit those that cannot be read, or are in a folder that
    is a symlink now.

    Args:
        above: What all paths begin with: the place of both folders, with a slash at the
            end.

    The caller removes no folder meanwhile: it may be open here.

    Yields:
        Each path with the lstat result of the new file, which may be of any kind: the
        caller compares.

    Raises:
        OSError: The disk is full; files created so far stay.
    """
    folders: dict[str, list[str]] = {}
    for path in paths:
        name, slash, _ = path[len(above) :].partition("/")
        if slash:
            folders.setdefault(name, []).append(path)
            continue
        try:
            link_file(name, source, name, target)
            yield path, os.lstat(name, dir_fd=target)
        except _NOT_OURS:
            continue
    for name, inside in folders.items():
        with suppress(*_NOT_OURS), opened(name, source) as old:
            with suppress(FileExistsError):
                os.mkdir(name, FOLDER_MODE, dir_fd=target)
            with opened(name, target) as new:
                yield from link_tree(
                    old, new, inside, fsync=fsync, above=f"{above}{name}/"
                )
    if fsync:
        sync_folder(target)


def link_file(source: str, old: int, target: str, new: int) -> None:
    """
    Create a hard link, or a copy with the same mode and time if that is impossible; a
    symlink is not followed.

    Raises:
        FileNotFoundError: The source is missing, or neither a regular file nor a
            symlink.
        OSError: The target exists, or the disk is full.
    """
    try:
        os.link(source, target, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        try:
            leads_to = os.readlink(source, dir_fd=old)
        except OSError:  # not a symlink
            _copy_file(source, old, target, new)
        else:
            os.symlink(leads_to, target, dir_fd=new)


def _copy_file(
    source: str, source_folder: int, target: str, target_folder: int
) -> None:
    with opened(source, source_folder, OLD_FILE) as old:
        found = os.fstat(old)
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(errno.ENOENT, "not a regular file", source)
        mode = stat.S_IMODE(found.st_mode)
        new = os.open(target, NEW_FILE, mode, dir_fd=target_folder)
        with open(new, "wb") as copy, open(old, "rb", closefd=False) as original:
            shutil.copyfileobj(original, copy)
            copy.flush()
            set_mode(new, mode)
            # Where files belong to somebody else, the copy is as good as a new file.
            with suppress(PermissionError):
                os.utime(new, ns=(found.st_mtime_ns, found.st_mtime_ns))
            os.fsync(new)  # unconditional, because copies are rare
