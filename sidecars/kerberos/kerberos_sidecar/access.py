"""
Whether another user may read a file, by the modes on the way to it.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass

_READ, _SEARCH = 4, 1


@dataclass(frozen=True, slots=True)
class Consumer:
    """
    A process that reads ccaches, by its ids.
    """

    uid: int
    gid: int

    def __str__(self) -> str:
        return f"uid {self.uid} with group {self.gid}"


def consumer(text: str) -> Consumer:
    """
    Read ``UID:GID``.

    Raises:
        ValueError: It is not that.
    """
    match = re.fullmatch(r"(\d{1,10}):(\d{1,10})", text)
    if match is None:
        raise ValueError("is not UID:GID")
    return Consumer(int(match[1]), int(match[2]))


def obstacle(path: str, who: Consumer, planned: tuple[int, int, int] | None = None) -> str:
    """
    Return what keeps a consumer from reading a file; empty where nothing does.

    Access lists and security modules are not looked at.

    Args:
        planned: Mode, uid and gid that the file will have, where it is not there yet.
    """
    folder = os.path.dirname(path)
    above = [folder]
    while folder != "/":
        folder = os.path.dirname(folder)
        above.append(folder)
    for folder in reversed(above):
        try:
            found = os.stat(folder)
        except OSError as error:
            return f"{folder}: {error.strerror}"
        if not _may(found.st_mode, found.st_uid, found.st_gid, who, _SEARCH):
            return _describe(folder, found.st_mode, found.st_uid, found.st_gid)
    try:
        found = os.stat(path)
        mode, uid, gid = found.st_mode, found.st_uid, found.st_gid
    except OSError as error:
        if planned is None:
            return f"{path}: {error.strerror}"
        mode, uid, gid = planned
    return "" if _may(mode, uid, gid, who, _READ) else _describe(path, mode, uid, gid)


def _may(mode: int, uid: int, gid: int, who: Consumer, bit: int) -> bool:
    if who.uid == 0:
        return True
    shift = 6 if uid == who.uid else 3 if gid == who.gid else 0
    return bool(mode >> shift & bit)


def _describe(path: str, mode: int, uid: int, gid: int) -> str:
    return f"{path} has mode {stat.S_IMODE(mode):04o}, uid {uid}, group {gid}"
