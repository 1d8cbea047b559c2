"""
Tests whether a target folder is writable or can be created, and has what a sidecar needs.
"""

import os
import shutil
import tempfile

from sidecar_runtime.checks import say
from sidecar_runtime.volume.errors import explained
from sidecar_runtime.volume.files import nearest_folder
from sidecar_runtime.volume.lock import take_flock
from sidecar_runtime.volume.snapshots import make_symlink


def try_folder(name: str, path: str, *, needs_symlinks: bool) -> bool:
    """
    Print whether a folder is writable or can be created; return whether it supports hard links.

    Nothing is left behind.

    Raises:
        TargetError: The folder is not writable, or its file system lacks what a sidecar needs.
    """
    folder = nearest_folder(path)
    with explained(f"cannot write to {folder}", folder):
        has_links = _has_links(folder, needs_symlinks=needs_symlinks)
        free = shutil.disk_usage(folder).free >> 20
    made = "" if folder == path else " (the daemon will create it)"
    say("ok", name, f"{path}{made} is writable as uid {os.getuid()}, {free} MiB free")
    return has_links


def _has_links(folder: str, *, needs_symlinks: bool) -> bool:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".check-") as inside:
        with open(f"{inside}/file", "xb") as file:
            take_flock(file.fileno())
        if needs_symlinks:
            make_symlink("file", f"{inside}/symlink")
        try:
            os.link(f"{inside}/file", f"{inside}/link")
        except OSError:
            return False
    return True
