"""
A real git server over HTTP: git's own http-backend behind basic auth, with injectable
faults.
"""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.git.git_repository import ENVIRONMENT, Repository
from tests.support.http.loopback import Answer, LoopbackServer, Request

HTTP_BACKEND = Path("/usr/lib/git-core/git-http-backend")
REALM = {"WWW-Authenticate": 'Basic realm="git"'}

Judge = Callable[[str, str, str], bool]
"""Username, password and path (`/dags.git/info/refs`) → whether they are accepted."""


class GitServer(LoopbackServer):
    """
    Serves the bare repositories of a folder at `<endpoint>/<name>`; a `with` statement
    starts it.

    Every request is recorded (`requests`), `inject` breaks answers, and `stop` followed
    by `start` is an outage on the same port. The accepted credentials can change at any
    time.
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        """
        Describe a server that requires no credentials.

        Args:
            folder: The folder with the repositories.
            options: Those of every server on loopback.
        """
        super().__init__(**options)
        self.folder = folder
        self.judge: Judge | None = None
        """Decides about credentials; None = no credentials are required."""
        self.refusal = 401
        """
        The status for wrong credentials. Without credentials it is 401, so that clients
        send them.

        After a 403 git keeps its cached credentials: CodeCommit's answer to expired
        ones.
        """

    def repository(self, name: str = "dags.git") -> Repository:
        """
        Return a repository that this server serves.
        """
        return Repository(self.folder / name)

    def url(self, name: str = "dags.git", userinfo: str = "") -> str:
        """
        Return the URL of a repository.

        Args:
            name: The name of the repository.
            userinfo: `user:password` for the URL.
        """
        scheme, _, rest = self.endpoint.partition("://")
        return f"{scheme}://{userinfo}{'@' if userinfo else ''}{rest}/{name}"

    def accept(self, *pairs: tuple[str, str]) -> None:
        """
        Accept only these pairs of username and password; all others stop working.
        """
        self.judge = lambda username, password, _path: (username, password) in pairs

    def good_answer(self, request: Request) -> Answer:
        """
        Return the answer of git-http-backend, or a refusal.
        """
        if self.judge:
            given = credentials_of(request)
            if given is None:
                return Answer(401, REALM)
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
            [HTTP_BACKEND],
            input=request.body,
            env=environment,
            capture_output=True,
            timeout=120,
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(
            line.split(": ", 1) for line in head.decode().split("\r\n") if line
        )
        return Answer(int(headers.pop("Status", "200 OK").split()[0]), headers, body)


def credentials_of(request: Request) -> tuple[str, str] | None:
    """
    Return username and password of basic auth; None without credentials.
    """
    kind, _, encoded = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return None
    username, _, password = base64.b64decode(encoded).decode().partition(":")
    return username, password
