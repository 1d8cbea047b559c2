"""
The list of files that s3-sync put into a folder, and therefore may replace and delete.

A journal with one JSON array a line: ``[path, etag, size, mtime_ns, inode, mode]`` for
a file, with a trailing ``0`` if its content was not verified; ``[path]`` for a removed
file. A line is written *before* its action: the rename that puts the line's inode into
place, or the removal. So after a crash the file at the last line's path shows whether
that line is true. All earlier lines are, because actions happen one at a time.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from json.encoder import encode_basestring_ascii as _quoted
from typing import NamedTuple

from s3_sync.names import Content, skip_reason_of
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import (
    ABSENT_ERRORS,
    is_at,
    open_file,
    stat_in,
    write_file,
)

NAME = "managed"
HEADER = ["s3-sync managed files", 1]
LIST_MODE = 0o664
# A path has at most 4,095 bytes, each of which takes at most six in JSON.
LINE_BYTES = 32 << 10
# Of twice as many files as a source may have; each takes about 300 bytes.
LINES_LIMIT = 1_000_000
# The journal is rewritten when dead lines outnumber live ones by more than this.
SLACK_LINES = 1000
# What the kubelet adds to the mode of every file at a mount of a claim, if the pod has
# an fsGroup:
# https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/volume/volume_linux.go
_OF_FS_GROUP = 0o660

log = get_logger("managed")


class Held(NamedTuple):
    """
    One file that s3-sync put into place: the ETag of its object, and its stat values.

    Args:
        is_verified: Whether a checksum, or an MD5 in the ETag, matched the content.
    """

    etag: str
    size_bytes: int
    mtime_ns: int
    inode: int
    mode: int
    is_verified: bool = True

    @classmethod
    def at(cls, content: Content, found: os.stat_result, *, is_verified: bool) -> Held:
        """
        Return the facts of a file that has the content.
        """
        return cls(
            etag=content.etag,
            size_bytes=found.st_size,
            mtime_ns=found.st_mtime_ns,
            inode=found.st_ino,
            mode=found.st_mode,
            is_verified=is_verified,
        )

    def is_of(self, found: os.stat_result) -> bool:
        """
        Whether this is the file that was put into place, if somebody has only edited it,
        or only its inode number is another one.
        """
        return found.st_ino == self.inode or self.is_like(found)

    def is_like(self, found: os.stat_result | None) -> bool:
        """
        Whether this is the file that was put into place, untouched, as far as can be
        told: the inode number of a copy is another one, and so is that of each file
        after a remount of a file system that gives them other numbers (rclone, some SMB).
        """
        return (
            found is not None
            and found.st_size == self.size_bytes
            # SMB stores units of 100 ns, and reports the rounded time only later.
            and found.st_mtime_ns // 1000 == self.mtime_ns // 1000
            and has_mode(found, self.mode)
        )


def has_mode(found: os.stat_result, mode: int) -> bool:
    """
    Whether a file has a kind and mode, apart from what an fsGroup adds.
    """
    return found.st_mode in (mode, mode | _OF_FS_GROUP)


class Listed(NamedTuple):
    """
    What a journal says.

    Args:
        is_lost: Whether it is missing or damaged, so that files may be missing in it.
        lines: How many lines are true.
        size_bytes: The size of these lines, with the header.
    """

    files: dict[str, Held]
    is_lost: bool
    lines: int = 0
    size_bytes: int = 0


class Journal:
    """
    The journal in the open folder `dir_fd`, open for appending.

    Args:
        listed: What it says; a journal that is lost, or new, is written.

    Raises:
        OSError: The volume fails.
    """

    def __init__(self, name: str, dir_fd: int, listed: Listed, *, fsync: bool) -> None:
        self._name = name
        self._dir_fd = dir_fd
        self._fsync = fsync
        self._fd = -1
        # How many lines it has; endless once it lacks one, so that it is rewritten.
        self._lines: float = listed.lines
        if not listed.is_lost:
            with suppress(PermissionError):  # another user's, which can be replaced
                self._fd = self._open()
                os.ftruncate(self._fd, listed.size_bytes)
        if self._fd < 0:
            self._rewrite(listed.files)

    def add(self, path: str, held: Held) -> None:
        """
        List a file; called immediately before the rename that puts it into place.

        Raises:
            OSError: It is not listed.
        """
        self._append(_line(path, held).encode())

    def note(self, path: str, held: Held | None) -> None:
        """
        List what a path is, or that it is about to be removed. On a full disk, which a
        removal may fix, the journal catches up once there is room.
        """
        try:
            self._append(_line(path, held).encode())
        except OSError:
            self._lines = math.inf

    def compact(self, files: Mapping[str, Held]) -> None:
        """
        Rewrite the journal when it has too many dead lines, or lacks some, or when it
        was removed; again after the next cycle if that fails.
        """
        if self._lines > 2 * len(files) + SLACK_LINES or not is_at(
            self._name, self._dir_fd, self._fd
        ):
            with suppress(OSError):
                self._rewrite(files)

    def close(self) -> None:
        """
        Close the file.
        """
        os.close(self._fd)

    def _append(self, data: bytes) -> None:
        written = os.write(self._fd, data)
        try:
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self._fsync:
                os.fsync(self._fd)
        except OSError:
            # Its action does not follow: as an earlier line, it would count as true.
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise
        self._lines += 1

    def _open(self) -> int:
        return os.open(
            self._name,
            os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC,
            dir_fd=self._dir_fd,
        )

    def _rewrite(self, files: Mapping[str, Held]) -> None:
        """
        Replace the journal with one line for each file, and keep it open for appending.
        """
        lines = [json.dumps(HEADER, separators=(",", ":")), "\n"]
        lines += [_line(path, held) for path, held in files.items()]
        write_file(
            self._name,
            "".join(lines).encode(),
            LIST_MODE,
            fsync=self._fsync,
            dir_fd=self._dir_fd,
        )
        before = self._fd
        self._fd = self._open()
        self._lines = len(files)
        # It is closed even if this fails: NFS reports quotas then.
        if before >= 0:
            os.close(before)


def _line(path: str, held: Held | None) -> str:
    """
    Return the line of a file, or of a removal; json.dumps takes five times as long.
    """
    name = _quoted(path)
    if held is None:
        return f"[{name}]\n"
    etag, size_bytes, mtime_ns, inode, mode, is_verified = held
    mark = "" if is_verified else ",0"
    return f"[{name},{_quoted(etag)},{size_bytes},{mtime_ns},{inode},{mode}{mark}]\n"


def read_journal(name: str, dir_fd: int, root_fd: int, *, published: float) -> Listed:
    """
    Return what a journal says, without the last line if a process was killed before its
    action.

    Args:
        root_fd: The folder whose files are listed.
        published: How many files are published there, as far as that is known. A last
            file that is not in place is one of them, and damaged, unless they are one
            more with it: then it was about to be put, and what others have at its path
            must not be mistaken for it.

    Raises:
        OSError: The volume fails.
    """
    files: dict[str, Held] = {}
    try:
        journal = open_file(name, dir_fd=dir_fd)
    except OSError as error:
        if error.errno not in ABSENT_ERRORS:
            raise
        return Listed(files, is_lost=True)
    lines = 0
    size_bytes = 0
    last = b""
    path = ""
    before = None
    with journal:
        try:
            header = journal.readline(LINE_BYTES)
            if json.loads(header) != HEADER:
                raise ValueError("not a list of managed files")
            size_bytes = len(header)
            while line := journal.readline(LINE_BYTES):
                if lines == LINES_LIMIT:
                    raise ValueError("too many lines")
                if len(line) < LINE_BYTES and not line.endswith(b"\n"):
                    break  # a partial line: its writer was killed
                path, held = _read_line(line)
                before = files.pop(path, None)
                if held is not None:
                    files[path] = held
                lines += 1
                size_bytes += len(line)
                last = line
        except (ValueError, TypeError, RecursionError) as error:
            log.warning(
                "managed_list_damaged",
                line=lines + bool(size_bytes) + 1,
                error=str(error),
            )
            return Listed(files, is_lost=True)
    found = stat_in(path, root_fd) if path else None
    # A line is true if its inode is in place, or if its predecessor is not. The inode
    # alone does not tell: the next file that anybody creates there may get it, and a
    # remount may have changed it.
    now = files.get(path)
    is_true = not (before and before.is_like(found))
    if now:
        is_there = found is not None and now.is_of(found)
        is_true = is_there or (is_true and len(files) <= published)
    if not is_true:
        lines -= 1
        size_bytes -= len(last)
        files.pop(path, None)
        if before is not None:
            files[path] = before
    return Listed(files, False, lines, size_bytes)


def _read_line(line: bytes) -> tuple[str, Held | None]:
    """
    Return the path of a line, and its file unless the line is a removal.

    Other processes with access to the volume can write this file, so a path that cannot
    come from a key is refused: it could lead out of the target.

    Raises:
        ValueError, TypeError, RecursionError: The line is not valid.
    """
    path, *facts = json.loads(line)
    if not isinstance(path, str) or skip_reason_of(path, 0) is not None:
        raise ValueError(f"not a managed path: {path!r:.100}")
    if not facts:
        return path, None
    etag, size_bytes, mtime_ns, inode, mode, *mark = facts
    numbers = (size_bytes, mtime_ns, inode, mode)
    # GlusterFS uses inode numbers up to 2**64; times before 1970 are negative.
    is_valid = all(type(one) is int and -(1 << 63) <= one < 1 << 64 for one in numbers)
    if not (is_valid and etag and isinstance(etag, str) and mark in ([], [0])):
        raise ValueError(f"invalid facts of a file: {path!r}")
    return path, Held(etag, *numbers, not mark)
