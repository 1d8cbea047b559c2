"""
git-sync itself: one run fetches a commit, checks it out below its own root, and exits.
If it fails again in the same way, :meth:`Engine.run` starts over from an empty
repository.

Nobody but the wrapper reads that root. Its checkout is emptied when it has been
published, so what stays between runs is a repository. Before a run, obstacles from
which git-sync does not recover are removed; each stopped a plain git-sync 4.7.1 for
good, or made it discard its repository: a lock file that a killed git left behind
(kubernetes/git-sync#914), the temporary link of a killed publish, a link that is a
folder. The caller holds the lock of the volume, and no git of ours is alive.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress

from git_sync_wrapper.git import Git, GitFailed, configured
from git_sync_wrapper.logins import Access, Logins
from git_sync_wrapper.options import FULL_COMMIT, Options, for_git_sync
from git_sync_wrapper.reasons import KEPT, explain, failure, heard
from git_sync_wrapper.snapshot import STORE
from sidecar_runtime import child, proxies
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import explained, nearest_folder, write_file

ROOT = ".git-sync"
"""git-sync's own root, below the root that consumers mount."""
GIT = ".git"
CANDIDATE = "candidate"
WORKTREES = ".worktrees"
PUBLISHED = "refs/heads/published"
FAILED = "failed"
"""
The reason of the last failure, so that one that repeats is known after a restart as
well.
"""
STARTED_OVER = "started over: "
REPORT = "error.json"
# In addition to --sync-timeout, for git-sync's start and clean-up.
GRACE_SECONDS = 60.0
LAST_LINES = 20
# git's names for unfinished objects: gitformat-pack(5), object-file.c, and fetch's
# quarantine.
_UNFINISHED = ("tmp_obj_", "tmp_pack_", "tmp_idx_", "tmp_rev_", "tmp_objdir-")

log = get_logger("git-sync")


