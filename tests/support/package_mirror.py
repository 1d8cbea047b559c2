"""
A mirror of this machine's package index that requires a password, as in companies.
"""

import os
from base64 import b64encode

from pip._internal.models.index import PyPI

from tests.support.http.loopback import Answer, LoopbackServer, Request

USER = "builder"


class PackageMirror(LoopbackServer):
    """
    Redirects clients with the password to the real index, and refuses all others.
    """

    def __init__(self, password: str) -> None:
        super().__init__()
        self._password = password

    @property
    def url(self) -> str:
        return f"http://{USER}:{self._password}@127.0.0.1:{self.port}/simple"

    @property
    def asked(self) -> set[str]:
        """
        The projects that were requested with the password.
        """
        return {
            request.path.strip("/").rpartition("/")[2]
            for request in self.seen(self._knows)
        }

    def good_answer(self, request: Request) -> Answer:
        if not self._knows(request):
            return Answer(401, {"WWW-Authenticate": 'Basic realm="mirror"'})
        index = (os.environ.get("PIP_INDEX_URL") or PyPI.simple_url).rstrip("/")
        return Answer(
            302, {"Location": f"{index}/{request.path.strip('/').rpartition('/')[2]}/"}
        )

    def _knows(self, request: Request) -> bool:
        pair = b64encode(f"{USER}:{self._password}".encode()).decode()
        return request.headers.get("authorization") == f"Basic {pair}"
