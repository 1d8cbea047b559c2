"""
Remove obstacles from which git-sync does not recover, before each of its runs.

The caller holds the lock of the volume, and no git of ours is alive: every lock file is stale. Each
of these obstacles stopped a plain git-sync 4.7.1 for good, or made it discard its repository: a
lock file that a killed git left behind (kubernetes/git-sync#914), the temporary link of a killed
publish, a link that is a folder. Leftovers of a killed fetch only take up space.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress

from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.errors import explained

CANDIDATE = "candidate"
TEMPORARY_LINK = "tmp-link"
GIT = ".git"
WORKTREES = ".worktrees"
_OBJECTS = "objects"
# git's names for unfinished objects: gitformat-pack(5), object-file.c, and fetch's quarantine.
_UNFINISHED = ("tmp_obj_", "tmp_pack_", "tmp_idx_", "tmp_rev_", "tmp_objdir-")

log = get_logger("heal")


def heal(root: str) -> list[str]:
    """
    Remove all obstacles; return their paths, relative to git-sync's root.

    Raises:
        OSError: Something cannot be removed.
    """
    removed = []
    for path in _obstacles(root):
        _remove(path)
        removed.append(os.path.relpath(path, root))
    if removed:
        log.warning("repository_healed", removed=removed)
    return removed


def throw_away(root: str) -> None:
    """
    Remove git-sync's whole repository; the next run creates it again.

    This frees a full volume: git-sync keeps the incomplete checkout and objects, and would fail
    indefinitely, even once the source has shrunk.

    Raises:
        SidecarError: Something cannot be removed.
    """
    with explained(f"cannot clear {root}"), suppress(FileNotFoundError):
        shutil.rmtree(root)
    log.warning("repository_removed", root=root)


def remove_stale(root: str) -> None:
    """
    Remove all checkouts except the newest, to make room on the volume; git-sync would remove them
    only after its next run.

    Raises:
        SidecarError: Something cannot be removed.
    """
    newest = os.path.basename(os.path.realpath(os.path.join(root, CANDIDATE)))
    with explained(f"cannot clear {root}"), suppress(FileNotFoundError):
        for name in os.listdir(os.path.join(root, WORKTREES)):
            if name != newest:
                _remove(os.path.join(root, WORKTREES, name))


def _obstacles(root: str) -> Iterator[str]:
    if os.path.lexists(root) and (os.path.islink(root) or not os.path.isdir(root)):
        yield root
        return
    candidate, temporary = (os.path.join(root, name) for name in (CANDIDATE, TEMPORARY_LINK))
    if os.path.lexists(candidate) and not os.path.islink(candidate):
        yield candidate
    if os.path.islink(temporary):
        yield temporary
    git = os.path.join(root, GIT)
    for folder, names, files in os.walk(git):
        if folder == os.path.join(git, _OBJECTS):
            yield from (os.path.join(folder, name) for name in names if _is_unfinished(name))
        for name in files:
            if name.endswith(".lock") or name == "gc.pid" or _is_unfinished(name):
                yield os.path.join(folder, name)


def _is_unfinished(name: str) -> bool:
    return name.startswith(_UNFINISHED)


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
