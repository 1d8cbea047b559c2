"""
The files of a commit: which of them changed, and all of them as a snapshot.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress

from git_sync_wrapper.git import ask
from sidecar_runtime.volume.files import read_file, write_file
from sidecar_runtime.volume.trees import FOLDER_FLAGS, FOLDER_MODE, link_tree

ENGINE_ROOT = ".git-sync"
"""git-sync's own root, below the one that consumers mount."""
GIT = ".git"
# What it says decides about the content of other files.
ATTRIBUTES = ".gitattributes"


def changed_files(
    git: str, environ: Mapping[str, str], worktree: str, before: str, after: str
) -> list[str]:
    """
    Return the files of a worktree that are new or changed since another commit.

    Where git cannot tell (the other commit is no longer there) all of them are.
    """
    every = all_files(worktree)
    if not before:
        return every
    difference = ("diff-tree", "-r", "-z", "--name-only", "--no-renames", before, after)
    said = ask(git, environ, worktree, *difference)
    if said is None:
        return every
    names = {os.fsdecode(name) for name in said.split(b"\0") if name}
    if any(os.path.basename(name) == ATTRIBUTES for name in names):
        return every
    return [path for path in every if _is_in(path, names)]


def _is_in(path: str, names: set[str]) -> bool:
    """
    Whether a file, or the submodule that it is in, is named.
    """
    while path:
        if path in names:
            return True
        path = os.path.dirname(path)
    return False


def all_files(worktree: str) -> list[str]:
    """
    Return all files of a worktree, without git's own.
    """
    return [path for path, _ in _files(worktree)]


def links_to(worktree: str, paths: Collection[str]) -> list[str]:
    """
    Return the links of a worktree that may show something new when these files are: the others.

    Where one of them is a link itself, that is all, as links lead through links.
    """
    named = set(paths)
    links = {path for path, is_link in _files(worktree) if is_link}
    if not named & links:
        here = os.path.realpath(worktree)
        targets = {os.path.join(here, path) for path in named}
        links = {path for path in links if os.path.realpath(os.path.join(here, path)) in targets}
    return sorted(links - named)


def _files(worktree: str, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """
    Yield each file of a worktree, without git's own, and whether it is a link.
    """
    with os.scandir(os.path.join(worktree, prefix)) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(worktree, f"{prefix}{entry.name}/")
        elif entry.name != GIT:
            yield prefix + entry.name, entry.is_symlink()


def size_bytes(folder: str) -> int:
    """
    Return how much the files of a folder hold.
    """
    return sum(
        os.lstat(os.path.join(path, name)).st_size
        for path, _, names in os.walk(folder)
        for name in names
    )


def taken(name: str, folder: int) -> array[int]:
    """
    Return the inode of each file of a tree in an open folder, and after each what it takes on disk.
    """
    files = array("Q")
    with suppress(FileNotFoundError):  # removed by hand
        for _, _, names, inside in os.fwalk(name, dir_fd=folder):
            for path in names:
                found = os.stat(path, dir_fd=inside, follow_symlinks=False)
                files.extend((found.st_ino, found.st_blocks * 512))
    return files


def fill(worktree: str, folder: int) -> None:
    """
    Put a worktree into an open, empty folder, as hard links.
    """
    files: list[str] = []
    empty: list[str] = []
    for path, names, plain in os.walk(worktree):
        inside = os.path.relpath(path, worktree)
        prefix = "" if inside == "." else f"{inside}/"
        links = [name for name in names if os.path.islink(os.path.join(path, name))]
        files += [prefix + name for name in (*plain, *links) if name != GIT]
        if not names and not plain and prefix:
            empty.append(inside)
    source = os.open(worktree, FOLDER_FLAGS)
    try:
        for _ in link_tree(source, folder, files, fsync=False):
            pass
        for path in empty:
            _make_folders(path, folder)
    finally:
        os.close(source)
    fill_pointers(worktree, folder)


def fill_pointers(worktree: str, folder: int) -> None:
    """
    Put the `.git` files of a worktree, and of its submodules, into an open folder.

    They lead to git-sync's repository by a relative path; that repository is one folder further
    away from a snapshot.
    """
    for path, _, plain in os.walk(worktree):
        if GIT in plain:
            inside = os.path.relpath(path, worktree)
            _make_folders(inside, folder)
            content = read_file(os.path.join(path, GIT))
            name = os.path.join(inside, GIT)
            write_file(name, _lead_further(content), 0o644, fsync=False, dir_fd=folder)


def _lead_further(pointer: bytes) -> bytes:
    """
    Return what a `.git` file says in a snapshot: ``gitdir: ../../.git-sync/.git/…``.
    """
    start = b"gitdir: "
    path = pointer.removeprefix(start)
    ups = 0
    while path.startswith(b"../"):
        path, ups = path[3:], ups + 1
    if not pointer.startswith(start) or not ups:
        return pointer
    return start + b"../" * ups + ENGINE_ROOT.encode() + b"/" + path


def _make_folders(path: str, folder: int) -> None:
    for end in [place for place, letter in enumerate(path) if letter == "/"] + [len(path)]:
        with suppress(FileExistsError):
            if path[:end]:
                os.mkdir(path[:end], FOLDER_MODE, dir_fd=folder)
