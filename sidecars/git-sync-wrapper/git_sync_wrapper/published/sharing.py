"""
Share files that two commits have in common, as hard links.

Files are compared by content: equal blobs may be checked out differently (`.gitattributes`), and
whoever can write to the volume may have changed the published files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import zip_longest

from git_sync_wrapper.published.tree import entries, opened, put_pointer
from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.files import stat_in
from sidecar_runtime.volume.trees import FOLDER_MODE, NO_LINK, link_file, remove_tree

FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# A larger buffer would be a separate memory mapping for each small file.
BLOCK_BYTES = 64 << 10
# In the store, where the next start removes leftovers of a crash.
ASIDE = ".shared"
# The kubelet adds these rights to each file when it mounts a volume with an fsGroup, and a setgid
# bit to each folder: kubernetes/kubernetes, pkg/volume/volume_linux.go.
GROUP_RIGHTS = 0o660
# Of a folder: without these, consumers do not find the files in it.
READING = 0o555


def share(
    checkout: int, shown: int, store: int, prefix: str = ""
) -> Iterator[tuple[str, os.stat_result]]:
    """
    Replace files of a checkout by hard links to the published commit's, if content and mode match.

    Args:
        store: An open folder of the same volume, for a temporary name.

    Yields:
        Each path that is shared now, with the earlier stat result of the published file.

    Raises:
        OSError: The disk is full, or fails; the content of the checkout is unchanged.
    """
    for entry in entries(checkout):
        name = entry.name
        if entry.is_dir(follow_symlinks=False):
            with ExitStack() as stack:
                try:
                    inner_shown = stack.enter_context(opened(name, shown))
                except OSError:
                    continue  # no such folder, or it cannot be read
                inner = stack.enter_context(opened(name, checkout))
                yield from share(inner, inner_shown, store, f"{prefix}{name}/")
            continue
        mine, theirs = stat_in(name, checkout), stat_in(name, shown)
        if (
            mine is not None
            and theirs is not None
            and _is_equal(name, checkout, mine, shown, theirs)
            and (
                # If they are one file already, rename(2) would keep both names.
                os.path.samestat(mine, theirs) or _put(name, shown, checkout, store, may_copy=False)
            )
        ):
            yield prefix + name, theirs


def differing(checkout: int, shown: int | None, prefix: str = "") -> Iterator[str]:
    """
    Yield each file of a checkout whose content or mode differs from the published commit's.

    Args:
        shown: None if there is nothing to compare with: then every file differs.

    Raises:
        OSError: A file cannot be read.
    """
    for entry in entries(checkout):
        name = entry.name
        if entry.is_dir(follow_symlinks=False):
            with ExitStack() as stack:
                inner, inner_shown = stack.enter_context(opened(name, checkout)), None
                if shown is not None:
                    with suppress(OSError):  # no such folder, or it cannot be read
                        inner_shown = stack.enter_context(opened(name, shown))
                yield from differing(inner, inner_shown, f"{prefix}{name}/")
            continue
        mine = stat_in(name, checkout)
        theirs = stat_in(name, shown) if shown is not None else None
        if (
            mine is None
            or theirs is None
            or shown is None
            or not _is_equal(name, checkout, mine, shown, theirs)
        ):
            yield prefix + name


def restore(
    checkout: int, shown: int, older: Sequence[int], store: int, fence: Fence, prefix: str = ""
) -> Iterator[str]:
    """
    Replace the files of a snapshot that differ from a checkout, each with a new file, and open
    folders that were closed.

    Args:
        older: The open folders of snapshots that may share damaged files.
        store: As for :func:`share`.

    Yields:
        Each path that was replaced or opened.

    Raises:
        OSError: The disk is full, or fails, or a folder belongs to another user.
        CycleAbandoned: The fence was revoked; each replaced file is whole.
    """
    mode = os.fstat(shown).st_mode
    if lacking := rights_to_read(store) & ~mode:
        with fence:
            os.fchmod(shown, stat.S_IMODE(mode) | lacking)
        yield prefix or "."
    put_pointer(checkout, shown)
    for entry in entries(checkout):
        name = entry.name
        if entry.is_dir(follow_symlinks=False):
            with fence:
                _make_folder(name, shown)
            with ExitStack() as stack:
                inner, inner_shown = (
                    stack.enter_context(opened(name, above)) for above in (checkout, shown)
                )
                inner_older = []
                for folder in older:
                    with suppress(OSError):
                        inner_older.append(stack.enter_context(opened(name, folder)))
                inside = f"{prefix}{name}/"
                yield from restore(inner, inner_shown, inner_older, store, fence, inside)
            continue
        mine, theirs = stat_in(name, checkout), stat_in(name, shown)
        if mine is None or (theirs and _is_equal(name, checkout, mine, shown, theirs)):
            continue
        sharers = [
            folder
            for folder in older
            if theirs and (found := stat_in(name, folder)) and os.path.samestat(theirs, found)
        ]
        for folder in (shown, *sharers):
            with fence:
                _put(name, checkout, folder, store, may_copy=True)
        yield prefix + name


def rights_to_read(store: int) -> int:
    """
    Return the rights that a snapshot's folders must have: those of the store to read, because not
    every file system keeps modes.
    """
    return os.fstat(store).st_mode & READING


def _is_equal(name: str, one: int, left: os.stat_result, other: int, right: os.stat_result) -> bool:
    """
    Whether a name has the same mode and content, or link target, in two open folders. What cannot
    be read in the other, published one differs.
    """
    if left.st_size != right.st_size or not _is_mode(right.st_mode, left.st_mode, other):
        return False
    if stat.S_ISLNK(left.st_mode):
        return os.readlink(name, dir_fd=one) == os.readlink(name, dir_fd=other)
    try:
        blocks = zip_longest(blocks_of(name, one), _readable(name, other), fillvalue=b"")
        return all(mine == theirs for mine, theirs in blocks)
    except PermissionError:
        return False


def _readable(name: str, folder: int) -> Iterator[bytes | None]:
    """
    Yield the blocks of a published file, then None if the rest cannot be read (a bad disk block).
    """
    try:
        yield from blocks_of(name, folder)
    except OSError:
        yield None


def blocks_of(name: str, folder: int) -> Iterator[bytes]:
    """
    Yield the content of a file in an open folder, in blocks.
    """
    fd = os.open(name, FILE_FLAGS, dir_fd=folder)
    try:
        while block := os.read(fd, BLOCK_BYTES):
            yield block
    finally:
        os.close(fd)


def _is_mode(found: int, wanted: int, folder: int) -> bool:
    """
    Whether a mode is the wanted mode, or that plus the rights that a mount adds.
    """
    if found == wanted:
        return True
    return found == wanted | GROUP_RIGHTS and bool(os.fstat(folder).st_mode & stat.S_ISGID)


def _make_folder(name: str, above: int) -> None:
    """
    Create a folder if it does not exist; remove anything else with its name.
    """
    found = stat_in(name, above)
    if found is None or not stat.S_ISDIR(found.st_mode):
        remove_tree(name, above)
        os.mkdir(name, FOLDER_MODE, dir_fd=above)


def _put(name: str, source: int, target: int, store: int, *, may_copy: bool) -> bool:
    """
    Replace a file, or anything else, with a hard link in one step; return whether it was replaced.
    """
    try:
        os.link(name, ASIDE, src_dir_fd=source, dst_dir_fd=store, follow_symlinks=False)
    except FileExistsError:  # a crash left it
        os.unlink(ASIDE, dir_fd=store)
        return _put(name, source, target, store, may_copy=may_copy)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        if not may_copy:
            return False
        link_file(name, source, ASIDE, store)
    try:
        os.rename(ASIDE, name, src_dir_fd=store, dst_dir_fd=target)
    except IsADirectoryError:
        remove_tree(name, target)
        os.rename(ASIDE, name, src_dir_fd=store, dst_dir_fd=target)
    return True
