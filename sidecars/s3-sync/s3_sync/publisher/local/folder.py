"""
Finds the files of a folder that become a release, and the problems that prevent it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from s3_sync.keys import refusal_of
from s3_sync.publisher.bundle import FileContent
from s3_sync.publisher.local.folder_errors import FolderError, joined
from s3_sync.publisher.local.ignore import Ignore
from s3_sync.release.chunk import row_bytes
from s3_sync.release.manifest import MANIFEST_LIMIT_BYTES
from s3_sync.release.rows import FILE_LIMIT_BYTES, FILES_LIMIT, TOTAL_LIMIT_BYTES

MIB = 1 << 20
# With folders that link to one another, each link doubles the number of paths, even without files.
LINKS_LIMIT = 10_000
_LEAVE_OUT = "Fix it, or exclude it: --exclude, or a line in .s3-sync-ignore."
_NAMES = {
    "unsafe_path": "its name is not UTF-8",
    "too_deep": "it is more than 200 folders deep",
    "name_too_long": "its name is longer than 255 bytes, or its path longer than 4,095 bytes",
    "reserved": "the name .s3-sync is reserved for the state of s3-sync",
}


@dataclass(frozen=True, slots=True)
class Found:
    """
    One file that belongs to the release.

    Args:
        real: The path to read; for a symlink, its target.
        state: Fields of its stat, to detect a change.
    """

    path: str
    real: str
    size_bytes: int
    is_executable: bool
    state: tuple[int, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Look:
    """
    The content of a folder at one moment.

    Args:
        files: The files to release, sorted by path.
        left_out: The paths that rules exclude; folders end in a slash.
    """

    files: tuple[Found, ...]
    left_out: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def look(folder: str, ignore: Ignore) -> Look:
    """
    Find the files of a release; symlinks are followed.

    Raises:
        FolderError: It is not a folder, is empty, or contains something that cannot be released;
            all problems are reported together.
    """
    if not folder:  # an unset CI variable; realpath would take it for the working directory
        raise FolderError("folder_missing", "the name of the folder is empty")
    walk = _FolderWalk(os.path.realpath(folder), ignore)
    try:
        walk.enter(walk.root, "", ())
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.path.isdir(folder):
            raise changing(f"{error.filename} is gone") from error
        raise FolderError("folder_missing", f"{folder} is not a folder") from error
    if walk.problems:
        raise joined(walk.problems)
    if not walk.files:
        raise FolderError(
            "folder_empty",
            f"{folder} contains no files to release ({len(walk.left_out)} left out)",
            "A release without files would empty every target. Pass the right folder.",
        )
    walk.files.sort(key=lambda file: file.path)
    found = Look(tuple(walk.files), tuple(sorted(walk.left_out)))
    if found.size_bytes > TOTAL_LIMIT_BYTES:
        raise FolderError(
            "release_too_large",
            f"{folder} has {_mib(found.size_bytes)} MiB; the limit is {_mib(TOTAL_LIMIT_BYTES)}",
            _LEAVE_OUT,
        )
    rows_bytes = sum(row_bytes(file.path, file.size_bytes) for file in found.files)
    if rows_bytes > MANIFEST_LIMIT_BYTES:
        raise FolderError(
            "release_too_large",
            f"the names of the {len(found.files)} files in {folder} take {_mib(rows_bytes)} MiB "
            f"of a manifest; the limit is {_mib(MANIFEST_LIMIT_BYTES)}",
            _LEAVE_OUT,
        )
    return found


def digests_of(files: Sequence[Found], tell: Callable[[int], object]) -> dict[str, str]:
    """
    Return the SHA-256 of each file, by path.

    Args:
        tell: Called with the number of files read.

    Raises:
        FolderError: Files cannot be read; all of them are reported.
    """
    digests = {}
    problems = []
    for number, file in enumerate(files, start=1):
        try:
            with _reading(file), open(file.real, "rb") as source:
                digests[file.path] = hashlib.file_digest(source, "sha256").hexdigest()
        except FolderError as problem:
            problems.append(problem)
        tell(number)
    if problems:
        raise joined(problems)
    return digests


def write_copy(contents: Iterable[FileContent], folder: str) -> list[str]:
    """
    Write files into another folder; return their paths.

    Raises:
        OSError: They cannot be written.
    """
    paths = []
    for content in contents:
        path = os.path.join(folder, content.path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content.data)
            os.fchmod(file.fileno(), 0o755 if content.is_executable else 0o644)
        paths.append(content.path)
    return paths


def contents(
    before: Look, digests: Mapping[str, str], tell: Callable[[int], object]
) -> Iterator[FileContent]:
    """
    Read the files again, one by one.

    Args:
        tell: Called with the number of files read.

    Raises:
        FolderError: A file cannot be read, or has changed.
    """
    for number, file in enumerate(before.files):
        with _reading(file), open(file.real, "rb") as source:
            data = source.read(FILE_LIMIT_BYTES + 1)
        if hashlib.sha256(data).hexdigest() != digests[file.path]:
            raise changing(f"{file.path} has changed")
        tell(number + 1)
        yield FileContent(file.path, data, file.is_executable)


def check_same(before: Look, after: Look) -> None:
    """
    Check that a folder has not changed.

    Raises:
        FolderError: It has changed.
    """
    if before.files != after.files:
        odd = min(set(before.files) ^ set(after.files), key=lambda file: file.path)
        raise changing(f"{odd.path} has changed")


def changing(what: str) -> FolderError:
    return FolderError(
        "folder_changing",
        f"the folder changes while it is being published: {what!r:.300}",
        "Publish after the checkout or build has finished.",
    )


@contextmanager
def _reading(file: Found) -> Iterator[None]:
    """
    Turn an error of reading a file into a :class:`FolderError`.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise changing(f"{file.path} is gone") from error
    except OSError as error:
        raise _unreadable(file.path, error) from error


