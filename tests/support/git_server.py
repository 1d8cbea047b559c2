"""
A real git server over HTTP: git's own http-backend behind basic auth, with faults on demand.
"""

from __future__ import annotations

import base64
import os
import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support.git_repository import ENVIRONMENT, Repository
from tests.support.loopback import Answer, LoopbackServer, Request

HTTP_BACKEND = Path("/usr/lib/git-core/git-http-backend")
REALM = {"WWW-Authenticate": 'Basic realm="git"'}

Judge = Callable[[str, str, str], bool]
"""Username, password and path (`/dags.git/info/refs`) → whether they are accepted."""


class GitServer(LoopbackServer):
    """
    Serves the bare repositories of a folder at `<endpoint>/<name>`; a `with` statement starts it.

    Every request is recorded (`requests`), `inject` breaks answers, `stop` and `start` are an
    outage on the same port. What clients must present can change at any time.
    """

    def __init__(
        self, folder: Path, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> None:
        """
        Describe a server that lets everybody in.

        Args:
            folder: Where the repositories lie.
            tls: Serve HTTPS with this context.
            host: A loopback address or name.
        """
        super().__init__(tls=tls, host=host)
        self.folder = folder
        self.judge: Judge | None = None
        """Who decides about credentials; None = nobody is asked for any."""
        self.refusal = 401
        """
        What wrong credentials get. Requests without any get 401, so that clients send them.

        With 403 git keeps the credentials that it has cached: CodeCommit's answer to expired ones.
        """
        self.bare_refusal = 401
        """What requests without credentials get."""

    def repository(self, name: str = "dags.git", branch: str = "main") -> Repository:
        """
        A repository that this server shows.
        """
        return Repository(self.folder / name, branch)

    def url(self, name: str = "dags.git", userinfo: str = "") -> str:
        """
        The URL of a repository.

        Args:
            name: Of the repository.
            userinfo: `user:password` to stand in the URL.
        """
        scheme, _, rest = self.endpoint.partition("://")
        return f"{scheme}://{userinfo}{'@' if userinfo else ''}{rest}/{name}"

    def accept(self, *pairs: tuple[str, str]) -> None:
        """
        Let in only who presents one of these pairs of username and password; others cease to work.
        """
        self.judge = lambda username, password, _path: (username, password) in pairs

    def good_answer(self, request: Request) -> Answer:
        """
        What git-http-backend says, or a refusal.
        """
        if self.judge is not None:
            given = credentials_of(request)
            if given is None:
                return Answer(self.bare_refusal, REALM if self.bare_refusal == 401 else {})
            if not self.judge(*given, request.path):
                return Answer(self.refusal, REALM if self.refusal == 401 else {})
        return self._backend(request)

    def _backend(self, request: Request) -> Answer:
        environment = {
            **ENVIRONMENT,
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.path,
            "QUERY_STRING": request.raw_query,
            "CONTENT_TYPE": request.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(request.body)),
            "GIT_PROTOCOL": request.headers.get("git-protocol", ""),
            "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
        }
        done = subprocess.run(
            [HTTP_BACKEND], input=request.body, env=environment, capture_output=True, timeout=120
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        status = int(headers.pop("Status", "200 OK").split()[0])
        return Answer(status, headers, body)


def credentials_of(request: Request) -> tuple[str, str] | None:
    """
    Username and password of basic auth; None without.
    """
    kind, _, encoded = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return None
    username, _, password = base64.b64decode(encoded).decode().partition(":")
    return username, password


def skip_reason() -> str:
    """
    Why there can be no server here; empty when there can be one.
    """
    has_git = shutil.which("git") is not None and os.access(HTTP_BACKEND, os.X_OK)
    return (
        "" if has_git else "a git server needs git with its http-backend: make setup-test as root"
    )
