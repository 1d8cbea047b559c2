"""
Which way a repository is polled: by a request over HTTP, or by git where only git knows the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from git_sync_wrapper.flags.options import Options
from git_sync_wrapper.http.connection import PATIENCE, Patience
from git_sync_wrapper.login.access import Access
from git_sync_wrapper.poll.http_poller import make_poller
from git_sync_wrapper.poll.ls_remote_poller import LsRemote
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger

log = get_logger("refs")


class Poller(Protocol):
    """
    Knows what the remote has.
    """

    @property
    def is_light(self) -> bool:
        """
        Whether a poll is a request on a connection that is kept, and no process.
        """

    def commit(self, fence: Fence) -> str:
        """
        Return the full hash of the commit that the ref names now.

        Raises:
            SidecarError: The commit cannot be determined.
            CycleAbandoned: The fence was revoked meanwhile.
        """

    def close(self) -> None:
        """
        Let go of the connection.
        """


class Polls:
    """
    Polls by HTTP until the server leads to another one and git gets an answer there.

    Git follows such a redirect, with credentials of its own for that server; we never do.
    """

    def __init__(
        self,
        options: Options,
        access: Access,
        environ: Mapping[str, str],
        patience: Patience = PATIENCE,
    ) -> None:
        self._http = make_poller(options, access, patience)
        self._git = LsRemote(options, access, environ)

    @property
    def is_light(self) -> bool:
        return self._http is not None

    def commit(self, fence: Fence) -> str:
        if self._http is None:
            return self._git.commit(fence)
        try:
            return self._http.commit(fence)
        except SidecarError as error:
            if error.reason != "redirect_refused":
                raise
            refused = error
        try:
            commit = self._git.commit(fence)
        except SidecarError:
            raise refused from None
        log.info("polling_left_to_git", why=refused.message)
        self.close()
        self._http = None
        return commit

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
