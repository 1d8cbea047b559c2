"""
Poll with ``git ls-remote``: for ssh and all other protocols that git supports.
"""

from __future__ import annotations

from collections.abc import Mapping

from git_sync_wrapper.flags.options import Options
from git_sync_wrapper.login.access import Access
from git_sync_wrapper.poll import pkt
from git_sync_wrapper.refusals import explain
from git_sync_wrapper.remote_git import RemoteGit
from sidecar_runtime.fence import Fence

# A remote that does not answer within this time counts as down.
DEADLINE_SECONDS = 60.0


class LsRemote:
    """
    Polls the remote with git itself, in a separate process for each poll.
    """

    def __init__(self, options: Options, access: Access, environ: Mapping[str, str]) -> None:
        self._options = options
        self._git = RemoteGit(options, access, environ)

    def commit(self, fence: Fence) -> str:
        """
        Return the commit that the ref names now.

        Raises:
            SidecarError: The remote did not answer, or does not have the ref.
            CycleAbandoned: The fence was revoked.
        """
        options = self._options
        found: dict[str, str] = {}
        names = pkt.places(options.ref)

        def hear(line: str) -> None:  # keep only these names: a server may send endless lines
            commit, _, name = line.partition("\t")
            if (name := name.removesuffix(pkt.PEELED)) in names:
                found[name] = commit

        self._git.run(
            ["ls-remote", "--quiet", options.repo, options.ref, f"{options.ref}{pkt.PEELED}"],
            "cannot poll the remote",
            fence,
            deadline_seconds=min(DEADLINE_SECONDS, options.sync_timeout_seconds),
            out=hear,
        )
        if commit := pkt.choose(found, options.ref):
            return commit
        raise explain(f"couldn't find remote ref {options.ref}", "cannot poll the remote")

    def close(self) -> None:
        """
        Do nothing: no connection is kept.
        """
