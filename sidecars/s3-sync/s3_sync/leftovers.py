"""
What another layout left on the volume.
"""

from __future__ import annotations

import os

from s3_sync.managed import NAME as MANAGED
from s3_sync.target import Target, list_name
from s3_sync.volume import LINK, SNAPSHOTS, SNAPSHOTS_PATH, TREE, Volume, open_own_folder
from sidecar_runtime.fence import Fence
from sidecar_runtime.snapshots import Snapshots, remove_tree


def clear_tree(volume: Volume) -> None:
    """
    Remove the working copy of a layout that needs none.
    """
    remove_tree(TREE, volume.state)
    remove_tree(list_name(TREE), volume.state)


def clear_snapshots(volume: Volume) -> None:
    """
    Remove the link and all that it could show.
    """
    if not _is_there(SNAPSHOTS, volume):
        return
    store = open_own_folder(SNAPSHOTS, volume.state)
    try:
        Snapshots(volume.root, store, SNAPSHOTS_PATH, link=LINK).remove_all()
    finally:
        os.close(store)
    remove_tree(SNAPSHOTS, volume.state)


def clear_in_place(volume: Volume, fence: Fence) -> None:
    """
    Remove the files that were published in place; those of others stay.
    """
    if not _is_there(MANAGED, volume):
        return
    target = Target(volume, file_mode=0)
    try:
        for path in list(target.managed.files):
            target.delete(path, fence)
    finally:
        target.close()
    with fence:
        os.unlink(MANAGED, dir_fd=volume.state)


def _is_there(name: str, volume: Volume) -> bool:
    try:
        os.stat(name, dir_fd=volume.state, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
