"""
Predicts whether another user may read a file, from the modes along its path.
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
    The uid and gid of a process that reads ccaches.
    """

    uid: int
    gid: int

    def __str__(self) -> str:
        return f"uid {self.uid} with group {self.gid}"


def consumer(text: str) -> Consumer:
    """
    Parse ``UID:GID``.

    Raises:
        ValueError: The text has another form.
    """
    match = re.fullmatch(r"(\d{1,10}):(\d{1,10})", text)
    if match is None:
        raise ValueError("is not UID:GID")
    return Consumer(int(match[1]), int(match[2]))


def obstacle(path: str, who: Consumer, planned: tuple[int, int, int] | None = None) -> str:
    """
    Return what prevents a consumer from reading a file; empty if nothing does.

    ACLs and security modules are not considered.

    Args:
        planned: The mode, uid and gid that the file will have, if it does not exist yet.
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
