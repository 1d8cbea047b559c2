"""
The file system below the target: opens folders without following links; fatal errors.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress

from s3_sync.keys import DEPTH_LIMIT, RESERVED
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import FACTS_BYTES, is_at, read_file, write_file
from sidecar_runtime.volume.trees import FOLDER_FLAGS, FOLDER_MODE, remove_tree

PATH_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
STAGING = "staging"
# The working copies for snapshots, and for in place behind a gate; their file modes differ.
TREE = "tree"
STAGED = "staged"
PUBLISHING = "publishing"
SNAPSHOTS = "snapshots"
SNAPSHOTS_PATH = f"{RESERVED}/{SNAPSHOTS}"
LINK = "current"
AIRFLOWIGNORE = ".airflowignore"
# Plain names mean the same in both of its syntaxes, glob and regular expression.
_HIDDEN = "".join(f"{name}\n" for name in (STAGING, TREE, STAGED, SNAPSHOTS)).encode()
# A larger buffer would be a separate memory mapping for each of many small files.
BLOCK_BYTES = 64 << 10
BYTECODE = "__pycache__"
# Never deleted under S3_SYNC_DELETE=all: bytecode, and the folder that mkfs creates.
SPARED = {BYTECODE, "lost+found"}
# Errors that end the cycle, because the volume fails and not a single path.
VOLUME_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE}

log = get_logger("target")


class Volume:
    """
    The open target folder, its `.s3-sync`, and the staging folder for all parts.

    Belongs to one thread.

    Attributes:
        root: The target folder.
        state: `.s3-sync` in it.
        staging: `staging` in `.s3-sync`: files in it are renamed into place or removed.

    Raises:
        OSError: From every method, if the file system fails.
    """

    def __init__(self, path: str, *, fsync: bool) -> None:
        self.path = path
        self.fsync = fsync
        with ExitStack() as stack:
            self.root, self.state = open_folders(path)
            stack.callback(os.close, self.root)
            stack.callback(os.close, self.state)
            self.staging = open_own_folder(STAGING, self.state)
            stack.callback(os.close, self.staging)
            self._root_found = os.fstat(self.root)
            self._sweep()
            self._hide()
            self._open = stack.pop_all()

    def is_current(self) -> bool:
        """
        Whether the open folders are still at their paths.

        They are not if the target, or `.s3-sync`, was removed and created again.
        """
        return (
            self.is_at_path()
            and is_at(RESERVED, self.root, self.state)
            and is_at(STAGING, self.state, self.staging)
        )

    def is_at_path(self) -> bool:
        """
        Whether the open target folder is still at its path.
        """
        try:
            return os.path.samestat(os.stat(self.path), self._root_found)
        except OSError:
            return False

    def close(self) -> None:
        """
        Close all open folders.
        """
        self._open.close()

    def write_state(self, name: str, content: bytes, fence: Fence) -> None:
        """
        Replace a file in `.s3-sync`.
        """
        with fence:
            write_file(name, content, 0o664, fsync=self.fsync, dir_fd=self.state)

    def half_shown(self) -> str:
        """
        Return the name passed to :meth:`begin_showing` if it may be partially in place; else empty.
        """
        if not is_there(PUBLISHING, self.state):
            return ""
        with suppress(OSError):
            name = read_file(PUBLISHING, FACTS_BYTES, dir_fd=self.state)
            return name.decode(errors="replace") or "unknown"
        return "unknown"

    def begin_showing(self, name: str, fence: Fence) -> None:
        """
        Note that files which belong together are about to be replaced one by one.
        """
        self.write_state(PUBLISHING, name.encode(), fence)

    def end_showing(self, fence: Fence) -> None:
        """
        Note that all these files are in place, and recorded.
        """
        with fence, suppress(FileNotFoundError):
            os.unlink(PUBLISHING, dir_fd=self.state)

    def _sweep(self) -> None:
        """
        Remove files that a killed process left in staging.
        """
        for name in os.listdir(self.staging):
            try:
                remove_tree(name, self.staging)
            except OSError as error:
                log.warning("leftover_kept", name=name, error=error.strerror)

    def _hide(self) -> None:
        """
        Keep Airflow's folder walk, which includes hidden folders, out of `.s3-sync`.

        A full disk must not prevent the start.
        """
        try:
            held = read_file(AIRFLOWIGNORE, FACTS_BYTES, dir_fd=self.state)
        except OSError:
            held = b""
        if held != _HIDDEN:
            with suppress(OSError):
                write_file(AIRFLOWIGNORE, _HIDDEN, 0o664, fsync=self.fsync, dir_fd=self.state)


def open_folders(path: str) -> tuple[int, int]:
    """
    Open the target folder and its `.s3-sync`; create missing folders.

    The path itself may be a symlink, which the user chose; nothing below it may be.
    """
    os.makedirs(path, mode=FOLDER_MODE, exist_ok=True)
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return root, open_own_folder(RESERVED, root)
    except OSError:
        os.close(root)
        raise


def is_there(name: str, folder: int) -> bool:
    """
    Whether an open folder has an entry of this name.
    """
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def foreign_files(root: int, managed: Collection[str]) -> list[str]:
    """
    Return all files and links below the open target that are not managed, except in folders that
    are too deep for managed files.
    """
    found: list[str] = []
    for folder, folders, files, folder_fd in os.fwalk(dir_fd=root):
        here = os.path.normpath(folder)
        if here == ".":
            folders[:] = [name for name in folders if name != RESERVED]
        folders[:] = [name for name in folders if name not in SPARED]
        links = [name for name in folders if is_link(name, folder_fd)]
        if here.count("/") >= DEPTH_LIMIT:
            folders.clear()
        for name in [*files, *links]:
            path = os.path.normpath(os.path.join(here, name))
            # NFS renames a file to .nfs* if it is removed but still open.
            if path not in managed and not name.startswith(".nfs"):
                found.append(path)
    return found


def open_own_folder(name: str, parent: int) -> int:
    """
    Open or create a folder of s3-sync's own; a symlink or a file in its place is removed.

    Only a file in place of `.s3-sync` itself stays, because it may belong to another owner.
    """
    try:
        return os.open(name, FOLDER_FLAGS, dir_fd=parent)
    except FileNotFoundError:
        pass
    except OSError as error:
        is_foreign = name == RESERVED and not is_link(name, parent)
        if error.errno not in (errno.ELOOP, errno.ENOTDIR) or is_foreign:
            raise
        log.warning("own_folder_replaced", path=name)
        os.unlink(name, dir_fd=parent)
    os.mkdir(name, FOLDER_MODE, dir_fd=parent)
    return os.open(name, FOLDER_FLAGS, dir_fd=parent)


def is_link(name: str, dir_fd: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def read_blocks(fd: int) -> Iterator[bytes]:
    while block := os.read(fd, BLOCK_BYTES):
        yield block


def set_mode(fd: int, mode: int) -> None:
    """
    Set the mode if the file system supports modes (SMB and some FUSE file systems do not).
    """
    try:
        os.fchmod(fd, mode)
    except PermissionError as error:
        log.debug("mode_not_set", error=error.strerror)


def sync_folder(folder: int) -> None:
    """
    Flush the folder itself; reopen it, because an O_PATH descriptor cannot be flushed.
    """
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