class Engine:
    """
    Runs git-sync, one run at a time.

    Args:
        program: git-sync.
        root: Its root, a folder that is the wrapper's own.
    """

    def __init__(
        self,
        program: str,
        options: Options,
        environ: Mapping[str, str],
        git: Git,
        root: str,
    ) -> None:
        self.root = root
        self._failed = os.path.join(os.path.dirname(root), STORE, FAILED)
        self._program = program
        self._options = options
        self._environ = for_git_sync(environ) | proxies.for_others(environ)
        self._git = git

    # --- a run

    def run(self, logins: Logins, fence: Fence, **instead: str) -> str:
        """
        Sync once; return the commit that is checked out now. If a failure repeats while
        the remote answers, it may come from the repository here: one run starts over
        from an empty one.

        Args:
            instead: Flags of git-sync that override the settings.

        Raises:
            SidecarError: It failed, or could not be started; the reason depends on the
                cause.
            CycleAbandoned: The fence was revoked; git-sync and all its git processes
                are gone.
        """
        try:
            commit = self._run(logins, fence, instead)
        except SidecarError as error:
            before = _read(self._failed)
            is_ours = (
                before == error.reason and error.reason not in KEPT and not instead
            )
            if is_ours and self._git.answers(logins.prepare(fence), fence):
                self.throw_away()
                self._note(f"{STARTED_OVER}{error.reason}")
                return self._run(logins, fence, instead)
            if before != f"{STARTED_OVER}{error.reason}":
                self._note(error.reason)
            raise
        self._note("")
        return commit

    def _run(self, logins: Logins, fence: Fence, instead: Mapping[str, str]) -> str:
        with explained(f"cannot clear {self.root}"):
            self.clear()
            self._heal()
        access = logins.prepare(fence)
        last: list[str] = []

        def hear(line: str) -> None:
            last[:] = [*last, self._log(line)][-LAST_LINES:]

        # git-sync leaves a git configuration in its TMPDIR after each run.
        with logins.scratch() as folder:
            code = self._call(access, folder, hear, fence, instead)
            said = self._options.hide(_read(os.path.join(folder, REPORT)))
        if code == 0:
            return self._candidate()
        cause = explain(
            heard(said) if said else "\n".join(last),
            f"git-sync ended with {child.ending(code)}",
        )
        if cause.reason == "target_full":
            logins.check_room(nearest_folder(self.root))
        if cause.reason == "git_too_old":
            cause = failure(cause.reason, f"{cause.message} ({self.versions(fence)})")
        raise access.explain(cause)

    def _call(
        self,
        access: Access,
        folder: str,
        hear: Callable[[str], None],
        fence: Fence,
        instead: Mapping[str, str],
    ) -> int:
        options = self._options
        configs = [*access.configs, *options.configs]
        environ = {
            **self._environ,
            **access.environ,
            **access.for_git_sync,
            "TMPDIR": folder,
        }
        environ |= {"GITSYNC_REPO": options.repo} | configured(environ, configs)
        flags = {
            "root": self.root,
            "link": CANDIDATE,
            "ref": options.ref,
            "error-file": os.path.join(folder, REPORT),
            "one-time": "true",
        }
        # git-sync does not get the variables of git-sync 3
        if options.sync_timeout > 0:
            flags["sync-timeout"] = f"{options.sync_timeout * 1000:.0f}ms"
        arguments = [
            f"--{name}={value}" for name, value in {**flags, **instead}.items()
        ]
        argv = [self._program, *options.arguments, *arguments]
        try:
            command = child.Command(argv, environ)
            seconds = options.sync_timeout + GRACE_SECONDS
            return child.run(command, fence, seconds, child.Lines(hear))
        except child.DeadlinePassed:
            raise failure("sync_timeout", "git-sync did not end in time") from None
        except OSError as error:
            said = f"cannot start {self._program}: {error.strerror}"
            raise failure("git_sync_unusable", said) from None

    def _log(self, line: str) -> str:
        """
        Log a line of git-sync; return what it says.
        """
        line = self._options.hide(line)
        said: object = None
        with suppress(ValueError):
            said = json.loads(line)
        message, error = line, ""
        if isinstance(said, dict):
            # Not the other fields: at some levels they contain configurations and
            # password digests.
            message, error = (
                str(said.get("msg", "")),
                str(said.get("error", said.get("err", ""))),
            )
        log.debug("git_sync_said", message=message, error=error)
        return heard(f"{message} {error}".strip())

    def _candidate(self) -> str:
        commit = os.path.basename(self.worktree)
        if FULL_COMMIT.fullmatch(commit) and os.path.isdir(self.worktree):
            return commit
        said = f"git-sync succeeded, but {self.worktree} is not a commit: is it git-sync 4?"
        raise failure("git_sync_failed", said)

    @property
    def worktree(self) -> str:
        """
        The folder of the commit that is checked out.
        """
        return os.path.realpath(os.path.join(self.root, CANDIDATE))

    def versions(self, fence: Fence) -> str:
        """
        Return the versions of git-sync and git, and the rule between them, for
        messages.
        """
        said = child.Kept(200)
        with suppress(OSError, child.DeadlinePassed):
            argv = [self._program, *self._options.arguments, "--version"]
            child.run(
                child.Command(argv, self._environ), fence, GRACE_SECONDS, said, said
            )
        git = b"unknown"
        with suppress(GitFailed):
            git = self._git.ask(["--version"], os.sep, fence)
        return f"git-sync {said}, {git.decode().strip()}; git-sync 4.8 needs git 2.46"

    # --- what is left of a run

    def clear(self) -> None:
        """
        Empty all checkouts, when they are published or refused. Their folders stay:
        git-sync removes them in its next run, and only then collects garbage.
        """
        if os.path.islink(self.root) or not os.path.isdir(self.root):
            _remove(self.root)
            return
        worktrees = glob.glob(f"{WORKTREES}/*", root_dir=self.root)
        for name in (CANDIDATE, "tmp-link", *worktrees):
            path = os.path.join(self.root, name)
            _remove(path)
            if name in worktrees:
                os.mkdir(path)

    def throw_away(self) -> None:
        """
        Remove git-sync's whole repository; the next run creates it again.

        This frees a full volume: git-sync keeps incomplete checkouts and objects, and
        would fail indefinitely, even once the source has shrunk.

        Raises:
            SidecarError: Something cannot be removed.
        """
        with explained(f"cannot clear {self.root}"):
            _remove(self.root)
        log.warning("repository_removed", root=self.root)

    def _heal(self) -> None:
        removed = []
        git = os.path.join(self.root, GIT)
        for folder, names, files in os.walk(git):
            found = names if folder == os.path.join(git, "objects") else []
            found = [name for name in found + files if name.startswith(_UNFINISHED)]
            found += [
                name for name in files if name.endswith(".lock") or name == "gc.pid"
            ]
            for path in (os.path.join(folder, name) for name in found):
                _remove(path)
                removed.append(os.path.relpath(path, self.root))
        if removed:
            log.warning("repository_healed", removed=removed)

    def _note(self, reason: str) -> None:
        if reason != _read(self._failed):
            with suppress(OSError):
                write_file(self._failed, reason.encode(), 0o644, fsync=False)

    # --- commits that are here

    @property
    def is_pinned(self) -> bool:
        """
        Whether the ref is a hash, or was a tag in git-sync's last fetch.
        """
        return self._options.is_pinned or "\ttag '" in _read(
            f"{self.root}/{GIT}/FETCH_HEAD"
        )

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

    def check_whole(self, fence: Fence, restored: str = "") -> None:
        """
        Refuse a checkout that lacks files of its index: whoever can write to the volume
        may remove some while git writes them, or while they are linked.

        Args:
            restored: The folder from :meth:`restore`, instead of git-sync's checkout.

        Raises:
            SidecarError: Files are missing, or git cannot tell.
            CycleAbandoned: The fence was revoked.
        """
        given = self._restoring(restored) if restored else {}
        words = ["ls-files", "--deleted", "-z"]
        try:
            said = self._git.ask(words, restored or self.worktree, fence, **given)
        except GitFailed as error:
            said = str(error).encode()
        if said:
            lacks = said.decode(errors="replace").replace("\0", " ").strip()[:200]
            raise failure("target_incomplete", f"the checkout is incomplete: {lacks}")

    def keep(self, commit: str, name: str) -> None:
        """
        Keep the objects of the commit that will be published. git-sync forgets them
        once it has fetched newer commits, although the gate may refuse these; a repair
        would then need the remote. git finds the files of its submodules in the
        snapshot of this name from now on.
        """
        git = os.path.join(self.root, GIT)
        with suppress(OSError):
            write_file(
                os.path.join(git, PUBLISHED), f"{commit}\n".encode(), 0o644, fsync=False
            )
            configs = f"worktrees/{commit}/modules/**/config"
            for path in glob.glob(configs, root_dir=git, recursive=True):
                text = _read(os.path.join(git, path))
                text = text.replace(f"/{WORKTREES}/{commit}/", f"/../{STORE}/{name}/")
                write_file(os.path.join(git, path), text.encode(), 0o644, fsync=False)

    def restore(self, commit: str, fence: Fence) -> str:
        """
        Check a commit out again, from the repository here alone; return the folder.

        Empty if that is impossible: objects are missing, or only git-sync can do it
        (submodules).

        Raises:
            CycleAbandoned: The fence was revoked.
        """
        worktree = os.path.join(self.root, WORKTREES, commit)
        given = self._restoring(worktree)
        try:
            self.clear()
            self._heal()
            _remove(given["GIT_INDEX_FILE"])
            os.makedirs(worktree, exist_ok=True)
            self._git.ask(
                ["read-tree", "--reset", "-u", commit], worktree, fence, **given
            )
            pointer = f"gitdir: ../../{GIT}/worktrees/{commit}\n"
            write_file(
                os.path.join(worktree, GIT), pointer.encode(), 0o644, fsync=False
            )
        except (GitFailed, OSError) as error:
            log.warning("restore_failed", revision=commit, error=str(error))
            return ""
        return "" if os.path.exists(os.path.join(worktree, ".gitmodules")) else worktree

    def _restoring(self, worktree: str) -> dict[str, str]:
        git = os.path.join(self.root, GIT)
        index = os.path.join(git, "restored")
        return {"GIT_DIR": git, "GIT_WORK_TREE": worktree, "GIT_INDEX_FILE": index}


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
