"""
What git-sync cannot get over by itself, removed before each of its runs.

Only with the lock of the volume held and no git of ours alive, so that nobody holds what looks
held. Each of these stopped a plain git-sync 4.7.1 for good, or made it throw its repository away:
a lock file that a killed git left (kubernetes/git-sync#914), the temporary link of a killed
publish, a link that is a folder. What a killed fetch left only takes up the volume.
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
# What git writes before it has a name: gitformat-pack(5), object-file.c, and fetch's quarantine.
_UNFINISHED = ("tmp_obj_", "tmp_pack_", "tmp_idx_", "tmp_rev_", "tmp_objdir-")

log = get_logger("heal")


def heal(root: str) -> list[str]:
    """
    Remove what blocks git-sync; return the paths that were removed, below its root.

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
    Remove git-sync's whole repository, which the next run creates again.

    For a volume that is full: git-sync leaves the checkout and the objects that did not fit, and
    would fail indefinitely, even once the source has shrunk.

    Raises:
        SidecarError: Something cannot be removed.
    """
    with explained(f"cannot clear {root}"), suppress(FileNotFoundError):
        shutil.rmtree(root)
    log.warning("repository_thrown_away", root=root)


def remove_stale(root: str) -> None:
    """
    Remove the checkouts but the newest, which git-sync would remove after its next run: the volume
    is short of room.

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
