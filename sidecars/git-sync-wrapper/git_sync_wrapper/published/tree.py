"""
The files of a commit: list those that changed, and copy them all into a snapshot.

Trees are walked through open folders, because a path may be longer than the kernel accepts.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress

from git_sync_wrapper.git import ask
from sidecar_runtime.volume.files import FACTS_BYTES, read_file, write_file
from sidecar_runtime.volume.trees import FOLDER_FLAGS, FOLDER_MODE, link_file

ENGINE_ROOT = ".git-sync"
"""git-sync's own root, below the root that consumers mount."""
GIT = ".git"
# This file can change how other files are checked out.
ATTRIBUTES = ".gitattributes"


def changed_files(
    git: str, environ: Mapping[str, str], worktree: str, before: str, after: str
) -> list[str] | None:
    """
    Return the files of a worktree that are new or changed since another commit.

    None if git cannot tell: it lacks the other commit, or `.gitattributes` have changed.

    Raises:
        OSError: The worktree cannot be read.
    """
    difference = ("diff-tree", "-r", "-z", "--name-only", "--no-renames", before, after)
    said = ask(git, environ, worktree, *difference)
    if said is None:
        return None
    names = {os.fsdecode(name) for name in said.split(b"\0") if name}
    if any(os.path.basename(name) == ATTRIBUTES for name in names):
        return None
    with opened(worktree) as folder:
        return sorted(path for path, _, _ in walk(folder) if _is_in(path, names))


def _is_in(path: str, names: set[str]) -> bool:
    """
    Whether a file, or a submodule that contains it, is in a set of names.
    """
    while path:
        if path in names:
            return True
        path = os.path.dirname(path)
    return False


def links_to(worktree: str, paths: Collection[str]) -> list[str]:
    """
    Return the other links of a worktree that may lead to one of these changed files.

    If one of these files is a link itself, return all other links: links lead through links.

    Raises:
        OSError: The worktree cannot be read.
    """
    named = set(paths)
    with opened(worktree) as folder:
        links = {path for path, entry, _ in walk(folder) if entry.is_symlink()}
    if not named & links:
        here = os.path.realpath(worktree)
        targets = {os.path.join(here, path) for path in named}
        links = {path for path in links if os.path.realpath(os.path.join(here, path)) in targets}
    return sorted(links - named)


def walk(folder: int, prefix: str = "") -> Iterator[tuple[str, os.DirEntry[str], int]]:
    """
    Yield each file below an open folder, except git's own: its path, its directory entry, and the
    open folder that contains it. Symlinks are not followed.

    Raises:
        OSError: A folder cannot be read.
    """
    for entry in entries(folder):
        if not entry.is_dir(follow_symlinks=False):
            yield prefix + entry.name, entry, folder
            continue
        with opened(entry.name, folder) as inner:
            yield from walk(inner, f"{prefix}{entry.name}/")


def entries(folder: int) -> list[os.DirEntry[str]]:
    """
    Return the directory entries of an open folder, except git's own.
    """
    with os.scandir(folder) as found:
        return [entry for entry in found if entry.name != GIT]


@contextmanager
def opened(name: str, above: int | None = None, flags: int = FOLDER_FLAGS) -> Iterator[int]:
    """
    Open a folder or file, relative to an open folder; the context manager closes it.
    """
    fd = os.open(name, flags, dir_fd=above)
    try:
        yield fd
    finally:
        os.close(fd)


def taken(name: str, folder: int) -> array[int]:
    """
    Return the inode of each file of a tree in an open folder, each followed by its bytes on disk.
    """
    files = array("Q")
    with suppress(FileNotFoundError, PermissionError):  # removed, or closed, by hand
        for _, _, names, inside in os.fwalk(name, dir_fd=folder):
            for path in names:
                found = os.stat(path, dir_fd=inside, follow_symlinks=False)
                files.extend((found.st_ino, found.st_blocks * 512))
    return files


def fill(worktree: int, snapshot: int) -> None:
    """
    Link all files of an open worktree into an open, empty folder.

    Raises:
        OSError: Something cannot be read, or the disk is full.
    """
    put_pointer(worktree, snapshot)
    for entry in entries(worktree):
        name = entry.name
        if entry.is_dir(follow_symlinks=False):
            os.mkdir(name, FOLDER_MODE, dir_fd=snapshot)
            with opened(name, worktree) as source, opened(name, snapshot) as target:
                fill(source, target)
        else:
            link_file(name, worktree, name, snapshot)


def put_pointer(worktree: int, snapshot: int) -> None:
    """
    Copy the `.git` file of an open folder of a worktree, if it has one, into the snapshot's folder.

    Its relative path to git-sync's repository is adapted: a snapshot is in another folder.
    """
    with suppress(FileNotFoundError):
        content = read_file(GIT, FACTS_BYTES, dir_fd=worktree)
        write_file(GIT, _lead_further(content), 0o644, fsync=False, dir_fd=snapshot)


def _lead_further(pointer: bytes) -> bytes:
    """
    Return the content of a `.git` file for a snapshot: ``gitdir: ../../.git-sync/.git/…``.
    """
    start = b"gitdir: "
    path = pointer.removeprefix(start)
    ups = 0
    while path.startswith(b"../"):
        path, ups = path[3:], ups + 1
    if not pointer.startswith(start) or not ups:
        return pointer
    return start + b"../" * ups + ENGINE_ROOT.encode() + b"/" + path
