"""
The place of the link, and the exchange of two folders in one step.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time

from git_sync_wrapper.flags.options import Options
from git_sync_wrapper.published.record import STORE
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.errors import LINK_ADVICE
from sidecar_runtime.volume.files import nearest_folder

# renameat2(2), which Python does not have.
_RENAME_EXCHANGE = 2
_NO_EXCHANGE = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}

log = get_logger("volume")


def check_link(options: Options) -> None:
    """
    Refuse a link on another volume than the root: snapshots are hard links, and renamed into place.

    Raises:
        SidecarError: ``link_elsewhere``.
        OSError: One of the folders cannot be read.
    """
    folders = (os.path.dirname(options.link), os.path.join(options.root, STORE))
    if len({os.stat(nearest_folder(folder)).st_dev for folder in folders}) > 1:
        raise SidecarError(
            "link_elsewhere",
            f"the link {options.link} is on another volume than {options.root}",
            "Set GITSYNC_LINK to a name, or to a path below GITSYNC_ROOT.",
        )


def move_aside(link: str) -> None:
    """
    Move aside a file or folder that is where the link should be; replace an empty folder.

    Raises:
        SidecarError: ``link_blocked``.
    """
    if os.path.islink(link) or not os.path.exists(link):
        return
    if os.path.isdir(link) and not os.listdir(link):
        return
    aside = f"{link}.replaced-{int(time.time())}"
    try:
        os.rename(link, aside)
    except OSError as error:
        raise SidecarError(
            "link_blocked",
            f"{link} is not a link and cannot be moved aside: {error.strerror}",
            LINK_ADVICE,
        ) from error
    log.warning("folder_moved_aside", folder=link, to=aside)


def exchange(one: str, other: str, folder: int) -> bool:
    """
    Exchange two folders in one step; return False if the file system cannot.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    names = (os.fsencode(one), os.fsencode(other))
    if libc.renameat2(folder, names[0], folder, names[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number not in _NO_EXCHANGE:
        raise OSError(number, os.strerror(number), other)
    return False
