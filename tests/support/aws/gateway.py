"""
A gateway before a real S3 server, where two publishers can be made to meet.
"""

from http.client import HTTPConnection
from typing import Any

from tests import Texts
from tests.support.aws.fake_s3 import environment_for
from tests.support.aws.servers import S3Server
from tests.support.http.loopback import Answer, LoopbackServer, Request


class Gateway(LoopbackServer):
    """
    Passes each request on to a server, with the headers that are signed.
    """

    def __init__(self, server: S3Server) -> None:
        super().__init__()
        self.server = server

    def __getattr__(self, name: str) -> Any:
        return getattr(self.server, name)

    def environment(self) -> Texts:
        """
        Return the variables that make any AWS tool use the server through the gateway.
        """
        return environment_for(self.endpoint, self.server.region)

    def good_answer(self, request: Request) -> Answer:
        # the handler has answered to it
        headers = {
            name: value for name, value in request.headers.items() if name != "expect"
        }
        there = HTTPConnection(self.server.host, self.server.port, timeout=60)
        there.request(request.method, request.target, request.body, headers)
        answer = there.getresponse()
        body = answer.read()
        there.close()
        framing = ("connection", "content-length", "transfer-encoding")
        kept = {
            name: value
            for name, value in answer.getheaders()
            if name.lower() not in framing
        }
        return Answer(answer.status, kept, body)
