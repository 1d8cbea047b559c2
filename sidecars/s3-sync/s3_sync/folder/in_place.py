"""
The in-place layout: each file is visible at once, and replaced with a rename.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from s3_sync.folder.folder import Folder
from s3_sync.folder.paths import open_own_folder
from s3_sync.folder.volume import LINK, OF_0_2, SNAPSHOTS, Volume
from s3_sync.keys import RESERVED
from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.files import stat_in
from sidecar_runtime.volume.snapshots import Snapshots
from sidecar_runtime.volume.trees import remove_tree


class InPlace:
    """
    Shows the target folder itself.
    """

    name = problem = ""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        folder, self.is_lost = volume.open_in_place()
        self._folder = folder
        self.shown: Folder | None = folder
        self._is_tidy = False

    def tidy(self, fence: Fence, *, is_damaged: bool) -> None:
        """
        Do nothing: the source tells what should be there.
        """

    def foreign(self) -> list[str]:
        return self._folder.foreign()

    def is_current(self) -> bool:
        return True

    def begin(self) -> Folder:
        return self._folder

    def link(self, paths: Collection[str], folder: Folder, fence: Fence) -> None:
        """
        Do nothing: the folder is what is shown.
        """

    def publish(self, name: str, folder: Folder, fence: Fence) -> None:
        """
        Do nothing: every file is visible.
        """

    def drop(self) -> None:
        """
        Do nothing: every file is visible.
        """

    def make_room(self, fence: Fence) -> bool:
        return False

    def finish(self, fence: Fence) -> None:
        if self._is_tidy:
            return
        volume = self._volume
        with fence:
            for name in OF_0_2:
                remove_tree(name, volume.state)
            if stat_in(SNAPSHOTS, volume.state) or _leads_to_snapshots(volume.root):
                store = open_own_folder(SNAPSHOTS, volume.state)
                try:
                    path = f"{RESERVED}/{SNAPSHOTS}"
                    Snapshots(volume.root, store, path, link=LINK).remove_all()
                finally:
                    os.close(store)
                remove_tree(SNAPSHOTS, volume.state)
        self._is_tidy = True

    def close(self) -> None:
        self._folder.close()


def _leads_to_snapshots(root: int) -> bool:
    try:
        return os.readlink(LINK, dir_fd=root).startswith(f"{RESERVED}/{SNAPSHOTS}/")
    except OSError:
        return False
