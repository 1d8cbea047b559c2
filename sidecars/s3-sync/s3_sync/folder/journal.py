"""
The list of files that s3-sync put into a folder, and therefore may replace and delete.

A journal with one JSON array a line: ``[path, etag, size, mtime_ns, inode, mode]`` for a file, with
a trailing ``0`` if its content was not verified; ``[path]`` for a removed file. A line is written
*before* its action: the rename that puts the line's inode into place, or the removal. So after a
crash the disk shows whether the last line is true. All earlier lines are, because actions happen
one at a time.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as _quoted
from typing import NamedTuple

from s3_sync.keys import refusal_of
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import FULL_ERRORS, is_at, open_file, stat_in, write_file

NAME = "managed"
HEADER = ["s3-sync managed files", 1]
_HEADER_LINE = json.dumps(HEADER, separators=(",", ":")).encode() + b"\n"
LIST_MODE = 0o664
# A key has at most 1,024 bytes, each of which takes at most six in JSON.
LINE_BYTES = 16 << 10
# The journal is rewritten when dead lines outnumber live ones by more than this.
SLACK_LINES = 1000
# What the kubelet adds to the mode of every file at a mount of a claim, if the pod has an fsGroup:
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

    def of(self, found: os.stat_result) -> Held | None:
        """
        Return the facts for a hard link to this file or for a copy of it; None for another file.
        """
        if found.st_ino != self.inode and found.st_nlink > 1:
            return None
        same = self if found.st_ino == self.inode else self._replace(inode=found.st_ino)
        return same if same.matches(found) else None

    def matches(self, found: os.stat_result) -> bool:
        """
        Whether this is still the file that was put into place, untouched.
        """
        return (
            found.st_ino == self.inode
            and found.st_size == self.size_bytes
            # SMB stores units of 100 ns, and reports the rounded time only later.
            and found.st_mtime_ns // 1000 == self.mtime_ns // 1000
            and found.st_mode in (self.mode, self.mode | _OF_FS_GROUP)
        )


class Journal:
    """
    The journal in the open folder `dir_fd`, open for appending; it replaces an older one.

    Args:
        files: The files to list.
        may_keep: Whether an older journal of these files may be continued, because a full volume
            takes no new one.

    Raises:
        OSError: The volume fails.
    """

    def __init__(
        self, name: str, dir_fd: int, files: Mapping[str, Held], *, fsync: bool, may_keep: bool
    ) -> None:
        self._name = name
        self._dir_fd = dir_fd
        self._fsync = fsync
        self._fd = -1
        self._lines = 0
        self._is_behind = False
        try:
            self._rewrite(files)
        except OSError as error:
            if error.errno not in FULL_ERRORS or not (may_keep and self._reopen(files)):
                raise

    def add(self, path: str, held: Held) -> None:
        """
        List a file; called immediately before the rename that puts it into place.

        Raises:
            OSError: It is not listed.
        """
        self._append(_line(path, held))

    def remove(self, path: str) -> None:
        """
        Remove a file from the list; called immediately before the removal. On a full disk, which a
        removal may fix, the journal catches up once there is room.
        """
        try:
            self._append(_removal(path))
        except OSError:
            self._is_behind = True

    def undo(self, path: str, before: Held | None) -> None:
        """
        List what a path was before, because the action of the last line failed.
        """
        try:
            self._append(_removal(path) if before is None else _line(path, before))
        except OSError:  # a failing volume refuses both
            self._is_behind = True

    def compact(self, files: Mapping[str, Held]) -> None:
        """
        Rewrite the journal when it has too many dead lines, or when it was removed.

        On a full volume, a long journal stays: it is valid.
        """
        is_long = self._lines > 2 * len(files) + SLACK_LINES
        is_there = is_at(self._name, self._dir_fd, self._fd)
        if is_long or self._is_behind or not is_there:
            try:
                self._rewrite(files)
            except OSError as error:
                if error.errno not in FULL_ERRORS or not is_there:
                    raise
                self._is_behind = True

    def close(self) -> None:
        """
        Close the file.
        """
        os.close(self._fd)

    def _append(self, data: bytes) -> None:
        written = os.write(self._fd, data)
        if written != len(data):  # the disk is full: remove the partial line
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._fsync:
            os.fsync(self._fd)
        self._lines += 1

    def _reopen(self, files: Mapping[str, Held]) -> bool:
        """
        Continue the journal that exists; return whether there is one. Its last line is removed if
        it was cut off or never carried out.
        """
        if stat_in(self._name, self._dir_fd) is None:
            return False
        flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self._name, flags, dir_fd=self._dir_fd)
        data = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        header, *lines = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)
        if lines:
            path = json.loads(lines[-1])[0]
            held = files.get(path)
            if lines[-1] != (_removal(path) if held is None else _line(path, held)):
                del lines[-1]
        os.ftruncate(self._fd, len(header) + sum(map(len, lines)))
        self._lines = 1 + len(lines)
        self._is_behind = True
        return True

    def _rewrite(self, files: Mapping[str, Held]) -> None:
        """
        Replace the journal with one line for each file, and keep it open for appending.
        """
        lines = [_HEADER_LINE, *(_line(path, held) for path, held in files.items())]
        write_file(self._name, b"".join(lines), LIST_MODE, fsync=self._fsync, dir_fd=self._dir_fd)
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._name, flags, dir_fd=self._dir_fd)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._lines = len(files)
        self._is_behind = False


def _removal(path: str) -> bytes:
    return f"[{_quoted(path)}]\n".encode()


def _line(path: str, held: Held) -> bytes:
    """
    Return the line of a file; json.dumps takes five times as long.
    """
    numbers = f"{held.size_bytes},{held.mtime_ns},{held.inode},{held.mode}"
    mark = "" if held.is_verified else ",0"
    return f"[{_quoted(path)},{_quoted(held.etag)},{numbers}{mark}]\n".encode()


def read_journal(
    name: str, dir_fd: int, root_fd: int, *, is_shared: bool
) -> tuple[dict[str, Held], bool]:
    """
    Return the listed files, and whether the journal is missing or damaged, so that files may be
    missing in the list.

    Args:
        root_fd: The folder whose files are listed.
        is_shared: Whether the folder may contain files of other owners: such a file must not be
            mistaken for one about to be put into place. If False, a last file that never arrived
            stays listed, and counts as damaged.
    """
    files: dict[str, Held] = {}
    try:
        journal = open_file(name, dir_fd=dir_fd)
    except OSError:  # missing or not a regular file
        return files, True
    before: Held | None = None
    last, number = "", 0
    with journal:
        try:
            if json.loads(journal.readline(LINE_BYTES)) != HEADER:
                raise ValueError("not a list of managed files")
            while line := journal.readline(LINE_BYTES):
                if len(line) < LINE_BYTES and not line.endswith(b"\n"):
                    break  # a partial line: its writer was killed
                number += 1
                last, held = _read_line(line)
                before = files.pop(last, None)
                if held is not None:
                    files[last] = held
        except (OSError, ValueError, TypeError, RecursionError) as error:
            log.warning("managed_list_damaged", line=number + 1, error=str(error))
            return files, True
    if last:
        _settle_last(files, last, before, stat_in(last, root_fd), is_shared=is_shared)
    return files, False


def _settle_last(
    files: dict[str, Held],
    last: str,
    before: Held | None,
    there: os.stat_result | None,
    *,
    is_shared: bool,
) -> None:
    """
    Correct the list if a process was killed between the last line and its action. The file may have
    been copied since; a different file would not match.
    """
    if last in files:
        held = files[last]
        is_there = there is not None and there.st_ino == held.inode
        if there is not None and (before is None or there.st_ino != before.inode):
            is_there = is_there or held.of(there) is not None
        if is_shared and not is_there:
            del files[last]  # killed before the rename
            if before is not None:
                files[last] = before
    elif before is not None and there is not None and before.of(there) is not None:
        files[last] = before  # killed before the removal


def _read_line(line: bytes) -> tuple[str, Held | None]:
    """
    Return the path of a line, and its file unless the line is a removal.

    Other processes with access to the volume can write this file, so a path that cannot come from
    a key is refused: it could lead out of the target.

    Raises:
        ValueError, TypeError, RecursionError: The line is not valid.
    """
    path, *facts = json.loads(line)
    if not isinstance(path, str) or refusal_of(path, 0) is not None:
        raise ValueError(f"not a managed path: {path!r:.100}")
    if not facts:
        return path, None
    etag, *numbers = facts
    # GlusterFS uses inode numbers up to 2**64; times before 1970 are negative.
    if not isinstance(etag, str) or not all(
        type(number) is int and -(1 << 63) <= number < 1 << 64 for number in numbers
    ):
        raise ValueError(f"invalid facts of a file: {path!r}")
    size_bytes, mtime_ns, inode, mode, *mark = numbers
    if mark not in ([], [0]):
        raise ValueError(f"invalid facts of a file: {path!r}")
    return path, Held(etag, size_bytes, mtime_ns, inode, mode, not mark)
