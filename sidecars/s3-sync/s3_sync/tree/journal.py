"""
The list of files that s3-sync published, and therefore may replace and delete.

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
from json.encoder import encode_basestring_ascii as _quoted
from typing import NamedTuple

from s3_sync.keys import refusal_of
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.errors import FULL_ERRORS
from sidecar_runtime.volume.files import is_at, open_file, stat_in, write_file

NAME = "managed"
HEADER = ["s3-sync managed files", 1]
_HEADER_LINE = json.dumps(HEADER, separators=(",", ":")).encode() + b"\n"
LIST_MODE = 0o664
# A key has at most 1,024 bytes, each of which takes at most six in JSON.
LINE_BYTES = 16 << 10
# The journal is rewritten when dead lines outnumber live ones by more than this.
SLACK_LINES = 1000
_OF_FS_GROUP = 0o660

log = get_logger("managed")


class Managed(NamedTuple):
    """
    One published file: the ETag of its object, and its stat values.

    Args:
        is_verified: Whether a checksum, or an MD5 in the ETag, matched the content.
    """

    etag: str
    size_bytes: int
    mtime_ns: int
    inode: int
    mode: int
    is_verified: bool = True

    def of(self, found: os.stat_result) -> Managed | None:
        """
        Return the facts for a hard link to this file or for a copy of it; None for another file.
        """
        if found.st_ino != self.inode and found.st_nlink > 1:
            return None
        same = self if found.st_ino == self.inode else self._replace(inode=found.st_ino)
        return same if same.matches(found) else None

    def matches(self, found: os.stat_result) -> bool:
        """
        Whether this is still the file that was published, untouched.
        """
        return (
            found.st_ino == self.inode
            and found.st_size == self.size_bytes
            # SMB stores units of 100 ns, and reports the rounded time only later.
            and found.st_mtime_ns // 1000 == self.mtime_ns // 1000
            and is_mode(found, self.mode)
        )


def is_mode(found: os.stat_result, mode: int) -> bool:
    """
    Whether a file has a mode, or what the kubelet makes of it where the pod has an ``fsGroup``.

    At each mount of a claim it lets the group read and write every file:
    https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/volume/volume_linux.go
    """
    return found.st_mode in (mode, mode | _OF_FS_GROUP)


class ManagedList:
    """
    The list in memory and its journal in the open folder `dir_fd`.

    Attributes:
        unverified: Listed files whose content was not verified.
        is_lost: Whether the journal was missing or damaged when it was opened.

    Args:
        root_fd: The folder whose files are listed.
        name: The name of the journal.
        files: The listed files; None: read them from the journal.
        is_shared: See :func:`load_managed`.
    """

    def __init__(
        self,
        dir_fd: int,
        root_fd: int,
        *,
        fsync: bool,
        name: str = NAME,
        files: dict[str, Managed] | None = None,
        is_shared: bool = True,
    ) -> None:
        self._dir_fd = dir_fd
        self._name = name
        self._fsync = fsync
        self._fd = -1
        self._lines = 0
        self._is_behind = False
        self.is_lost = False
        is_read = files is None
        if files is None:
            files, self.is_lost = load_managed(dir_fd, root_fd, name, is_shared=is_shared)
        self.files = files
        self.unverified = {path for path, managed in files.items() if not managed.is_verified}
        try:
            self._rewrite()
        except OSError as error:
            if error.errno not in FULL_ERRORS or not (is_read and self._reopen()):
                raise

    def add(self, path: str, managed: Managed) -> None:
        """
        Record a file; called immediately before the rename that publishes it.
        """
        self._append(_line(path, managed))
        self._note(path, managed)

    def restore(self, path: str, managed: Managed) -> None:
        """
        Record that a file still exists, because the action of the last line failed.
        """
        self._note(path, managed)
        try:
            self._append(_line(path, managed))
        except OSError:  # a failing volume refuses both
            self._is_behind = True

    def remove(self, path: str) -> None:
        """
        Record that a file is removed; called immediately before the removal.
        """
        self.unverified.discard(path)
        if self.files.pop(path, None) is not None:
            try:
                self._append(_removal(path))
            except OSError:  # a full disk, which a removal may fix: catch up once there is room
                self._is_behind = True

    def compact(self) -> None:
        """
        Rewrite the journal when it has too many dead lines, or when it was removed.

        On a full volume, a long journal stays: it is valid.
        """
        is_long = self._lines > 2 * len(self.files) + SLACK_LINES
        is_there = is_at(self._name, self._dir_fd, self._fd)
        if is_long or self._is_behind or not is_there:
            try:
                self._rewrite()
            except OSError as error:
                if error.errno not in FULL_ERRORS or not is_there:
                    raise
                self._is_behind = True

    def close(self) -> None:
        os.close(self._fd)

    def _note(self, path: str, managed: Managed) -> None:
        self.files[path] = managed
        if not managed.is_verified:
            self.unverified.add(path)
        elif self.unverified:
            self.unverified.discard(path)

    def _append(self, data: bytes) -> None:
        written = os.write(self._fd, data)
        if written != len(data):  # the disk is full: remove the partial line
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._fsync:
            os.fsync(self._fd)
        self._lines += 1

    def _reopen(self) -> bool:
        """
        Continue the journal that was read, because a full volume takes no new one; return whether
        it exists. Its last line is removed if it was cut off or never carried out.
        """
        flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        if self.is_lost or stat_in(self._name, self._dir_fd) is None:
            return False
        self._fd = os.open(self._name, flags, dir_fd=self._dir_fd)
        data = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        header, *lines = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)
        if lines and not self._agrees(lines[-1]):
            del lines[-1]
        os.ftruncate(self._fd, len(header) + sum(map(len, lines)))
        self._lines = 1 + len(lines)
        self._is_behind = True
        return True

    def _agrees(self, line: bytes) -> bool:
        path = json.loads(line)[0]
        held = self.files.get(path)
        return line == (_removal(path) if held is None else _line(path, held))

    def _rewrite(self) -> None:
        """
        Replace the journal with one line for each file, and keep it open for appending.
        """
        lines = [_HEADER_LINE, *(_line(path, managed) for path, managed in self.files.items())]
        write_file(self._name, b"".join(lines), LIST_MODE, fsync=self._fsync, dir_fd=self._dir_fd)
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._name, flags, dir_fd=self._dir_fd)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._lines = len(self.files)
        self._is_behind = False


def _removal(path: str) -> bytes:
    return f"[{_quoted(path)}]\n".encode()


def _line(path: str, managed: Managed) -> bytes:
    """
    Return the line of a file; json.dumps takes five times as long.
    """
    m = managed
    mark = "" if m.is_verified else ",0"
    return (
        f"[{_quoted(path)},{_quoted(m.etag)},{m.size_bytes},{m.mtime_ns},{m.inode},{m.mode}{mark}]\n"
    ).encode()


def load_managed(
    dir_fd: int, root_fd: int | None, name: str, *, is_shared: bool
) -> tuple[dict[str, Managed], bool]:
    """
    Read the journal; if it is missing or damaged, entries are lost, but no files on disk.

    Returns:
        The listed files, and whether entries were lost.

    Args:
        root_fd: See :class:`ManagedList`; None if that folder is gone.
        is_shared: Whether the folder may contain files of other owners: such a file must not be
            mistaken for one about to be published. If False, a last file that never arrived stays
            listed, and counts as damaged.
    """
    files: dict[str, Managed] = {}
    try:
        journal = open_file(name, dir_fd=dir_fd)
    except OSError:  # missing or not a regular file
        return files, True
    before: Managed | None = None
    last, number = "", 0
    with journal:
        try:
            if json.loads(journal.readline(LINE_BYTES)) != HEADER:
                raise ValueError("not a list of managed files")
            while line := journal.readline(LINE_BYTES):
                if len(line) < LINE_BYTES and not line.endswith(b"\n"):
                    break  # a partial line: its writer was killed
                number += 1
                last, managed = _read_line(line)
                before = files.pop(last, None)
                if managed is not None:
                    files[last] = managed
        except (OSError, ValueError, TypeError, RecursionError) as error:
            log.warning("managed_list_damaged", line=number + 1, error=str(error))
            return files, True
    there = stat_in(last, root_fd) if last and root_fd is not None else None
    if last in files:
        held = files[last]
        is_there = there is not None and there.st_ino == held.inode
        if there is not None and (before is None or there.st_ino != before.inode):
            # Perhaps copied since. A different file would not match.
            is_there = is_there or held.of(there) is not None
        if is_shared and not is_there:
            del files[last]  # killed before the rename
            if before is not None:
                files[last] = before
    elif before is not None and there is not None and before.of(there) is not None:
        # Killed before the removal, and perhaps copied since. A different file would not match.
        files[last] = before
    return files, False


def _read_line(line: bytes) -> tuple[str, Managed | None]:
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
    if not isinstance(etag, str) or not all(
        type(number) is int and 0 <= number < 1 << 63 for number in numbers
    ):
        raise ValueError(f"invalid facts of a file: {path!r}")
    size_bytes, mtime_ns, inode, mode, *mark = numbers
    if mark not in ([], [0]):
        raise ValueError(f"invalid facts of a file: {path!r}")
    return path, Managed(etag, size_bytes, mtime_ns, inode, mode, not mark)
