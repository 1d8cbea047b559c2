"""
One run of git-sync: it fetches a commit, checks it out into its own root, and exits.

All its settings are in its environment, because every process can read an argument list.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field

from git_sync_wrapper.engine.heal import CANDIDATE, GIT, WORKTREES, heal
from git_sync_wrapper.engine.submodules import may_have_submodules
from git_sync_wrapper.flags.options import FULL_COMMIT, Options
from git_sync_wrapper.flags.table import BY_NAME
from git_sync_wrapper.git import clean, configured, surroundings
from git_sync_wrapper.login.access import Access
from git_sync_wrapper.refusals import explain, heard
from git_sync_wrapper.settings import PREFIX
from sidecar_runtime import child
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.errors import explain_os_error
from sidecar_runtime.volume.files import nearest_folder

# Flags that the wrapper implements itself; they are not passed to git-sync.
OURS = frozenset(
    {
        "root",
        "link",
        "error-file",
        "init-period",
        "period",
        "one-time",
        "sync-on-signal",
        "max-failures",
        "init-max-failures",
        "touch-file",
        "add-user",
        "stale-worktree-timeout",
        "git-config",
        "git-config-add",
        *(name for name in BY_NAME if name.startswith(("exechook", "pre-publish", "webhook"))),
        *(name for name in BY_NAME if name.startswith("http-")),
    }
)
# git-sync removes a replaced commit, and collects garbage, in the run after the one that replaces
# it: until then the difference to that commit can be determined.
STALE_WORKTREE_TIMEOUT = "10s"
WITHOUT_SUBMODULES = {"submodules": "off"}
HELPER = "credential.helper"
OF_THE_OTHER_END = ("uploadpack.", "pack.", "transfer.")
# In addition to --sync-timeout, for git-sync's start and clean-up.
GRACE_SECONDS = 60.0
LAST_LINES = 20
NAMED_CHARACTERS = 200
KEPT = "refs/wrapper/published"
LOCAL_CONFIG = {"core.hooksPath": os.devnull, "safe.directory": "*"}

log = get_logger("git-sync")


class GitSyncFailed(SidecarError):
    """
    git-sync ended with a failure.

    Args:
        report: The content of its error-file, to be copied to the user's error-file.
    """

    def __init__(self, cause: SidecarError, report: str) -> None:
        super().__init__(cause.reason, cause.message, cause.advice)
        self.report = report


@dataclass(slots=True)
class _Ears:
    """
    Logs git-sync's output line by line, and keeps the last lines.
    """

    hide: Callable[[str], str]
    last: list[str] = field(default_factory=list)

    def hear(self, line: str) -> None:
        line = self.hide(line)
        said: object = None
        with suppress(ValueError):
            said = json.loads(line)
        if isinstance(said, dict):
            # Not the other fields: at some levels they contain configurations and password digests.
            message, error = str(said.get("msg", "")), str(said.get("error", said.get("err", "")))
        else:
            message, error = line, ""
        log.debug("git_sync_said", message=message, error=error)
        self.last = [*self.last, f"{message} {error}".strip()][-LAST_LINES:]


@dataclass(frozen=True, slots=True)
class Engine:
    """
    Runs git-sync, one run at a time.
    """

    program: str
    options: Options
    access: Access
    environ: Mapping[str, str] = field(repr=False)
    _: KW_ONLY
    root: str
    count_healed: Callable[[int], None] = lambda _: None

    def run(self, fence: Fence, **instead: str) -> str:
        """
        Sync once; return the commit that is checked out now.

        Args:
            instead: Flags of git-sync that override the settings.

        Raises:
            SidecarError: It failed, or could not be started; the reason depends on the cause.
            CycleAbandoned: The fence was revoked; git-sync and all its git processes are gone.
        """
        try:
            self.count_healed(len(heal(self.root)))
        except OSError as error:
            raise explain_os_error(error, f"cannot clear {error.filename}") from error
        if self._may_spare_submodules():
            commit = self._sync(fence, {**instead, **WITHOUT_SUBMODULES})
            if not may_have_submodules(self.root, commit):
                return commit
            seconds = int(self.options.sync_timeout_seconds + GRACE_SECONDS)
            instead = {**instead, "stale-worktree-timeout": f"{seconds}s"}
        return self._sync(fence, instead)

    def _may_spare_submodules(self) -> bool:
        """
        Whether git-sync may skip its update of submodules at first: the current commit has none,
        and no sparse checkout hides any from the index.
        """
        if self.options.submodules == "off" or self.options.sparse_checkout_file:
            return False
        before = os.path.basename(self.worktree())
        return before == CANDIDATE or not may_have_submodules(self.root, before)

    def _sync(self, fence: Fence, instead: Mapping[str, str]) -> str:
        ears = _Ears(self.options.hide)
        # git-sync leaves a git configuration in its TMPDIR after each run.
        with self.access.scratch() as folder:
            report = os.path.join(folder, "error.json")
            code = self._call(folder, report, ears.hear, fence, instead)
            if code != 0:
                raise self._explain(code, self.options.hide(_read(report)), ears.last, fence)
        return self._candidate()

    def parent(self, commit: str, fence: Fence) -> str:
        """
        Return the first parent of the commit that is checked out; empty if it has none.

        It is read from the commit object, which names it even in a shallow clone.

        Raises:
            SidecarError: git failed; the caller should try again.
            CycleAbandoned: The fence was revoked.
        """
        try:
            said, code = self._git(
                ["cat-file", "commit", commit], self.worktree(), fence, is_head=True
            )
        except (OSError, child.DeadlinePassed) as error:
            raise _no_parent(commit, str(error)) from None
        if code != 0:
            raise _no_parent(commit, f"git cat-file ended with {child.ending(code)}")
        head = said.decode(errors="replace").partition("\n\n")[0]
        found = re.search(r"^parent ([0-9a-f]+)$", head, re.MULTILINE)
        return found[1] if found else ""

    def check_whole(self, fence: Fence) -> None:
        """
        Refuse a checkout in which files of its index are missing: whoever can write to the volume
        may remove files while git writes them, or while they are copied.

        Raises:
            SidecarError: Files are missing, or git cannot tell; git-sync creates a new checkout.
            CycleAbandoned: The fence was revoked.
        """
        worktree = self.worktree()
        try:
            said, code = self._git(["ls-files", "--deleted", "-z"], worktree, fence)
        except (OSError, child.DeadlinePassed) as error:
            said, code = str(error).encode(), 1
        if said or code != 0:
            shutil.rmtree(worktree, ignore_errors=True)
            lacks = said.decode(errors="replace").replace("\0", " ").strip()[:NAMED_CHARACTERS]
            raise SidecarError(
                "target_failed",
                f"the checkout at {worktree} is incomplete: {lacks}",
                "It is created again. If this repeats, find out which process removes its files.",
            )

    @property
    def is_pinned(self) -> bool:
        """
        Whether the ref is a hash, or was a tag in git-sync's last fetch.
        """
        fetched = _read(os.path.join(self.root, GIT, "FETCH_HEAD"))
        return self.options.is_pinned or "\ttag '" in fetched

    def keep(self, commit: str, fence: Fence) -> None:
        """
        Keep the objects of the published commit. git-sync removes them after it has fetched newer
        commits, although the gate may refuse these; then a repair, and the difference to the next
        commit, would need the remote.

        Raises:
            CycleAbandoned: The fence was revoked.
        """
        try:
            said, code = self._git(["update-ref", KEPT, commit], self.root, fence)
            problem = said.decode(errors="replace").strip() if code != 0 else ""
        except (OSError, child.DeadlinePassed) as error:
            problem = str(error)
        if problem:
            log.warning("commit_not_kept", revision=commit, error=problem)

    def restore(self, commit: str, fence: Fence) -> str:
        """
        Check a commit out again, from git-sync's local repository alone; return the folder.

        Every file is written again. If git fails, return an empty text: then the checkout is
        removed, and git-sync's next run creates a new one.

        Raises:
            CycleAbandoned: The fence was revoked.
        """
        worktree = os.path.join(self.root, WORKTREES, commit)
        try:
            heal(self.root)
            problem = self._add(commit, worktree, fence) or self._reset(commit, worktree, fence)
        except (OSError, child.DeadlinePassed) as error:
            problem = str(error) or "it took too long"
        if not problem:
            return worktree
        log.warning("restore_failed", revision=commit, error=problem)
        shutil.rmtree(worktree, ignore_errors=True)
        return ""

    def _add(self, commit: str, worktree: str, fence: Fence) -> str:
        """
        Create the checkout of a commit, without files, if git-sync has removed it; return git's
        error if that fails.
        """
        if os.path.isdir(worktree):
            return ""
        if self.options.sparse_checkout_file:
            return "its checkout is gone, and only git-sync makes a sparse one"
        add = ["worktree", "add", "--force", "--detach", "--no-checkout", worktree, commit]
        said, code = self._git(add, self.root, fence)
        if code != 0:
            return said.decode(errors="replace").strip() or child.ending(code)
        # As git-sync does: consumers may mount the volume at another path.
        pointer = os.path.join(worktree, GIT)
        name = os.path.basename(_read(pointer).strip())
        with open(pointer, "w", encoding="utf-8") as file:
            file.write(f"gitdir: ../../{GIT}/worktrees/{name}\n")
        return ""

    def _reset(self, commit: str, worktree: str, fence: Fence) -> str:
        """
        Let git write all files of a checkout again; return its error if it fails.
        """
        # With an index, git infers from times in whole seconds that a file is unchanged: drop it.
        forget, reset = ["read-tree", "--empty"], ["reset", "--quiet", "--hard"]
        commands = [forget, [*reset, commit]]
        if self.options.submodules != "off":  # git-sync leaves their files as they are
            inside = " && ".join(shlex.join([self.options.git, *step]) for step in (forget, reset))
            commands.append(["submodule", "--quiet", "foreach", "--recursive", inside])
            status = ["submodule", "status"]
            commands.append([*status, *["--recursive"] * (self.options.submodules == "recursive")])
        said = b""
        for command in commands:
            said, code = self._git(command, worktree, fence)
            if code != 0:
                return said.decode(errors="replace").strip() or child.ending(code)
        # After a kill or an outage a submodule may be missing: git only marks it, and exits with 0.
        if commands[-1][0] == "submodule" and any(line[:1] != b" " for line in said.splitlines()):
            return "a submodule is not checked out at the commit that its parent records"
        return ""

    def _git(
        self, command: Sequence[str], worktree: str, fence: Fence, *, is_head: bool = False
    ) -> tuple[bytes, int]:
        """
        Run git in a checkout, without the remote; return its output and exit code.

        Args:
            is_head: As in :class:`~sidecar_runtime.child.Kept`.
        """
        environ = surroundings(self.environ, [*self.options.configs, *LOCAL_CONFIG.items()]) | {
            "GIT_NO_LAZY_FETCH": "1",
            # A checkout without its .git file must not fall back to a repository above it.
            "GIT_CEILING_DIRECTORIES": os.path.dirname(worktree),
        }
        # GIT_TRACE and warnings are no answer.
        said, complaints = child.Kept(is_head=is_head), child.Kept()
        words = child.Command([self.options.git, *command], environ, worktree)
        code = child.run(words, fence, self.options.sync_timeout_seconds, said, complaints)
        return said.data + (complaints.data if code else b""), code

    def worktree(self) -> str:
        """
        Return the folder of the commit that is checked out.
        """
        return os.path.realpath(os.path.join(self.root, CANDIDATE))

    def _call(
        self,
        folder: str,
        report: str,
        hear: Callable[[str], None],
        fence: Fence,
        instead: Mapping[str, str],
    ) -> int:
        prepared = self.access.prepare()
        environ = {**clean(self.environ), "TMPDIR": folder, **prepared.environ}
        flags = {**self._told(prepared.flags, report), **instead}
        for name, text in flags.items():
            if text:
                environ[BY_NAME[name].variables[0]] = text
        environ |= configured(environ, self._configs(prepared.git_config))
        try:
            command = child.Command([self.program], environ)
            deadline_seconds = self.options.sync_timeout_seconds + GRACE_SECONDS
            return child.run(command, fence, deadline_seconds, child.Lines(hear))
        except child.DeadlinePassed:
            raise explain("context deadline exceeded: git-sync did not end in time") from None
        except OSError as error:
            raise SidecarError(
                "git_sync_unusable",
                f"cannot start {self.program}: {error.strerror}",
                f"Check {PREFIX}GIT_SYNC and the container's memory and process limits.",
            ) from None

    def _told(self, instead: Mapping[str, str | None], report: str) -> dict[str, str]:
        """
        Return the settings for git-sync, by flag.
        """
        told = {name: text for name, text in self.options.texts.items() if name not in OURS}
        told["repo"] = self.options.repo
        for name, text in instead.items():
            told.pop(name, None)
            if text is not None:
                told[name] = text
        # For a local repository, git's server side reads git-sync's configuration file. Only
        # configurations that are no secret are passed on: git-sync puts them into arguments.
        if self.options.repo.startswith(("/", "file:")) and all(
            key.lower().startswith(OF_THE_OTHER_END) for key, _ in self.options.git_config
        ):
            told["git-config"] = self.options.texts.get("git-config", "")
        return told | {
            "root": self.root,
            "link": CANDIDATE,
            "error-file": report,
            "one-time": "true",
            "stale-worktree-timeout": STALE_WORKTREE_TIMEOUT,
        }

    def _configs(self, ours: Mapping[str, str]) -> list[tuple[str, str]]:
        """
        Return the configurations that git receives from us. git-sync would start a process for
        each, put it into an argument list and a file, and keep only the last value of a key.
        """
        told = [*self.options.configs, *ours.items()]
        if any(key.lower() == HELPER for key in (*dict(self.options.git_config), *ours)):
            told.insert(0, (HELPER, ""))  # clears git's list, which begins with git-sync's helper
        return told

    def _explain(self, code: int, report: str, last: list[str], fence: Fence) -> GitSyncFailed:
        said = heard(report) if report else "\n".join(map(heard, last))
        cause = explain(said, f"git-sync ended with {child.ending(code)}")
        try:
            # The credential helper's own error is more exact than git's.
            if self.access.failure:
                raise self.access.failure
            if cause.reason == "target_full":
                self.access.check_room(nearest_folder(self.root))
            elif cause.reason == "credentials_refused":
                known = self.access.explain(self.options.repo, fence)
                who = self.access.who(fence) or "credentials that git itself configures"
                said = f"{cause.message} ({who})"
                cause = known or SidecarError(cause.reason, said, cause.advice)
        except SidecarError as error:
            cause = error
        return GitSyncFailed(cause, report)

    def _candidate(self) -> str:
        commit = os.path.basename(self.worktree())
        if FULL_COMMIT.fullmatch(commit) and os.path.isdir(self.worktree()):
            return commit
        raise SidecarError(
            "git_sync_failed",
            f"git-sync succeeded, but {self.root}/{CANDIDATE} does not lead to a commit",
            "Check that no other program writes there, and that the program is git-sync 4.",
        )


def _no_parent(commit: str, why: str) -> SidecarError:
    return SidecarError(
        "git_sync_failed",
        f"git cannot read the parent of {commit}: {why}",
        "Retried in the next cycle. Check the container's memory limit.",
    )


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
