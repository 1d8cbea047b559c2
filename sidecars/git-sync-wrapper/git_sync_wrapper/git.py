"""
The one way to run git: its environment, questions to a local repository, the poll, and
what a redirect of the server means.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from git_sync_wrapper.logins import Access, Logins, server_of
from git_sync_wrapper.options import OURS, Options
from git_sync_wrapper.reasons import explain, failure
from sidecar_runtime import child, proxies
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger

ANSWER_BYTES = 16 << 20
# A remote that does not answer within this time counts as down.
POLL_SECONDS = 60.0
POLLING = "cannot poll the remote"
COOKIE_FILE = "/etc/git-secret/cookie_file"
"""git-sync's path of the cookie file; no flag changes it."""
# For every git, also below git-sync: what the repository on the volume, to which others
# may write, or a server could otherwise decide. The user's configurations follow and win.
SAFE = (
    ("http.followRedirects", "false"),  # see `Git.following`
    ("core.fsmonitor", "false"),
    ("core.hooksPath", os.devnull),
    ("core.askPass", "true"),
    ("credential.helper", ""),
    ("protocol.ext.allow", "never"),
)
REDIRECTED = "redirect_refused"
MOST_REDIRECTS = 5
# What git asks for first, and the only request whose redirect it would follow.
_REFS = "/info/refs?service=git-upload-pack"
# git resolves a short name in this order: https://git-scm.com/docs/gitrevisions.
_PLACES = ("{}", "refs/{}", "refs/tags/{}", "refs/heads/{}", "refs/remotes/{}")
_PEELED = "^{}"
# What to list; without a kind, a server sends all refs, those of all pull requests too.
_KINDS = (("--heads", "--tags"), ())

T = TypeVar("T")

log = get_logger("git")


class GitFailed(Exception):
    """
    git did not succeed; the text is what it said.
    """


