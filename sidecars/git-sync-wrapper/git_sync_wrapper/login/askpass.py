"""
The provider that requests credentials from the service at ``--askpass-url``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from urllib.parse import urlsplit

from git_sync_wrapper.http.connection import Remote, RemoteError
from git_sync_wrapper.http.route import Way, is_loopback, take_login, way_to
from git_sync_wrapper.login.credential import Credential, CredentialError, Wanted
from sidecar_runtime.fence import Fence


class Askpass:
    """
    ``--askpass-url``: a service that answers with ``username=…`` and ``password=…``.

    It is asked once a cycle, as by git-sync, which allows it one second and keeps the answer for an
    hour.
    """

    def __init__(self, url: str, repo: Wanted, environ: Mapping[str, str]) -> None:
        self._url = urlsplit(url)
        self._repo = repo
        is_local = is_loopback(self._url.hostname or "")
        self._way = Way() if is_local else way_to(self._url, (), environ)
        self._said: Credential | None = None

    def credential(self, wanted: Wanted, fence: Fence) -> Credential | None:
        """
        Return its answer, if the repository's server is meant.
        """
        if not wanted.is_same_server(self._repo):
            return None
        if (said := self._said) is None:  # another request of git may clear it at any time
            said = self._said = self._ask(fence)
        return said

    def refused(self, wanted: Wanted) -> None:
        """
        Ask it again at the next login.
        """
        if wanted.is_same_server(self._repo):
            self.start_over()

    def start_over(self) -> None:
        """
        Ask it again in the new cycle.
        """
        self._said = None

    def _ask(self, fence: Fence) -> Credential:
        place, login = take_login(self._url)
        target = place._replace(scheme="", netloc="", fragment="").geturl() or "/"
        with closing(Remote(place, self._way)) as remote:
            try:
                asked = remote.request("GET", target, {"Connection": "close", **login})
                answer = remote.ask(asked, fence)
            except (RemoteError, ValueError) as error:
                raise _askpass_failed(str(error)) from None
        if answer.status != 200:
            raise _askpass_failed(f"it answers {answer.status}")
        lines = answer.body.decode("utf-8", "surrogateescape").replace("\r", "").split("\n")
        fields = dict(line.partition("=")[::2] for line in lines)
        if not fields.get("username") and not fields.get("password"):
            raise _askpass_failed("its answer contains neither username= nor password=")
        username, password = (fields.get(name, "") for name in ("username", "password"))
        return Credential(username, password, origin="GITSYNC_ASKPASS_URL")


def _askpass_failed(why: str) -> CredentialError:
    return CredentialError(
        "askpass_failed",
        f"no credentials from --askpass-url: {why}",
        "Check the service at GITSYNC_ASKPASS_URL.",
    )
