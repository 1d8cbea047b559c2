"""
Files on a shared volume: replaced and read as a whole, the lock of their one publisher,
and why that fails.
"""

import errno
import fcntl
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, BinaryIO

from sidecar_runtime.errors import SidecarError

NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW

FACTS_BYTES = 1 << 20
"""Maximum size of a JSON file of facts; the largest lists a few dozen paths."""
HOLDER_BYTES = 300
"""Of the description of a lock's holder; a host name has at most 253."""


def write_file(
    path: str, content: bytes, mode: int, *, fsync: bool, dir_fd: int | None = None
) -> int:
    """
    Replace a file as a whole: temporary file in the same directory → rename. Return its
    owner, which some file systems (SMB, NFS that squashes users) choose.

    A crash half-way leaves the old file and at most one ``.<name>.new`` beside it,
    which the next call replaces. `dir_fd` makes `path` relative to an open directory.

    Raises:
        OSError: The directory is not writable, or the disk is full; the old file is
            untouched.
    """
    head, tail = os.path.split(path)
    temporary = os.path.join(head, f".{tail}.new")
    shutil.rmtree(temporary, ignore_errors=True, dir_fd=dir_fd)  # only a folder
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=dir_fd)
    fd = os.open(temporary, NEW_FILE, mode, dir_fd=dir_fd)
    try:
        with open(fd, "wb", buffering=0):
            set_mode(fd, mode)
            write_all(fd, content)
            if fsync:
                os.fsync(fd)
            owner = os.fstat(fd).st_uid
        os.rename(temporary, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except OSError:
        os.unlink(temporary, dir_fd=dir_fd)
        raise
    return owner


def set_mode(fd: int, mode: int) -> None:
    """
    Set the mode of an open file, if the file system allows it (SMB and some FUSE file
    systems do not). Without it, a new file has the mode that it was created with, which
    the umask narrows.
    """
    with suppress(OSError):
        os.fchmod(fd, mode)


def sync_folder(folder: int) -> None:
    """
    Flush an open folder to disk, if its file system can do that (SMB and some FUSE file
    systems cannot).

    Raises:
        OSError: The volume fails.
    """
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def stat_in(name: str, folder: int) -> os.stat_result | None:
    """
    Return the lstat result of a name in an open folder; None if it does not exist.
    """
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None


def is_at(name: str, above: int, opened: int) -> bool:
    """
    Whether a name in an open folder still refers to the file or folder that is open.
    """
    # it is gone; on NFS, the open one is stale if another client removed it
    with suppress(OSError):
        return os.path.samestat(
            os.stat(name, dir_fd=above, follow_symlinks=False), os.fstat(opened)
        )
    return False


def nearest_folder(path: str) -> str:
    """
    Return the folder at a path, or its nearest existing parent; or the file or dangling
    link that is in the way of that folder.

    Raises:
        OSError: Nobody can say whether it exists, as on a volume whose server is gone.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return nearest_folder(os.path.dirname(path))
    return path


def free_bytes(place: int | str) -> float:
    """
    Return the free space for this process at an open folder or a path, in bytes;
    infinite if the file system does not report it (some FUSE file systems report zero
    blocks in total).
    """
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize if found.f_blocks else math.inf


def write_all(fd: int, content: bytes) -> None:
    """
    Write all of the content.

    Raises:
        OSError: The disk is full.
    """
    while content:
        content = content[os.write(fd, content) :]


def read_facts(name: str, folder: int) -> dict[str, Any]:
    """
    Read a JSON object from an open folder; empty if the file is missing or contains
    anything else.

    Raises:
        OSError: The volume fails.
    """
    try:
        facts = json.loads(read_file(name, FACTS_BYTES, dir_fd=folder))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, OSError) and error.errno not in ABSENT_ERRORS:
            raise
        return {}
    return facts if isinstance(facts, dict) else {}


def open_file(path: str, *, dir_fd: int | None, follow: bool = False) -> BinaryIO:
    """
    Open a regular file for reading; symlinks and other kinds of files (pipes) are
    refused.

    Args:
        follow: Whether the path may be a symlink, as a Secret's files are.

    Raises:
        OSError: It is missing, or not a regular file.
    """
    fd = os.open(
        path,
        os.O_RDONLY | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW),
        dir_fd=dir_fd,
    )
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return open(fd, "rb")


def read_file(
    path: str, most_bytes: int, *, dir_fd: int | None = None, follow: bool = False
) -> bytes:
    """
    Read a regular file, as in :func:`open_file`.

    Args:
        most_bytes: Larger files are refused unread: whoever can write to the volume may
            create one, and a process that runs out of memory would do so again at each
            start.

    Raises:
        OSError: It is missing, too large, or not a regular file.
    """
    with open_file(path, dir_fd=dir_fd, follow=follow) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes > most_bytes:
            raise OSError(errno.EFBIG, f"it has {size_bytes} bytes", path)
        return file.read(most_bytes)


# --- failures

FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT}
# Of a file that is missing, of another kind, too large or another user's.
ABSENT_ERRORS = {
    errno.ENOENT,
    errno.ELOOP,
    errno.EINVAL,
    errno.ENXIO,
    errno.EFBIG,
    errno.EACCES,
}
DENIED_ERRORS = {errno.EACCES, errno.EPERM, errno.EROFS}

# A sizeLimit makes only a volume in memory full: on disk, the kubelet evicts the pod
# instead.
FULL_ADVICE = (
    "Free space, or inodes (df -i), on the node's disk or enlarge the claim; for a volume in "
    "memory, raise its sizeLimit. The published files are unchanged."
)
DENIED_ADVICE = (
    "Mount the volume writable here; set the pod's fsGroup or runAsUser to its owner."
)
READ_ONLY_ADVICE = (
    "Remove readOnly from the volumeMount or claim. If it is not there, the node has lost the "
    "disk: see its kernel's log."
)
OTHER_ADVICE = "Check the volume and its node."
_ADVICE = {
    errno.EOPNOTSUPP: "Use a volume whose file system supports it, such as an emptyDir, a block "
    "device or NFS 4.",
    **dict.fromkeys(
        (errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENXIO, errno.EEXIST),
        "Something else is where that file or folder should be: find out what put it there, and "
        "remove it.",
    ),
    errno.EXDEV: "Another volume is mounted at that path, inside the target. Mount it elsewhere.",
}
LINK_ADVICE = (
    "Move it away, and mount nothing at this path: consumers mount its parent folder."
)


class TargetError(SidecarError):
    """
    The target cannot be written.
    """


@contextmanager
def explained(what: str) -> Iterator[None]:
    """
    Turn failures of the file system into errors with advice; see
    :func:`explain_os_error`.
    """
    try:
        yield
    except OSError as error:
        raise explain_os_error(error, what) from error


@contextmanager
def needing(what: str) -> Iterator[None]:
    """
    Say what the file system of the volume lacks, if it does not have this.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in {
            errno.EPERM,
            errno.EOPNOTSUPP,
            errno.ENOSYS,
            errno.ENOLCK,
        }:
            raise
        raise OSError(
            errno.EOPNOTSUPP,
            f"its file system does not support {what} ({error.strerror})",
        ) from None


def explain_os_error(error: OSError, what: str) -> TargetError:
    """
    Return the error for a failure of the file system, with advice.

    Args:
        what: The failed operation, such as ``cannot write to /dags``.
    """
    said = f"{what}: {error.strerror or error}"
    if error.errno in FULL_ERRORS:
        return TargetError("target_full", said, FULL_ADVICE)
    name = error.filename
    if isinstance(name, str) and name not in what:
        said += f": {name!r}"  # what is in the way, such as a lock that is a folder
    if error.errno in DENIED_ERRORS:
        said += f" (as uid {os.getuid()}, gid {os.getgid()})"
        return TargetError(
            "target_denied",
            said,
            READ_ONLY_ADVICE if error.errno == errno.EROFS else DENIED_ADVICE,
        )
    return TargetError(
        "target_failed", said, _ADVICE.get(error.errno or 0, OTHER_ADVICE)
    )


# --- one publisher at a time


class TargetLock:
    """
    An exclusive ``flock`` on a file of the target, held until the process ends.

    The kernel releases it when the holder dies, for any reason. The file's content
    describes the holder. The file is never removed: otherwise two processes could lock
    two files with the same name.
    """

    def __init__(self) -> None:
        self._fd: int | None = None

    def try_acquire(self, name: str, dir_fd: int) -> bool:
        """
        Try to become the lock holder; True if this process is, even if it already was.

        A lock file that was removed or replaced meanwhile (a wiped volume) is locked
        again.

        Raises:
            OSError: The file cannot be created or opened.
        """
        if self._fd is not None and is_at(name, dir_fd, self._fd):
            return True
        self.release()
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o664, dir_fd=dir_fd)
        with ExitStack() as stack:
            stack.callback(os.close, fd)
            # one that was removed between both calls is nobody's lock
            if not (take_flock(fd) and is_at(name, dir_fd, fd)):
                return False
            stack.pop_all()
        self._fd = fd
        # Another name of it is another file to somebody: nothing is written there.
        if os.fstat(fd).st_nlink == 1:
            with suppress(OSError):  # a full disk: the lock is held regardless
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"pid {os.getpid()} on {os.uname().nodename}".encode(), 0)
        return True

    def release(self) -> None:
        """
        Release the lock.
        """
        if self._fd is not None:
            with suppress(OSError):  # on a dead mount: it is closed all the same
                os.close(self._fd)
            self._fd = None


def take_flock(fd: int) -> bool:
    """
    Lock an open file exclusively until it is closed; False while another process has
    locked it.

    Raises:
        OSError: The file system has no ``flock``.
    """
    with needing("flock"):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def read_holder(name: str, dir_fd: int) -> str:
    """
    Return the lock holder as it describes itself, such as ``pid 7 on airflow-0``. If
    that has died, another program has the lock: no kernel shows those of other pods.

    Another process may have written the file, so no other content of it is returned.
    """
    with suppress(OSError, UnicodeDecodeError):
        holder = read_file(name, HOLDER_BYTES, dir_fd=dir_fd).decode()
        if re.fullmatch(r"pid \d+ on [\w.-]+", holder):
            return f"{holder} (or, if that is gone, an unknown program)"
    return "an unknown process"
