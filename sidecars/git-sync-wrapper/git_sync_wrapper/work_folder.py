"""
git-sync's root on the volume, to which others may write: what of it is fit for the next
run, and what is not from git-sync.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress

from git_sync_wrapper.reasons import failure
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import FACTS_BYTES, read_file
from sidecar_runtime.volume.own import Opened, folder_of, own_folder, walk, write_own
from sidecar_runtime.volume.snapshots import aside_name, opened, remove_tree

ROOT = ".git-sync"
"""git-sync's own root, below the root that consumers mount."""
STORE = ".snapshots"
GIT = ".git"
CANDIDATE = "candidate"
WORKTREES = ".worktrees"
FOREIGN = "work_folder_foreign"
# What a killed git leaves: locks, and unfinished objects, by their names in
# gitformat-pack(5), object-file.c and fetch's quarantine.
_LEFT = re.compile(r"tmp_(obj|pack|idx|rev|objdir-).*|.*\.lock|gc\.pid")
# What git-sync's repository never has. From these git would read a configuration,
# objects or programs: https://git-scm.com/docs/gitrepository-layout.
_NEVER = re.compile(
    r"\.git/(modules|commondir|config\.worktree|info/(attributes|grafts)|refs/replace"
    r"|hooks/(?!.*\.sample$).*|(.*/)?objects/info/(http-)?alternates)"
)
_CHECKOUT = re.compile(r"\.git/worktrees/([^/]*)/(commondir|gitdir)")
# What git has found out about the volume, and of a partial clone. All other lines of
# its configuration are of no use to the next run.
_KEPT = re.compile(
    r"\[(core|extensions)\]|\s*(repositoryformatversion|filemode|symlinks|ignorecase"
    r"|objectformat|promisor|partialclonefilter) = [\w:.-]+"
)

log = get_logger("volume")


class WorkFolder:
    """
    The folder that git-sync has as its root, below that of the wrapper.
    """

    def __init__(self, root: str) -> None:
        self.path = os.path.join(root, ROOT)
        self._root = root

    def opened(self, *names: str) -> Opened:
        """
        Open it, or a folder below it, without creating any.

        Raises:
            FileNotFoundError, NotADirectoryError: One of them is missing, or is none.
        """
        return folder_of(os.path.join(self.path, *names, "."), self._root, opened)

    def prepare(self, repo: str) -> str:
        """
        Make it fit for git: without checkouts and what a killed git left, and with a
        configuration of which nobody else has written a line. If anything else in it is
        not from git-sync, all of it is removed, and fetched again.

        Returns:
            The other owners' repositories that git may use: none, as somebody may
            exchange this one meanwhile; but all (``*``) where our files are another's.

        Raises:
            SidecarError: ``work_folder_foreign``: it can be neither removed nor moved.
            OSError: The volume fails.
        """
        ours = owner = os.geteuid()
        try:
            self.clear()
            with (
                folder_of(f"{self.path}/.", self._root) as top,
                own_folder(GIT, top) as git,
            ):
                owner = _configure(git, repo)
                found = self._inspect(top, owner)
        except (NotADirectoryError, PermissionError) as error:
            found = str(error)
        if found:
            log.warning(FOREIGN, found=found)
            self.remove()
        return "" if owner == ours else "*"

    def _inspect(self, top: int, uid: int) -> str:
        """
        Return what is not from git-sync; empty if nothing. What a killed git left is
        removed.

        Args:
            uid: The owner of our own files: some file systems (SMB, NFS that squashes
                users) have one owner for all.
        """
        if os.fstat(top).st_uid != uid:
            return ROOT
        removed = []
        for path, folder, name, found in walk(top):
            if _LEFT.fullmatch(name):
                remove_tree(name, folder)
                removed.append(path)
                continue
            is_known = stat.S_IFMT(found.st_mode) in (stat.S_IFDIR, stat.S_IFREG)
            if not is_known or found.st_uid != uid or _NEVER.fullmatch(path):
                return path
            # git would take the repository, or the checkout, from there.
            place = _CHECKOUT.fullmatch(path)
            if place:
                checkout = f"{self.path}/{WORKTREES}/{place[1]}/{GIT}"
                leads = {"commondir": "../..", "gitdir": checkout}[name]
                if read_file(name, FACTS_BYTES, dir_fd=folder) != f"{leads}\n".encode():
                    return path
        if removed:
            log.warning("repository_healed", removed=removed)
        return ""

    def clear(self) -> None:
        """
        Empty all checkouts, when they are published or refused. Their folders stay:
        git-sync removes them in its next run, and only then collects garbage.

        Raises:
            OSError: The volume fails, or the folder is none of ours.
        """
        with suppress(FileNotFoundError):
            with self.opened() as folder:
                for name in (CANDIDATE, "tmp-link"):
                    remove_tree(name, folder)
            with self.opened(WORKTREES) as folder:
                for name in os.listdir(folder):
                    remove_tree(name, folder)
                    os.mkdir(name, dir_fd=folder)

    def remove(self) -> None:
        """
        Remove it; what is another user's is only moved aside.

        Raises:
            SidecarError: ``work_folder_foreign``: that is impossible as well.
        """
        aside = aside_name(ROOT)
        try:
            # In the store, where the next start sweeps up what a kill leaves of it.
            with (
                suppress(FileNotFoundError),
                opened(self._root) as above,
                opened(STORE, above) as store,
            ):
                os.rename(ROOT, aside, src_dir_fd=above, dst_dir_fd=store)
                remove_tree(aside, store)
        except OSError as error:
            raise failure(
                FOREIGN, f"cannot remove {self.path}: {error.strerror}"
            ) from error


def _configure(git: int, repo: str) -> int:
    """
    Keep what is useful of the configuration; return the owner of what we write.
    """
    partial = f'[remote "{repo}"]'
    lines = [
        x
        for x in read_text("config", git).split("\n")
        if x == partial or _KEPT.fullmatch(x)
    ]
    return write_own("config", "\n".join([*lines, ""]).encode(), git)


def read_text(path: str, folder: int | None = None) -> str:
    """
    Return the text of a small file; empty if there is none.
    """
    with suppress(OSError):
        return read_file(path, FACTS_BYTES, dir_fd=folder).decode(errors="replace")
    return ""
