"""
A proxy between s3-sync and a real S3 server, which corrupts answers on demand.

It forwards requests and answers unchanged. Faults are injected as into
any `LoopbackServer`: those of `tests.support.http.faults` and `tests.support.aws.fake_s3`.

    with FaultProxy(moto) as proxy:
        proxy.inject(truncate(after=3), is_get("dags/a.py"))
"""

from contextlib import closing
from http.client import HTTPConnection

from tests.support.aws.servers import S3Server
from tests.support.http.loopback import Answer, LoopbackServer, Request

OF_THE_CONNECTION = {"connection", "content-length", "keep-alive", "transfer-encoding"}


class FaultProxy(LoopbackServer):
    """
    A proxy in front of a server; `stop` followed by `start` is an outage of the connection.

    Args:
        upstream: the server that answers; must be started.
    """

    def __init__(self, upstream: S3Server) -> None:
        super().__init__()
        self.upstream = upstream

    def environment(self) -> dict[str, str]:
        """
        Return the variables that make any AWS tool use only this proxy.
        """
        return {**self.upstream.environment(), "AWS_ENDPOINT_URL": self.endpoint}

    def good_answer(self, request: Request) -> Answer:
        with closing(HTTPConnection("127.0.0.1", self.upstream.port, timeout=30)) as upstream:
            upstream.putrequest(request.method, request.target, True, True)
            for name, value in request.headers.items():
                if name != "connection":
                    upstream.putheader(name, value)
            upstream.endheaders(request.body)
            answer = upstream.getresponse()
            pairs = answer.getheaders()
            headers = {name: text for name, text in pairs if name.lower() not in OF_THE_CONNECTION}
            return Answer(answer.status, headers, answer.read())
