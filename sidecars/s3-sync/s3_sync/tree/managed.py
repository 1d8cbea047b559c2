"""
The list of files that s3-sync published: what it may replace and delete.

A journal of JSON arrays, one a line: ``[path, etag, size, mtime_ns, inode, mode]`` for a file, with
a ``0`` behind it where nothing has verified its content; ``[path]`` for one that is gone. A line is
written *before* what it says is done: the rename, which brings the inode of the line, or the
removal. So after a crash a look at the disk tells whether the last line is true; all earlier ones
are, because nothing else happens in between.
"""

from __future__ import annotations

import errno
import json
import os
from json.encoder import encode_basestring_ascii as _quoted
from typing import NamedTuple

from s3_sync.keys import refusal_of
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import is_at, open_file, stat_in, write_file

NAME = "managed"
HEADER = ["s3-sync managed files", 1]
_HEADER_LINE = json.dumps(HEADER, separators=(",", ":")).encode() + b"\n"
LIST_MODE = 0o664
# A key has 1,024 bytes, each of which takes six at most.
LINE_BYTES = 16 << 10
# Dead lines that are worth a rewrite: as many as live ones, and never for a handful.
SLACK_LINES = 1000

log = get_logger("managed")


class Managed(NamedTuple):
    """
    One published file: the ETag it came from, and what stat says of it.

    Args:
        is_verified: Whether a checksum, or an MD5 in the ETag, agreed with the content.
    """

    etag: str
    size_bytes: int
    mtime_ns: int
    inode: int
    mode: int
    is_verified: bool = True

    def of(self, found: os.stat_result) -> Managed | None:
        """
        Return what is known of a hard link to this file, or of a copy; None for another file.
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
            # SMB counts in 100 ns, and tells so only later.
            and found.st_mtime_ns // 1000 == self.mtime_ns // 1000
            and found.st_mode == self.mode
        )


class ManagedList:
    """
    The list in memory and its journal in the open folder `dir_fd`.

    Attributes:
        unverified: Those of its files whose content nothing has verified.
        is_lost: Whether the journal was missing, or damaged, when it was opened.

    Args:
        root_fd: The folder whose files are listed.
        name: The journal's.
        files: What is listed; None: what the journal says.
        is_shared: As of :func:`load_managed`.
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
        if files is None:
            files, self.is_lost = load_managed(dir_fd, root_fd, name, is_shared=is_shared)
        self.files = files
        self.unverified = {path for path, managed in files.items() if not managed.is_verified}
        self._rewrite()

    def add(self, path: str, managed: Managed) -> None:
        """
        Record a file; called right before the rename that makes it true.
        """
        self._append(_line(path, managed))
        self._note(path, managed)

    def restore(self, path: str, managed: Managed) -> None:
        """
        Record that a file is there after all: what the last line says could not be done.
        """
        self._note(path, managed)
        try:
            self._append(_line(path, managed))
        except OSError:  # as a volume that fails refuses both
            self._is_behind = True

    def remove(self, path: str) -> None:
        """
        Record that a file is gone; called right before its removal makes it true.
        """
        self.unverified.discard(path)
        if self.files.pop(path, None) is not None:
            try:
                self._append(f"[{_quoted(path)}]\n".encode())
            except OSError:  # a full disk, which a removal may fix: catch up when it has room
                self._is_behind = True

    def compact(self) -> None:
        """
        Rewrite the journal when dead lines outweigh live ones, or when it was removed.
        """
        is_long = self._lines > 2 * len(self.files) + SLACK_LINES
        if is_long or self._is_behind or not is_at(self._name, self._dir_fd, self._fd):
            self._rewrite()

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
        if written != len(data):  # the disk is full: take the half line back
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._fsync:
            os.fsync(self._fd)
        self._lines += 1

    def _rewrite(self) -> None:
        """
        Replace the journal by one line a file and keep it open for appending.
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


def _line(path: str, managed: Managed) -> bytes:
    """
    Return a file's line; json.dumps would take five times as long.
    """
    m = managed
    mark = "" if m.is_verified else ",0"
    return (
        f"[{_quoted(path)},{_quoted(m.etag)},{m.size_bytes},{m.mtime_ns},{m.inode},{m.mode}{mark}]\n"
    ).encode()


def load_managed(
    dir_fd: int, root_fd: int | None, name: str = NAME, *, is_shared: bool = True
) -> tuple[dict[str, Managed], bool]:
    """
    Read the journal; a missing or damaged one loses what cannot be read, never a file.

    Returns:
        What is listed, and whether something was lost.

    Args:
        root_fd: As of :class:`ManagedList`; None where that folder is gone.
        is_shared: Whether others have files in the folder too: one of theirs must not be taken for
            one that was about to be ours. Where all is ours, a last file that never came stays
            listed, and counts as damaged.
    """
    files: dict[str, Managed] = {}
    try:
        journal = open_file(name, dir_fd=dir_fd)
    except OSError:  # missing, or not a file
        return files, True
    before: Managed | None = None
    last, number = "", 0
    with journal:
        try:
            if json.loads(journal.readline(LINE_BYTES)) != HEADER:
                raise ValueError("not a list of managed files")
            while line := journal.readline(LINE_BYTES):
                if len(line) < LINE_BYTES and not line.endswith(b"\n"):
                    break  # half a line: its writer was killed
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
        if is_shared and (there is None or there.st_ino != files[last].inode):
            del files[last]  # killed before the rename
            if before is not None:
                files[last] = before
    elif before is not None and there is not None and before.of(there) is not None:
        # Killed before the removal, and perhaps copied since; a new file has the inode, no more.
        files[last] = before
    return files, False


def _read_line(line: bytes) -> tuple[str, Managed | None]:
    """
    Return the path of a line, and its file unless the line is a removal.

    Whoever can write to the volume can write this file too, so a path that no key could have
    brought is refused: it could lead out of the target.

    Raises:
        ValueError, TypeError, RecursionError: It is not a line of ours.
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
