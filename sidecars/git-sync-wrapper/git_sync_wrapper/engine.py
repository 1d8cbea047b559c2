"""
git-sync itself: one run fetches a commit, checks it out below its own root, and exits.

Nobody but the wrapper reads that root. Its checkout is emptied when it has been
published, so what stays between runs is a repository. Before a run, obstacles from
which git-sync does not recover are removed (:mod:`git_sync_wrapper.work_folder`); each
stopped a plain git-sync 4.7.1 for good, or made it discard its repository: a lock file
that a killed git left behind (kubernetes/git-sync#914), the temporary link of a killed
publish, a link that is a folder. The caller holds the lock of the volume, and no git of
ours is alive.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from git_sync_wrapper.git import Git, GitFailed, configured
from git_sync_wrapper.logins import Access
from git_sync_wrapper.options import FULL_COMMIT, Options, for_git_sync
from git_sync_wrapper.reasons import explain, failure, heard
from git_sync_wrapper.snapshot import Row, Rows
from git_sync_wrapper.work_folder import (
    CANDIDATE,
    GIT,
    WORKTREES,
    WorkFolder,
    read_text,
)
from sidecar_runtime import child, proxies
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import explained, nearest_folder
from sidecar_runtime.volume.own import folder_of, write_own
from sidecar_runtime.volume.snapshots import opened, remove_tree

PUBLISHED = "published"
"""The branch of the published commit."""
INDEX = "restored"
ATTRIBUTES = ".gitattributes"
REPORT = "error.json"
# In addition to --sync-timeout, for git-sync's start and clean-up.
GRACE_SECONDS = 60.0
LAST_LINES = 20

# What git-annex commits instead of a file: a link, or unlocked, a pointer; both name its
# key. https://git-annex.branchable.com/internals/pointer_file/
_ANNEX = re.compile(r"((\.\./)*\.git)?/annex/objects/")
POINTER_BYTES = 300

log = get_logger("git-sync")


class Engine:
    """
    Runs git-sync, one run at a time.

    Args:
        program: git-sync.

    Attributes:
        worktree: The folder of the commit that the last run has checked out.
    """

    def __init__(self, program: str, options: Options, git: Git) -> None:
        self.work = WorkFolder(options.root)
        self.root = self.work.path
        self.worktree = ""
        self._program = program
        self._options = options
        self._environ = for_git_sync(os.environ) | proxies.for_others(os.environ)
        self._git = git

    # --- a run

    def run(self, fence: Fence, **instead: str) -> str:
        """
        Sync once; return the commit that is checked out now.

        Args:
            instead: Flags of git-sync that override the settings.

        Raises:
            SidecarError: It failed, or could not be started; the reason depends on the
                cause.
            CycleAbandoned: The fence was revoked; git-sync and all its git processes
                are gone.
        """
        return self._git.following(
            lambda access: self._run(access, fence, instead), fence
        )

    def _run(self, access: Access, fence: Fence, instead: Mapping[str, str]) -> str:
        with explained(f"cannot clear {self.root}"):
            self._git.trusted = self.work.prepare(self._git.repo)
        last: deque[str] = deque(maxlen=LAST_LINES)
        # git-sync leaves a git configuration in its TMPDIR after each run.
        with self._git.logins.scratch() as folder:
            code = self._call(access, folder, last, fence, instead)
            said = read_text(os.path.join(folder, REPORT))
        if code == 0:
            return self._candidate()
        cause = explain(
            heard(said) if said else "\n".join(last),
            f"git-sync ended with {child.ending(code)}",
        )
        if cause.reason == "target_full":
            self._git.logins.check_room(nearest_folder(self.root))
        if cause.reason == "git_too_old":
            cause = failure(cause.reason, f"{cause.message} ({self.versions(fence)})")
        raise access.explain(cause)

    def _call(
        self,
        access: Access,
        folder: str,
        last: deque[str],
        fence: Fence,
        instead: Mapping[str, str],
    ) -> int:
        options = self._options
        configs = [
            ("safe.directory", self._git.trusted),
            *access.configs,
            *options.git_config,
        ]
        environ = {
            **self._environ,
            **access.environ,
            "TMPDIR": folder,
            "GITSYNC_REPO": self._git.repo,
            "GIT_CEILING_DIRECTORIES": os.path.dirname(self.root),
        }
        environ |= configured(environ, configs)
        flags = {
            "root": self.root,
            "link": CANDIDATE,
            "ref": options.ref,
            "error-file": os.path.join(folder, REPORT),
            "one-time": "true",
            # git-sync does not get the variables of git-sync 3
            "sync-timeout": f"{options.sync_timeout * 1000:.0f}ms",
        }
        arguments = [
            f"--{name}={value}" for name, value in {**flags, **instead}.items()
        ]
        try:
            command = child.Command(
                [self._program, *options.arguments, *arguments],
                environ,
                title=f"git-sync of {self._git.repo}",
            )
            return child.run(
                command,
                fence,
                options.sync_timeout + GRACE_SECONDS,
                child.Lines(lambda line: last.append(self._log(line))),
            )
        except child.DeadlinePassed:
            raise failure("sync_timeout", "git-sync did not end in time") from None
        except OSError as error:
            raise failure(
                "git_sync_unusable", f"cannot start {self._program}: {error.strerror}"
            ) from None

    def _log(self, line: str) -> str:
        """
        Log a line of git-sync; return what it says.
        """
        said: Any = None
        with suppress(ValueError):
            said = json.loads(line)
        if not isinstance(said, dict):
            said = {"msg": line}
        # Not the other fields: at some levels they contain configurations and password
        # digests.
        message = str(said.get("msg", ""))
        error = str(said.get("error", said.get("err", "")))
        log.debug("git_sync_said", message=message, error=error)
        return heard(f"{message} {error}".strip())

    def _candidate(self) -> str:
        place = ""
        with suppress(OSError), self.work.opened() as folder:
            place = os.readlink(CANDIDATE, dir_fd=folder)
        above, commit = os.path.split(place)
        if above != WORKTREES or not FULL_COMMIT.fullmatch(commit):
            raise failure(
                "git_sync_failed",
                f"git-sync succeeded, but checked out {place!r}: is it git-sync 4?",
            )
        self.worktree = os.path.join(self.root, place)
        return commit

    def versions(self, fence: Fence) -> str:
        """
        Return the versions of git-sync and git, and the rule between them, for
        messages.
        """
        said = child.Kept(200)
        with suppress(OSError, child.DeadlinePassed):
            child.run(
                child.Command(
                    [self._program, *self._options.arguments, "--version"],
                    self._environ,
                ),
                fence,
                GRACE_SECONDS,
                said,
                said,
            )
        git = b"unknown"
        with suppress(GitFailed):
            git = self._git.ask(["--version"], os.sep, fence)
        return f"git-sync {said}, {git.decode().strip()}; git-sync 4.8 needs git 2.46"

    # --- what is left of a run

    def start_over(self, *, is_news: bool = True) -> None:
        """
        Remove git-sync's whole repository; the next run creates it again.

        This frees a full volume: git-sync keeps incomplete checkouts and objects, and
        would fail indefinitely, even once the source has shrunk.

        Raises:
            SidecarError: Something cannot be removed.
        """
        self.work.remove()
        if is_news:
            log.info("repository_removed", root=self.root, kept="the published files")

    def asked(self, fence: Fence) -> str:
        """
        Return what git-sync should bring now: what the remote has, and the settings;
        empty if the remote does not answer.

        Raises:
            CycleAbandoned: The fence was revoked.
        """
        try:
            remote = self._git.poll(fence)
        except SidecarError:
            return ""
        return (
            f"{remote} {self._options.source} {self._options.made_by} "
            f"{self._environ.get('GIT_DEFAULT_HASH', '')}"
        )

    # --- commits that are here

    @property
    def is_hash_or_tag(self) -> bool:
        """
        Whether the ref is a hash, or was a tag in git-sync's last fetch.
        """
        fetched = ""
        with suppress(OSError), self.work.opened(GIT) as git:
            fetched = read_text("FETCH_HEAD", git)
        return self._options.is_pinned or "\ttag '" in fetched

    def parent(self, commit: str, fence: Fence) -> str:
        """
        Return the first parent of a commit; empty if it has none.

        It is read from the commit object, which names it even in a shallow clone.

        Raises:
            SidecarError: git failed; the caller should try again.
            CycleAbandoned: The fence was revoked.
        """
        try:
            said = self._git.ask(["cat-file", "commit", commit], self.root, fence)
        except GitFailed as error:
            raise failure(
                "git_sync_failed", f"no parent of {commit}: {error}"
            ) from None
        head = said.decode(errors="replace").partition("\n\n")[0]
        found = re.search(r"^parent ([0-9a-f]+)$", head, re.MULTILINE)
        return found[1] if found else ""

    def check_whole(self, folder: str, fence: Fence, **environ: str) -> None:
        """
        Refuse a checkout that lacks files of its index: whoever can write to the volume
        may remove some while git writes them, or while they are linked.

        Args:
            folder: Where git finds the checkout: it is that of git-sync itself, or what
                the variables say.

        Raises:
            SidecarError: Files are missing, or git cannot tell.
            CycleAbandoned: The fence was revoked.
        """
        words = ["ls-files", "--deleted", "-z"]
        try:
            said = self._git.ask(words, folder, fence, **environ)
        except GitFailed as error:
            said = str(error).encode()
        if said:
            lacks = said.decode(errors="replace").replace("\0", " ").strip()[:200]
            raise failure("target_incomplete", f"the checkout is incomplete: {lacks}")

    def check_restored(self, checkout: str, fence: Fence) -> None:
        """
        Refuse a folder from :meth:`check_out` in the same way; its index is its own.
        """
        self.check_whole(self.root, fence, **self._restoring(checkout))

    def unfiltered(self, rows: Rows, fence: Fence) -> dict[str, str]:
        """
        Return the files of the checkout whose filter is set nowhere, or whose
        content git-annex has, and say so of each: they are as the server stores them,
        such as encrypted by git-crypt, or a pointer of Git LFS.

        Args:
            rows: The list of the checkout's files.

        Raises:
            CycleAbandoned: The fence was revoked.
        """
        options = self._options
        lacks = {}
        with (
            suppress(OSError),
            folder_of(f"{self.worktree}/.", options.root, opened) as top,
        ):
            for path, row in rows.items():
                if _ANNEX.match(_pointer(path, top, row)):
                    lacks[path] = "needs git-annex, which git-sync does not run"
        fields = b""
        # Nearly no repository has filters, and to ask git costs as much as 200 files.
        if (
            options.git_config
            or options.sparse_checkout_file
            or any(path.endswith(ATTRIBUTES) for path in rows)
        ):
            with suppress(GitFailed):
                said = self._git.ask(
                    [
                        "ls-files",
                        "-z",
                        "--recurse-submodules",
                        ":(exclude,attr:!filter)",
                    ],
                    self.worktree,
                    fence,
                )
                fields = said and self._git.ask(
                    ["check-attr", "-z", "--stdin", "filter"],
                    self.worktree,
                    fence,
                    said,
                )
        told = os.fsdecode(fields).split("\0")
        given = [key.rpartition(".")[0] for key, _ in options.git_config]
        known = {"filter.set", "filter.unset", *given}
        for path, filter in zip(told[::3], told[2::3], strict=False):
            if f"filter.{filter}" in known:
                continue
            # a sparse checkout lacks some
            if os.path.lexists(f"{self.worktree}/{path}"):
                lacks[path] = f"needs the filter {filter}, which git has no program for"
        return lacks

    def keep(self, commit: str) -> None:
        """
        Keep the objects of the commit that will be published. git-sync forgets them
        once it has fetched newer commits, although the gate may refuse these; a repair
        would then need the remote.
        """
        with suppress(OSError), self.work.opened(GIT, "refs", "heads") as refs:
            write_own(PUBLISHED, f"{commit}\n".encode(), refs)

    def check_out(self, commit: str, fence: Fence) -> str:
        """
        Check a commit out again, from the repository here alone; return the folder.

        Empty if that is impossible: objects are missing, or only git-sync can do it
        (submodules).

        Raises:
            CycleAbandoned: The fence was revoked.
        """
        worktree = os.path.join(self.root, WORKTREES, commit)
        pointer = f"gitdir: ../../{GIT}/worktrees/{commit}\n".encode()
        try:
            self._git.trusted = self.work.prepare(self._git.repo)
            with self.work.opened(GIT) as git:
                remove_tree(INDEX, git)
            with folder_of(f"{worktree}/{GIT}", self._options.root) as checkout:
                self._git.ask(
                    ["read-tree", "--reset", "-u", commit],
                    self.root,
                    fence,
                    **self._restoring(worktree),
                )
                write_own(GIT, pointer, checkout)
        except (GitFailed, OSError) as error:
            log.warning("restore_failed", revision=commit, error=str(error))
            return ""
        return "" if os.path.exists(os.path.join(worktree, ".gitmodules")) else worktree

    def _restoring(self, worktree: str) -> dict[str, str]:
        return {
            "GIT_WORK_TREE": worktree,
            "GIT_INDEX_FILE": os.path.join(self.root, GIT, INDEX),
        }


def _pointer(path: str, top: int, row: Row) -> str:
    """
    Return where a link leads, or the text of a small file; empty if it is neither.
    """
    if stat.S_ISLNK(row.mode):
        return os.readlink(path, dir_fd=top)
    # Not the many that are empty, such as __init__.py.
    if 0 < row.size_bytes <= POINTER_BYTES:
        return read_text(path, top)
    return ""
