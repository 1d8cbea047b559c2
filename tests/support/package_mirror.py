"""
A mirror of this machine's package index that requires a password, as in companies.
"""

from __future__ import annotations

import os
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pip._internal.models.index import PyPI

from tests.support.http.serving import Serving

USER = "builder"


class PackageMirror(Serving):
    """
    Redirects clients with the password to the real index, and refuses all others.

    Attributes:
        asked: Projects that were requested with the password.
    """

    def __init__(self, password: str) -> None:
        self.asked: set[str] = set()
        index = (os.environ.get("PIP_INDEX_URL") or PyPI.simple_url).rstrip("/")
        wanted = "Basic " + b64encode(f"{USER}:{password}".encode()).decode()
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.headers.get("Authorization") != wanted:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="mirror"')
                else:
                    project = self.path.strip("/").rpartition("/")[2]
                    asked.add(project)
                    self.send_response(302)
                    self.send_header("Location", f"{index}/{project}/")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        port = self._server.server_address[1]
        self.url = f"http://{USER}:{password}@127.0.0.1:{port}/simple"
