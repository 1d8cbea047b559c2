"""
A poll by ``git ls-remote``: for ssh, and whatever else git can talk to.
"""

from __future__ import annotations

from collections.abc import Mapping

from git_sync_wrapper.flags.options import Options
from git_sync_wrapper.login.access import Access
from git_sync_wrapper.poll import pkt
from git_sync_wrapper.refusals import explain
from git_sync_wrapper.remote_git import RemoteGit
from sidecar_runtime.fence import Fence

# A remote that is silent for longer than this counts as down.
DEADLINE_SECONDS = 60.0


class LsRemote:
    """
    Asks the remote by git itself, in a process of its own for each question.
    """

    def __init__(self, options: Options, access: Access, environ: Mapping[str, str]) -> None:
        self._options = options
        self._git = RemoteGit(options, access, environ)

    def commit(self, fence: Fence) -> str:
        """
        Return the commit that the ref names now.

        Raises:
            SidecarError: The remote did not answer, or has no such ref.
            CycleAbandoned: The fence was revoked.
        """
        options = self._options
        found: dict[str, str] = {}
        names = pkt.places(options.ref)

        def hear(line: str) -> None:  # only what was asked: a server may send anything, endlessly
            commit, _, name = line.partition("\t")
            if (name := name.removesuffix(pkt.PEELED)) in names:
                found[name] = commit

        self._git.run(
            ["ls-remote", "--quiet", options.repo, options.ref, f"{options.ref}{pkt.PEELED}"],
            "the remote cannot be asked",
            fence,
            deadline_seconds=min(DEADLINE_SECONDS, options.sync_timeout_seconds),
            out=hear,
        )
        if commit := pkt.choose(found, options.ref):
            return commit
        raise explain(f"couldn't find remote ref {options.ref}", "the remote has no such ref")

    def close(self) -> None:
        """
        Nothing is kept open.
        """
