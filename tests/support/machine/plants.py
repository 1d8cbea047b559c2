"""
What a neighbor can plant on a volume at the path of another program's file, and a
folder elsewhere that must stay as it is.
"""

import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from tests import Facts

STRANGER = 4321
"""A uid that no test runs as."""


def state_of(folder: Path) -> Facts:
    """
    Return what is below a folder, without following links: kinds, owners, content and
    times.
    """
    found: Facts = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        there = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(there.st_mode) else b""
        found[str(path.relative_to(folder))] = (
            there.st_mode,
            there.st_uid,
            there.st_gid,
            there.st_mtime_ns,
            there.st_nlink,
            content,
        )
    return found


class Canary:
    """
    A folder outside of the volume, to which planted links lead; any user can write to
    it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "a.py"
        (folder / "pkg").mkdir(parents=True)
        for path in (self.file, folder / "pkg/b.py"):
            path.write_bytes(b"victim\n")
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o777)
        self._before = state_of(folder)

    def assert_untouched(self) -> None:
        assert self._before == state_of(self.folder)


def remove(path: Path) -> None:
    """
    Remove whatever is at a path.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _folder(path: Path, _: Canary) -> None:
    path.mkdir()
    (path / "planted.py").write_bytes(b"planted\n")


def _file(path: Path, _: Canary) -> None:
    path.write_bytes(b"planted\n")


def _socket(path: Path, _: Canary) -> None:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            # the path itself may be too long
            one.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def _file_of_stranger(path: Path, canary: Canary) -> None:
    _file(path, canary)
    path.chmod(0o600)
    os.chown(path, STRANGER, STRANGER)


PLANTS: dict[str, Callable[[Path, Canary], None]] = {
    "link to a folder": lambda path, canary: path.symlink_to(canary.folder),
    "link to a file": lambda path, canary: path.symlink_to(canary.file),
    "dangling link": lambda path, canary: path.symlink_to(canary.folder / "new"),
    "folder": _folder,
    "file": _file,
    "pipe": lambda path, _: os.mkfifo(path),
    "socket": _socket,
    "file of another uid": _file_of_stranger,
}
"""What is planted, by its name."""


def plant(kind: str, path: Path, canary: Canary) -> None:
    """
    Replace what is at a path; a folder above it that does not exist is created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(path)
    PLANTS[kind](path, canary)