class _FolderWalk:
    """
    One walk through the folder; collects problems in order to report all of them at once.
    """

    def __init__(self, root: str, ignore: Ignore) -> None:
        self.root = root
        self.files: list[Found] = []
        self.left_out: list[str] = []
        self.problems: list[FolderError] = []
        self._ignore = ignore
        self._links = 0

    def enter(self, real: str, prefix: str, above: tuple[str, ...]) -> None:
        """
        Add the content of one folder.

        Args:
            prefix: Its path in the release, with a trailing slash; empty for the root.
            above: The real paths of its parent folders.
        """
        try:
            with os.scandir(real) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except PermissionError as error:
            self.problems.append(_unreadable(prefix or self.root, error))
            return
        for entry in entries:
            try:
                self._take(entry, prefix + entry.name, (*above, real))
            except PermissionError as error:  # a folder that can be listed but not entered
                self.problems.append(_unreadable(prefix + entry.name, error))

    def _take(self, entry: os.DirEntry[str], path: str, above: tuple[str, ...]) -> None:
        is_link = entry.is_symlink()
        real = os.path.realpath(entry.path) if is_link else entry.path
        is_folder = os.path.isdir(real)
        is_left_out = self._ignore(path, is_folder=is_folder)
        self._links += is_link and is_folder and not is_left_out
        if self._links > LINKS_LIMIT:
            said = f"more than {LINKS_LIMIT} paths lead through folder symlinks, such as {path!r}"
            raise FolderError("release_too_large", f"{said:.300}", _LEAVE_OUT)
        if is_left_out:
            self.left_out.append(f"{path}/" if is_folder else path)
        elif is_link and not f"{real}/".startswith(f"{self.root}/"):
            said = f"{path!r:.300} is a symlink to a path outside the folder: {real!r:.300}"
            self.problems.append(FolderError("link_outside", said, _LEAVE_OUT))
        elif is_link and not os.path.exists(real):
            said = f"{path!r:.300} is a symlink to a path that does not exist: {real!r:.300}"
            self.problems.append(FolderError("link_dangling", said, _LEAVE_OUT))
        elif is_folder and real in above:
            said = f"{path!r:.300} is a symlink to a parent folder of its own"
            self.problems.append(FolderError("link_loop", said, _LEAVE_OUT))
        elif is_folder:
            self.enter(real, f"{path}/", above)
        else:
            self._add(path, real)

    def _add(self, path: str, real: str) -> None:
        found = os.stat(real)
        size = found.st_size
        if refusal := refusal_of(path, 0):
            said = f"{path!r:.300} cannot become a file: {_NAMES[refusal]}"
            self.problems.append(FolderError("name_refused", said, _LEAVE_OUT))
        elif not stat.S_ISREG(found.st_mode):
            said = f"{path!r:.300} is neither a file nor a folder"
            self.problems.append(FolderError("file_special", said, _LEAVE_OUT))
        elif size > FILE_LIMIT_BYTES:
            said = f"{path!r:.300} has {_mib(size)} MiB; the limit is {_mib(FILE_LIMIT_BYTES)}"
            self.problems.append(FolderError("file_too_large", said, _LEAVE_OUT))
        elif len(self.files) == FILES_LIMIT:
            said = f"the folder contains more than {FILES_LIMIT} files"
            raise FolderError("release_too_large", said, _LEAVE_OUT)
        else:
            is_executable = bool(found.st_mode & stat.S_IXUSR)
            state = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
            self.files.append(Found(path, real, size, is_executable, state))


def _mib(size_bytes: int) -> int:
    """
    Return a size in MiB, rounded up, so that a size just over a limit differs from it.
    """
    return -(-size_bytes // MIB)


def _unreadable(path: str, error: OSError) -> FolderError:
    said = f"cannot read {path!r:.300}: {error.strerror}"
    return FolderError("file_unreadable", said, "Run as a user who can read the whole folder.")
