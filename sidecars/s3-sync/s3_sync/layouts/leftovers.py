"""
Removes files that another layout left on the volume.
"""

from __future__ import annotations

import os

from s3_sync.tree.journal import NAME as MANAGED
from s3_sync.tree.parts import list_name
from s3_sync.tree.target import Target
from s3_sync.tree.volume import (
    LINK,
    SNAPSHOTS,
    SNAPSHOTS_PATH,
    STAGED,
    TREE,
    Volume,
    is_there,
    open_own_folder,
)
from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.snapshots import Snapshots
from sidecar_runtime.volume.trees import remove_tree


def clear_tree(name: str, volume: Volume) -> None:
    """
    Remove a working copy and its list.
    """
    remove_tree(name, volume.state)
    remove_tree(list_name(name), volume.state)


def clear_snapshots(volume: Volume) -> None:
    """
    Remove the link, all snapshots, and their working copy.
    """
    clear_tree(TREE, volume)
    if not is_there(SNAPSHOTS, volume.state) and not _leads_to_snapshots(volume):
        return
    store = open_own_folder(SNAPSHOTS, volume.state)
    try:
        Snapshots(volume.root, store, SNAPSHOTS_PATH, link=LINK).remove_all()
    finally:
        os.close(store)
    remove_tree(SNAPSHOTS, volume.state)


def clear_in_place(volume: Volume, fence: Fence, *, may_delete: bool) -> None:
    """
    Remove the files that were published in place, and the working copy behind a gate.

    Files of other owners stay.
    """
    with fence:
        clear_tree(STAGED, volume)
    if not may_delete:
        return
    if is_there(MANAGED, volume.state):
        target = Target(volume, file_mode=0)
        try:
            altered = target.damaged(iter(target.managed.files))  # they belong to another owner now
            for path in target.managed.files.keys() - altered:
                target.delete(path, fence)
        finally:
            target.close()
        with fence:
            os.unlink(MANAGED, dir_fd=volume.state)
    if volume.half_shown():
        volume.end_showing(fence)


def _leads_to_snapshots(volume: Volume) -> bool:
    try:
        return os.readlink(LINK, dir_fd=volume.root).startswith(f"{SNAPSHOTS_PATH}/")
    except OSError:
        return False
