"""
Choose how to poll a repository: with an HTTP request, or with git if only git can log in.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from git_sync_wrapper.flags.options import Options
from git_sync_wrapper.login.access import Access
from git_sync_wrapper.poll.ls_remote_poller import LsRemote
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger

if TYPE_CHECKING:
    from git_sync_wrapper.poll.http_poller import HttpPoller

log = get_logger("poll")


class Poller(Protocol):
    """
    Asks the remote which commit the ref names.
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
        Close the connection.
        """


class Polls:
    """
    Polls over HTTP until the server redirects to another server, where git succeeds.

    Git follows such a redirect, with its own credentials for that server; we never do.
    """

    def __init__(self, options: Options, access: Access, environ: Mapping[str, str]) -> None:
        self._options = options
        self._access = access
        self._git = LsRemote(options, access, environ)
        self._is_left_to_git = False

    def commit(self, fence: Fence) -> str:
        if self._http is None or self._is_left_to_git:
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
        self._is_left_to_git = True
        return commit

    def close(self) -> None:
        is_made = "_http" in self.__dict__
        if is_made and self._http is not None:
            self._http.close()

    @cached_property
    def _http(self) -> HttpPoller | None:
        # A one-shot on an empty volume has nothing to compare: it needs neither HTTP nor TLS.
        from git_sync_wrapper.poll.http_poller import make_poller  # noqa: PLC0415

        return make_poller(self._options, self._access)