class Git:
    """
    Runs git, in a child each time, without its user's and its system's configuration
    files.
    """

    def __init__(self, options: Options, logins: Logins) -> None:
        self.logins = logins
        self.repo = options.repo
        """Where the repository is now, if its server has said that it has moved."""
        self.trusted = ""
        """Local repositories that may be another user's: none, or all (``*``)."""
        self._options = options
        # git-sync's variables hold passwords.
        self._environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith((OURS, "GITSYNC_", "GIT_SYNC_"))
        }
        self._environ |= proxies.for_others(os.environ)
        self._environ["GIT_CONFIG_NOSYSTEM"] = "true"

    def ask(
        self,
        words: Sequence[str],
        folder: str,
        fence: Fence,
        told: bytes = b"",
        /,
        **environ: str,
    ) -> bytes:
        """
        Return git's answer about the repository of a folder; git fetches nothing for
        it.

        Args:
            told: Its standard input.

        Raises:
            GitFailed: git failed, or could not be started.
            CycleAbandoned: The fence was revoked.
        """
        given = {
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_NO_LAZY_FETCH": "1",
            **environ,
        }
        configs = [*self._options.git_config, ("safe.directory", self.trusted)]
        return self._run(words, folder, fence, given, configs, told=told)

    def poll(self, fence: Fence) -> str:
        """
        Return the commit that the ref names on the remote now; of a hash, the hash.

        Raises:
            SidecarError: The remote does not answer, or does not have the ref.
            CycleAbandoned: The fence was revoked.
        """
        return self.following(lambda access: self._poll(access, fence), fence)

    def _poll(self, access: Access, fence: Fence) -> str:
        options = self._options
        peeled = f"{options.ref}{_PEELED}"
        for kinds in _KINDS[options.ref == "HEAD" :]:
            try:
                said = self._ask_remote(
                    [*kinds, self.repo, options.ref, peeled, "HEAD"], access, fence
                )
            except GitFailed as error:
                raise access.explain(explain(str(error), POLLING)) from None
            lines = (line.partition("\t")[::2] for line in said.split("\n"))
            # The line of a peeled tag follows the tag's own.
            found = {name.removesuffix(_PEELED): commit for commit, name in lines}
            for place in _PLACES:
                commit = found.get(place.format(options.ref))
                if commit:
                    return commit
        if options.is_pinned:  # no server looks a hash up, but it has answered
            return options.ref
        # git takes a page without a line break for a list without a ref.
        raise failure(
            "ref_not_found",
            f"{POLLING}: couldn't find remote ref {options.ref}"
            + ("" if said else ", nor any other: is it empty, or a page of a portal?"),
        )

    def _ask_remote(
        self, words: Sequence[str], access: Access, fence: Fence, **environ: str
    ) -> str:
        configs = list(access.configs)
        if self._options.cookie_file:
            configs.append(("http.cookiefile", COOKIE_FILE))
        configs += self._options.git_config
        # For file:// git runs its server side on this machine, which reads only this
        # file.
        given = {
            "GIT_CONFIG_GLOBAL": self.logins.git_config,
            **access.environ,
            **environ,
        }
        words = ["ls-remote", "--quiet", *words]
        # In the private folder, away from any repository.
        return self._run(
            words, self.logins.folder, fence, given, configs, POLL_SECONDS
        ).decode(errors="replace")

    def following(
        self,
        attempt: Callable[[Access], T],
        fence: Fence,
        most: int = MOST_REDIRECTS,
    ) -> T:
        """
        Ask the remote, with today's logins; again at another address, if its own server
        names one: servers redirect renamed repositories and URLs without ``.git``. git
        itself would follow to any host, and publish what that has.

        Raises:
            SidecarError: As `attempt`; of a redirect that is not followed, with the
                address.
            CycleAbandoned: The fence was revoked.
        """
        access = self.logins.prepare(fence)
        try:
            return attempt(access)
        except SidecarError as error:
            if error.reason != REDIRECTED:
                self.repo = self._options.repo  # it may have moved back
                raise
            url = error.message.rpartition("unable to access '")[2].partition("/'")[0]
            location = self._location(url, access, fence)
            to = moved(url, location)
            if not (to and most and url == self.repo.rstrip("/")):
                place = location.partition("?")[0] or "an unknown address"
                raise failure(
                    REDIRECTED, f"{error.message} (it redirects to {place})"
                ) from None
        log.warning("repository_moved", url=to)
        self.repo = to
        return self.following(attempt, fence, most - 1)

    def _location(self, url: str, access: Access, fence: Fence) -> str:
        """
        Return where a server redirects a repository to; empty if git does not tell.
        """
        trace = ""
        try:
            self._ask_remote([url], access, fence, GIT_TRACE_CURL="1")
        except GitFailed as error:
            trace = str(error)
        found = re.search(r"(?i)recv header: location: (\S+)", trace)
        to = found[1] if found else ""
        return server_of(url) + to if to.startswith("/") else to

    def _run(
        self,
        words: Sequence[str],
        folder: str,
        fence: Fence,
        environ: Mapping[str, str],
        configs: Sequence[tuple[str, str]],
        seconds: float = math.inf,
        told: bytes = b"",
    ) -> bytes:
        said = child.Kept(ANSWER_BYTES, is_head=True)
        complaints = child.Kept()
        given = {
            **self._environ,
            # A checkout without its .git file must not fall back to a repository above
            # it.
            "GIT_CEILING_DIRECTORIES": os.path.dirname(folder),
            **environ,
        }
        given |= configured(given, configs)
        title = f"git {words[0]} of {self.repo}"
        try:
            command = child.Command(
                [self._options.git, *words], given, folder, told, title
            )
            code = child.run(
                command,
                fence,
                min(seconds, self._options.sync_timeout),
                said,
                complaints,
            )
        except child.DeadlinePassed:
            raise GitFailed(f"git {words[0]} timed out") from None
        except OSError as error:
            raise GitFailed(f"git cannot be started: {error}") from None
        if code != 0:
            raise GitFailed(
                str(complaints) or f"git {words[0]} ended with {child.ending(code)}"
            )
        return said.data


def moved(repo: str, location: str) -> str:
    """
    Return the address of a repository after a redirect; empty if that is not on the
    same server, or none of a repository. From http to https is the same server.
    """
    server = server_of(repo) + "/"
    servers = (server, server.replace("http:", "https:", 1))
    is_ours = location.startswith(servers) and location.endswith(_REFS)
    return location.removesuffix(_REFS) if is_ours else ""


def configured(
    environ: Mapping[str, str], configs: Sequence[tuple[str, str]]
) -> dict[str, str]:
    """
    Return variables that pass the safe settings and then these to git; those of
    `environ` follow and win.

    In variables, because every process can read an argument list.
    """
    count = environ.get("GIT_CONFIG_COUNT", "")
    theirs = int(count) if count.isdecimal() else 0
    pairs = [*SAFE, *configs] + [
        (
            environ.get(f"GIT_CONFIG_KEY_{n}", ""),
            environ.get(f"GIT_CONFIG_VALUE_{n}", ""),
        )
        for n in range(theirs)
    ]
    # Otherwise a configuration may name a program: core.gitProxy.
    told = {"GIT_PROXY_COMMAND": "", "GIT_CONFIG_COUNT": str(len(pairs))}
    for number, (key, value) in enumerate(pairs):
        told |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return told
