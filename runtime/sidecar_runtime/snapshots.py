"""
Snapshots: complete copies of revisions side by side, and one link that shows the current one.

``ROOT/<link>`` is a relative symlink to ``ROOT/<store>/<revision>``, swapped by rename: who
resolves it once sees one revision, whatever happens afterwards. A copy is made of hard links, so
it costs names and no data. Everything is done inside folders that are held open, and no symlink
is followed, because others may be able to write to the volume.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger

FOLDER_MODE = 0o775
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# No hard link there: protected_hardlinks or a file system without them, too many links to one
# file, another mount. https://docs.kernel.org/admin-guide/sysctl/fs.html#protected-hardlinks
_COPY_INSTEAD = {errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS}
_OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

# One count for the process: an abandoned cycle must not meet the names of its successor.
_NUMBERS = itertools.count()

log = get_logger("snapshots")


class Snapshots:
    """
    The snapshots of one volume.

    Names that begin with a dot are copies in the making or on their way out; what a crash leaves
    of them is removed by :meth:`sweep`.

    Args:
        root: The open folder that holds the link.
        store: The open folder that holds the snapshots.
        store_path: From the root to the store, for the link.
        link: The link's name.
        retain_count: So many of the older ones stay.
        retain_seconds: And all that were replaced less than this ago.
        fsync: Flush names to disk before the link shows them, and the link itself.

    Raises:
        OSError: From every method; what the link shows is untouched.
    """

    def __init__(
        self,
        root: int,
        store: int,
        store_path: str,
        *,
        link: str,
        retain_count: int = 0,
        retain_seconds: float = 0.0,
        fsync: bool = False,
    ) -> None:
        self._root = root
        self._store = store
        self._store_path = store_path
        self._link = link
        self._retain_count = retain_count
        self._retain_seconds = retain_seconds
        self._fsync = fsync

    def current(self) -> str:
        """
        Return the revision that the link shows; empty where it shows none of ours.
        """
        try:
            path = os.readlink(self._link, dir_fd=self._root)
        except OSError:  # missing, or not a link
            return ""
        folder, _, revision = path.rpartition("/")
        return revision if folder == self._store_path and self.has(revision) else ""

    def has(self, revision: str) -> bool:
        """
        Whether there is a snapshot of a revision.
        """
        if not is_name(revision):
            return False
        try:
            found = os.stat(revision, dir_fd=self._store, follow_symlinks=False)
        except OSError:
            return False
        return stat.S_ISDIR(found.st_mode)

    def is_folder(self, revision: str, folder: int) -> bool:
        """
        Whether the snapshot of a revision is still the folder that was opened as it.
        """
        try:
            found = os.stat(revision, dir_fd=self._store, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(found, os.fstat(folder))

    def revisions(self) -> list[str]:
        """
        Return all snapshots, the one replaced last first; the current one is anywhere.
        """
        dated = []
        for name in os.listdir(self._store):
            if self.has(name):
                with suppress(FileNotFoundError):
                    found = os.stat(name, dir_fd=self._store, follow_symlinks=False)
                    dated.append((found.st_mtime_ns, name))
        return [name for _, name in sorted(dated, reverse=True)]

    def add(self, revision: str, fill: Callable[[int], None], fence: Fence) -> None:
        """
        Make a snapshot: filled aside, then renamed. Nobody sees it yet.

        Args:
            revision: One that begins with a dot is for the caller alone, until the next start.
            fill: Puts all files into the open folder.
        """
        if not is_name(revision.removeprefix(".")):  # refused long before; this is the last door
            raise ValueError(f"not the name of a snapshot: {revision!r}")
        name = _aside(revision)
        os.mkdir(name, FOLDER_MODE, dir_fd=self._store)
        try:
            folder = os.open(name, FOLDER_FLAGS, dir_fd=self._store)
            try:
                fill(folder)
            finally:
                os.close(folder)
            with fence:
                if not self.has(revision):  # what is no folder there is nobody's snapshot
                    remove_tree(revision, self._store)
                os.rename(name, revision, src_dir_fd=self._store, dst_dir_fd=self._store)
        except BaseException:
            remove_tree(name, self._store)
            raise

    def show(self, revision: str, fence: Fence, *, is_first: bool = False) -> None:
        """
        Let the link show a snapshot, in one step.

        Args:
            is_first: Nothing was ever shown here, so what is in the link's place is not ours.

        Raises:
            SidecarError: ``link_blocked``: something of somebody else is where the link should be.
        """
        temporary = _aside(self._link)
        if self._fsync:
            os.fsync(self._store)
        with fence:
            before = self.current()
            if before and before != revision:
                # From now on it is an older one; its age counts from here.
                with suppress(OSError):
                    os.utime(before, dir_fd=self._store, follow_symlinks=False)
            self._make_way(is_first=is_first)
            os.symlink(f"{self._store_path}/{revision}", temporary, dir_fd=self._store)
            try:
                os.rename(temporary, self._link, src_dir_fd=self._store, dst_dir_fd=self._root)
            except OSError:
                os.unlink(temporary, dir_fd=self._store)
                raise
            if self._fsync:
                os.fsync(self._root)

    def prune(self, published: str, fence: Fence) -> list[str]:
        """
        Remove the snapshots that need not stay; return those that do.

        Args:
            published: Stays, and what the link shows, should somebody have turned it.
        """
        kept = [revision for revision in dict.fromkeys((published, self.current())) if revision]
        older = [revision for revision in self.revisions() if revision not in kept]
        now = time.time()
        for place, revision in enumerate(older):
            found = os.stat(revision, dir_fd=self._store, follow_symlinks=False)
            if found.st_mtime > now:  # the clock was set back: its age counts anew
                os.utime(revision, dir_fd=self._store, follow_symlinks=False)
            if place < self._retain_count or now - found.st_mtime < self._retain_seconds:
                kept.append(revision)
                continue
            gone = _aside(revision)
            with fence:
                if revision == self.current():
                    kept.append(revision)
                    continue
                # In one step, so that half of it can never be taken for a snapshot.
                os.rename(revision, gone, src_dir_fd=self._store, dst_dir_fd=self._store)
            remove_tree(gone, self._store)
        return kept

    def sweep(self) -> None:
        """
        Remove what a crash left: copies in the making, and on their way out.
        """
        for name in os.listdir(self._store):
            if name.startswith("."):
                remove_tree(name, self._store)

    def remove_all(self) -> None:
        """
        Remove the link, if it is ours, and then all snapshots.
        """
        if self._is_ours():
            os.unlink(self._link, dir_fd=self._root)
        for name in os.listdir(self._store):
            remove_tree(name, self._store)

    def _is_ours(self) -> bool:
        """
        Whether the link leads into the store, be there what may.
        """
        try:
            path = os.readlink(self._link, dir_fd=self._root)
        except OSError:
            return False
        return path.rpartition("/")[0] == self._store_path

    def _make_way(self, *, is_first: bool) -> None:
        """
        Remove an empty folder in the link's place; a mount or a subPath leaves such behind.
        """
        try:
            found = os.stat(self._link, dir_fd=self._root, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                os.rmdir(self._link, dir_fd=self._root)
            elif is_first and not self._is_ours():
                raise FileExistsError(errno.EEXIST, "it is somebody else's file", self._link)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise SidecarError(
                "link_blocked",
                f"{self._link!r} cannot make way for the link: {error.strerror}",
                "Move it away, and mount nothing there: consumers mount the folder above.",
            ) from error


def is_name(revision: str) -> bool:
    """
    Whether it can be the name of a snapshot; it may come from a file that anybody can write.
    """
    try:
        name = os.fsencode(revision)
    except UnicodeError:
        return False
    return bool(name) and not name.startswith(b".") and b"/" not in name and b"\0" not in name


def _aside(name: str) -> str:
    """
    Return a name that nobody takes for a snapshot, and no other thread or process has.
    """
    return f".{name}.{os.getpid()}.{next(_NUMBERS)}"


def remove_tree(name: str, folder: int) -> None:
    """
    Remove a file or a whole folder in an open folder, if it is there.

    What cannot be removed (a bytecode folder of another user's) stays, and is named.
    """
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(name, dir_fd=folder)
        return

    def keep(_: object, path: str, why: BaseException | tuple[Any, BaseException, Any]) -> None:
        error = why[1] if isinstance(why, tuple) else why
        if not isinstance(error, FileNotFoundError):
            log.warning("leftover_kept", name=path, error=str(error))

    if sys.version_info >= (3, 12):
        shutil.rmtree(name, dir_fd=folder, onexc=keep)
    else:
        shutil.rmtree(name, dir_fd=folder, onerror=keep)


def link_tree(
    source: int, target: int, paths: Iterable[str], *, fsync: bool
) -> Iterator[tuple[str, os.stat_result]]:
    """
    Put files of one open folder into another, empty one, as hard links; copies where none can be.

    Yields:
        Each path with what stat says of the new name. Somebody may have changed the source since
        it was looked at: the caller compares.

    Raises:
        OSError: A file is missing, or the disk is full; what was made so far stays.
    """
    inside: list[str] = []
    pairs = [(source, target)]
    try:
        # In this order all that is in a folder comes in one go.
        for path in sorted(paths):
            *folders, name = path.split("/")
            while inside != folders[: len(inside)]:
                inside.pop()
                _close(pairs.pop(), fsync)
            for folder in folders[len(inside) :]:
                pairs.append(_enter(folder, *pairs[-1]))
                inside.append(folder)
            from_folder, to_folder = pairs[-1]
            link_file(name, from_folder, name, to_folder)
            yield path, os.stat(name, dir_fd=to_folder, follow_symlinks=False)
    finally:
        while len(pairs) > 1:
            _close(pairs.pop(), fsync)
    if fsync:
        os.fsync(target)


def _enter(folder: str, source: int, target: int) -> tuple[int, int]:
    """
    Open a folder of the source, and make and open the same in the target.
    """
    inner_source = os.open(folder, FOLDER_FLAGS, dir_fd=source)
    try:
        os.mkdir(folder, FOLDER_MODE, dir_fd=target)
        return inner_source, os.open(folder, FOLDER_FLAGS, dir_fd=target)
    except OSError:
        os.close(inner_source)
        raise


def _close(pair: tuple[int, int], fsync: bool) -> None:
    source, target = pair
    os.close(source)
    try:
        if fsync:
            os.fsync(target)
    finally:
        os.close(target)


def link_file(source: str, source_folder: int, target: str, target_folder: int) -> None:
    """
    Make a hard link, or a copy with the same mode and time where there can be none.

    Raises:
        FileNotFoundError: The source is missing, or not a regular file.
        OSError: The target exists, or the disk is full.
    """
    try:
        os.link(
            source,
            target,
            src_dir_fd=source_folder,
            dst_dir_fd=target_folder,
            follow_symlinks=False,
        )
    except OSError as error:
        if error.errno not in _COPY_INSTEAD:
            raise
        _copy_file(source, source_folder, target, target_folder)


def _copy_file(source: str, source_folder: int, target: str, target_folder: int) -> None:
    fd = os.open(source, _OLD_FILE, dir_fd=source_folder)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, "not a regular file", source)
    mode = stat.S_IMODE(found.st_mode)
    with (
        open(fd, "rb") as original,
        open(os.open(target, _NEW_FILE, mode, dir_fd=target_folder), "wb") as copy,
    ):
        shutil.copyfileobj(original, copy)
        copy.flush()
        with suppress(PermissionError):  # no modes of its own: SMB, some FUSE
            os.fchmod(copy.fileno(), mode)
        os.utime(copy.fileno(), ns=(found.st_mtime_ns, found.st_mtime_ns))
        os.fsync(copy.fileno())  # rare enough not to ask whether it is wanted
