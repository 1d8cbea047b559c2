"""
The one way to run git: its environment, questions to a local repository, and the poll.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence

from git_sync_wrapper.logins import Access
from git_sync_wrapper.options import OURS, Options
from git_sync_wrapper.reasons import explain, failure
from sidecar_runtime import child, proxies
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence

ANSWER_BYTES = 16 << 20
# A remote that does not answer within this time counts as down.
POLL_SECONDS = 60.0
POLLING = "cannot poll the remote"
COOKIE_FILE = "/etc/git-secret/cookie_file"
"""git-sync's path of the cookie file; no flag changes it."""
# git resolves a short name in this order: https://git-scm.com/docs/gitrevisions.
_PLACES = ("{}", "refs/{}", "refs/tags/{}", "refs/heads/{}", "refs/remotes/{}")
_PEELED = "^{}"
# What to list; without a kind, a server sends all refs, those of all pull requests too.
_KINDS = (("--heads", "--tags"), ())


class GitFailed(Exception):
    """
    git did not succeed; the text is what it said.
    """


class Git:
    """
    Runs git, in a child each time, without its user's and its system's configuration
    files.
    """

    def __init__(
        self, options: Options, environ: Mapping[str, str], folder: str
    ) -> None:
        """
        Args:
            folder: The private folder; a poll runs there, away from any repository.
        """
        self._options = options
        self._folder = folder
        # git-sync's variables hold passwords.
        self._environ = {
            name: value
            for name, value in environ.items()
            if not name.startswith((OURS, "GITSYNC_", "GIT_SYNC_"))
        }
        self._environ |= proxies.for_others(environ) | {
            "GIT_CONFIG_NOSYSTEM": "true",
            "GIT_TERMINAL_PROMPT": "0",
        }

    def ask(
        self, words: Sequence[str], folder: str, fence: Fence, **environ: str
    ) -> bytes:
        """
        Return git's answer about the repository of a folder; git fetches nothing for
        it.

        Raises:
            GitFailed: git failed, or could not be started.
            CycleAbandoned: The fence was revoked.
        """
        given = {
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_NO_LAZY_FETCH": "1",
            # A checkout without its .git file must not fall back to a repository above
            # it.
            "GIT_CEILING_DIRECTORIES": os.path.dirname(folder),
            **environ,
        }
        local = [("core.hooksPath", os.devnull), ("safe.directory", "*")]
        configs = [*self._options.configs, *local]
        said = child.Kept(ANSWER_BYTES, is_head=True)
        self._run(
            words, folder, fence, given | configured(self._environ, configs), said
        )
        return said.data

    def poll(self, access: Access, fence: Fence) -> str:
        """
        Return the commit that the ref names on the remote now.

        Raises:
            SidecarError: The remote does not answer, or does not have the ref.
            CycleAbandoned: The fence was revoked.
        """
        options = self._options
        configs = [("core.askPass", "true"), *access.configs]
        if options.cookie_file:
            configs.append(("http.cookiefile", COOKIE_FILE))
        configs += options.configs
        # For file:// git runs its server side on this machine, which reads only this
        # file.
        given = {
            "GIT_CONFIG_GLOBAL": access.git_config,
            **access.environ,
            **access.for_git,
        }
        given |= configured(self._environ | given, configs)
        given["GIT_CEILING_DIRECTORIES"] = os.path.dirname(self._folder)
        names = [options.repo, options.ref, f"{options.ref}{_PEELED}"]
        for kinds in _KINDS[options.ref == "HEAD" :]:
            said = child.Kept(ANSWER_BYTES, is_head=True)
            words = ["ls-remote", "--quiet", *kinds, *names]
            try:
                self._run(words, self._folder, fence, given, said, POLL_SECONDS)
            except GitFailed as error:
                raise access.explain(
                    explain(options.hide(str(error)), POLLING)
                ) from None
            lines = (line.partition("\t")[::2] for line in str(said).split("\n"))
            # The line of a peeled tag follows the tag's own.
            found = {name.removesuffix(_PEELED): commit for commit, name in lines}
            for place in _PLACES:
                if commit := found.get(place.format(options.ref)):
                    return commit
        raise failure(
            "ref_not_found", f"{POLLING}: couldn't find remote ref {options.ref}"
        )

    def answers(self, access: Access, fence: Fence) -> bool:
        """
        Whether the remote answers; one that does not have the ref does.

        Raises:
            CycleAbandoned: The fence was revoked.
        """
        try:
            self.poll(access, fence)
        except SidecarError as error:
            return error.reason == "ref_not_found"
        return True

    def _run(
        self,
        words: Sequence[str],
        folder: str,
        fence: Fence,
        environ: Mapping[str, str],
        out: Callable[[bytes], None],
        seconds: float = math.inf,
    ) -> None:
        complaints = child.Kept()
        command = child.Command(
            [self._options.git, *words], {**self._environ, **environ}, folder
        )
        try:
            limit = min(seconds, self._options.sync_timeout)
            code = child.run(command, fence, limit, out, complaints)
        except child.DeadlinePassed:
            raise GitFailed(f"git {words[0]} timed out") from None
        except OSError as error:
            raise GitFailed(f"git cannot be started: {error}") from None
        if code != 0:
            raise GitFailed(
                str(complaints) or f"git {words[0]} ended with {child.ending(code)}"
            )


def configured(
    environ: Mapping[str, str], configs: Sequence[tuple[str, str]]
) -> dict[str, str]:
    """
    Return variables that pass these configurations to git; those of `environ` follow
    and win.

    In variables, because every process can read an argument list.
    """
    count = environ.get("GIT_CONFIG_COUNT", "")
    theirs = int(count) if count.isdecimal() else 0
    pairs = list(configs) + [
        (
            environ.get(f"GIT_CONFIG_KEY_{n}", ""),
            environ.get(f"GIT_CONFIG_VALUE_{n}", ""),
        )
        for n in range(theirs)
    ]
    told = {"GIT_CONFIG_COUNT": str(len(pairs))}
    for number, (key, value) in enumerate(pairs):
        told |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return told
