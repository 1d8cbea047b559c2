"""
The target as seen without its lock: another process writes it, or it cannot be opened.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from typing import NamedTuple

from s3_sync.settings import Settings
from s3_sync.tree.damage import Scan, damaged
from s3_sync.tree.journal import Managed, load_managed
from s3_sync.tree.parts import list_name, read_part
from s3_sync.tree.published import Published
from s3_sync.tree.volume import LINK, PUBLISHING, SNAPSHOTS, SNAPSHOTS_PATH, is_there
from sidecar_runtime.health import Readiness
from sidecar_runtime.volume.files import stat_in
from sidecar_runtime.volume.snapshots import is_name

# Look again if files are damaged: another process may be publishing at this moment.
LOOKS = 5
PAUSE_SECONDS = 0.2


class _Listed(NamedTuple):
    """
    A list that was read: a key that identifies its version, its files, and the damaged ones.
    """

    key: object = None
    files: Mapping[str, Managed] = {}
    is_lost: bool = False
    damaged: Collection[str] = frozenset()


class Outside:
    """
    Inspects the published files without changing anything.

    Args:
        published: Filled from the record on disk.
    """

    def __init__(self, settings: Settings, published: Published, scan: Scan) -> None:
        self._settings = settings
        self._published = published
        self._scan = scan
        self._listed = _Listed()

    def look(self) -> Readiness:
        """
        Return readiness: inspect all published files when their list is new, then one slice a call.
        """
        path = self._settings.dest_path
        for number in range(LOOKS):
            time.sleep(PAUSE_SECONDS if number else 0)
            try:
                with read_part(path, "") as (state, root):
                    self._published.read(state)
                    readiness = self._published.readiness(*self._find_damage(root, state))
            except OSError as error:
                readiness = Readiness(False, problem=f"{path} cannot be read: {error.strerror}")
            if readiness.ready or self._published.is_of_others:
                break
        return readiness

    def _find_damage(self, root: int, state: int) -> tuple[Collection[str], str]:
        """
        Return the damaged files, and any other problem.
        """
        if self._published.at is None:
            return (), ""
        part = ""
        if self._settings.layout == "snapshot":
            name = self._published.name
            part = f"{SNAPSHOTS}/{name}"
            if not is_name(name) or _read_link(root) != f"{SNAPSHOTS_PATH}/{name}":
                return (), f"{LINK} does not point to the published revision"
        elif is_there(PUBLISHING, state):
            return (), "only some files of a revision are in place"
        with read_part(self._settings.dest_path, part) as (above, folder):
            listed, found = self._listed, stat_in(list_name(part), above)
            key = part, found and (found.st_ino, found.st_mtime_ns, found.st_size)
            if key != listed.key:
                files, is_lost = load_managed(above, folder, list_name(part), is_shared=not part)
                listed = _Listed(key, files, is_lost, set(files))
                self._scan.start_over()
            paths = {*listed.damaged, *self._scan.next_slice(listed.files)}
            self._listed = listed._replace(damaged=damaged(listed.files, paths, folder))
        self._published.count(len(listed.files))
        problem = "the list of published files is missing or damaged" if listed.is_lost else ""
        return self._listed.damaged, problem


def _read_link(root: int) -> str:
    try:
        return os.readlink(LINK, dir_fd=root)
    except OSError:
        return ""
