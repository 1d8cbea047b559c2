"""
The open target folder, `.s3-sync` in it, and the staging folder.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from contextlib import ExitStack, suppress

from s3_sync.folder.folder import Folder
from s3_sync.folder.journal import NAME as MANAGED
from s3_sync.folder.journal import Held, Journal, read_journal
from s3_sync.folder.paths import open_own_folder, open_target
from s3_sync.folder.staging import StagingFolder
from s3_sync.keys import RESERVED
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import (
    FACTS_BYTES,
    FULL_ERRORS,
    is_at,
    read_file,
    stat_in,
    write_file,
)
from sidecar_runtime.volume.snapshots import FOLDER_FLAGS, remove_tree

STAGING = "staging"
SNAPSHOTS = "snapshots"
LINK = "current"
# Internal parts of 0.2 that nothing reads any more.
OF_0_2 = ("tree", "tree.managed", "staged", "staged.managed", "publishing")
AIRFLOWIGNORE = ".airflowignore"
# Plain names mean the same in both of its syntaxes, glob and regular expression.
_HIDDEN = f"{STAGING}\n{SNAPSHOTS}\n".encode()

log = get_logger("target")


class Volume:
    """
    The target folder and its `.s3-sync`, open; belongs to one thread.

    Attributes:
        root: The target folder.
        state: `.s3-sync` in it.
        staging: Files in it are renamed into place or removed.
        fold: What the file system takes names for; None if it distinguishes all of them.

    Raises:
        OSError: From every method, if the file system fails.
    """

    def __init__(self, path: str, *, file_mode: int, fsync: bool) -> None:
        self.path = path
        self.fsync = fsync
        with ExitStack() as stack:
            self.root = open_target(path)
            stack.callback(os.close, self.root)
            self.state = open_own_folder(RESERVED, self.root)
            stack.callback(os.close, self.state)
            staging = open_own_folder(STAGING, self.state)
            stack.callback(os.close, staging)
            self.staging = StagingFolder(staging, file_mode, fsync)
            _sweep(staging)
            for name in OF_0_2:
                remove_tree(name, self.state)
            self._hide()
            self.fold = find_folding(staging)
            self._open = stack.pop_all()

    def is_current(self) -> bool:
        """
        Whether the open folders are still at their paths.

        They are not if the target, or `.s3-sync`, was removed and created again.
        """
        try:
            is_there = os.path.samestat(os.stat(self.path), os.fstat(self.root))
        except OSError:
            return False
        return (
            is_there
            and is_at(RESERVED, self.root, self.state)
            and is_at(STAGING, self.state, self.staging.fd)
        )

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

    def open_in_place(self) -> tuple[Folder, bool]:
        """
        Open the target itself as a folder of files; return it, and whether its list is lost.
        """
        files, is_lost = read_journal(MANAGED, self.state, self.root, is_shared=True)
        journal = Journal(MANAGED, self.state, files, fsync=self.fsync, may_keep=not is_lost)
        return Folder(self.path, os.dup(self.root), files, journal, self.staging), is_lost

    def open_listed(self, name: str, store: int, path: str) -> tuple[Folder, bool]:
        """
        Open a snapshot with the list beside it; return it, and whether the list is lost.
        """
        fd = os.open(name, FOLDER_FLAGS, dir_fd=store)
        try:
            files, is_lost = read_journal(list_name(name), store, fd, is_shared=False)
            return Folder(path, fd, files, self.list(name, store, files, is_lost), self.staging), (
                is_lost
            )
        except BaseException:
            os.close(fd)
            raise

    def list(self, name: str, store: int, files: dict[str, Held], is_lost: bool) -> Journal:
        """
        Write the list of a snapshot beside it.
        """
        return Journal(list_name(name), store, files, fsync=self.fsync, may_keep=not is_lost)

    def remove_snapshots(self, fence: Fence) -> None:
        """
        Remove what the snapshot layout left, now that the files in place are published.
        """
        with fence:
            is_link = _leads_to_snapshots(self.root)
            if not is_link and stat_in(SNAPSHOTS, self.state) is None:
                return
            if is_link:
                os.unlink(LINK, dir_fd=self.root)
            remove_tree(SNAPSHOTS, self.state)

    def remove_in_place(self, fence: Fence) -> None:
        """
        Remove the files that were published in place, now that a snapshot is; those that were
        altered belong to others.
        """
        if stat_in(MANAGED, self.state) is None:
            return
        folder, _ = self.open_in_place()
        try:
            altered = folder.damaged(folder.files)
            for path in folder.files.keys() - altered:
                folder.delete(path, fence)
        finally:
            folder.close()
        with fence:
            os.unlink(MANAGED, dir_fd=self.state)

    def _hide(self) -> None:
        """
        Keep Airflow's folder walk, which includes hidden folders, out of `.s3-sync`.

        A full disk must not prevent the start.
        """
        with suppress(OSError):
            if read_file(AIRFLOWIGNORE, FACTS_BYTES, dir_fd=self.state) == _HIDDEN:
                return
        with suppress(OSError):
            write_file(AIRFLOWIGNORE, _HIDDEN, 0o664, fsync=self.fsync, dir_fd=self.state)


def _leads_to_snapshots(root: int) -> bool:
    try:
        return os.readlink(LINK, dir_fd=root).startswith(f"{RESERVED}/{SNAPSHOTS}/")
    except OSError:
        return False


def list_name(name: str) -> str:
    """
    Return the name of the list of a snapshot.
    """
    return f"{name}.{MANAGED}"


def find_folding(folder: int) -> Callable[[str], str] | None:
    """
    Return what a file system takes names for, if it ignores case or Unicode's normal forms.

    Raises:
        OSError: A file cannot be created.
    """
    name = f"folding-{os.getpid()}-\u00c9"  # É in one character
    try:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=folder))
    except OSError as error:
        if error.errno in FULL_ERRORS:
            return None
        raise
    ignores_case = stat_in(name.upper().lower(), folder) is not None
    ignores_form = stat_in(unicodedata.normalize("NFD", name), folder) is not None
    os.unlink(name, dir_fd=folder)
    if not (ignores_case or ignores_form):
        return None

    def fold(path: str) -> str:
        path = unicodedata.normalize("NFC", path) if ignores_form else path
        return path.casefold() if ignores_case else path

    return fold


def _sweep(staging: int) -> None:
    """
    Remove files that a killed process left in staging.
    """
    for name in os.listdir(staging):
        try:
            remove_tree(name, staging)
        except OSError as error:
            log.warning("leftover_kept", name=name, error=error.strerror)
