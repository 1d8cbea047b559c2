"""
A file in HDFS, behind the web interface of a name node that requires a Kerberos ticket.

https://hadoop.apache.org/docs/stable/hadoop-project-dist/hadoop-hdfs/WebHDFS.html
"""

from __future__ import annotations

import base64
import json

from demo.airflow.ticket import Warehouse
from tests.support.http.loopback import Answer, Request

CONTENT = b"apples,1\npears,2\n"
_FILE = {
    "accessTime": 0,
    "blockSize": 1 << 20,
    "childrenNum": 0,
    "fileId": 1,
    "group": "",
    "owner": "",
    "length": len(CONTENT),
    "modificationTime": 0,
    "pathSuffix": "",
    "permission": "644",
    "replication": 1,
    "storagePolicy": 0,
    "type": "FILE",
}
_ANSWERS = {
    "GETFILESTATUS": {"FileStatus": _FILE},
    "LISTSTATUS": {"FileStatuses": {"FileStatus": [_FILE]}},
    "GETFILEBLOCKLOCATIONS": {"BlockLocations": {"BlockLocation": []}},
}
_KIND = b"WEBHDFS delegation"
# A token of this kind, with an empty name, password and service.
_TOKEN = (
    base64.urlsafe_b64encode(b"\0\0" + bytes([len(_KIND)]) + _KIND + b"\0").decode().rstrip("=")
)


class WebHdfs(Warehouse):
    """
    Issues a token for a ticket, and serves the file for a token.
    """

    @property
    def url(self) -> str:
        """
        The URL of the file, as Hadoop's clients write it.
        """
        return f"webhdfs://localhost:{self.port}/orders.csv"

    def good_answer(self, request: Request) -> Answer:
        """
        Return the answer to the operation, or 401.
        """
        operation = request.query["op"]
        if operation == "GETDELEGATIONTOKEN":
            answer = super().good_answer(request)
            return (
                answer if answer.status != 200 else _json({"Token": {"urlString": _TOKEN}}, answer)
            )
        if "delegation" not in request.query:
            return Answer(401)
        if operation == "OPEN":
            return Answer(200, {"Content-Type": "application/octet-stream"}, CONTENT)
        if request.path.endswith("/orders.csv") and operation in _ANSWERS:
            return _json(_ANSWERS[operation], Answer(200))
        missing = {"exception": "FileNotFoundException", "message": f"{operation} {request.path}"}
        missing["javaClassName"] = f"java.io.{missing['exception']}"
        return _json({"RemoteException": missing}, Answer(404))


def _json(facts: object, like: Answer) -> Answer:
    headers = {**like.headers, "Content-Type": "application/json"}
    return Answer(like.status, headers, json.dumps(facts).encode())
