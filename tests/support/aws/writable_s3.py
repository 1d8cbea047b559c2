"""
The scripted S3 server for publishers: it accepts writes, and optionally obeys
conditions.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable
from typing import Literal

from tests.support.aws.fake_s3 import FakeS3
from tests.support.aws.s3_refusals import error_answer, signature_problem
from tests.support.http.loopback import Answer, Exchange, Match, Request


class WritableS3(FakeS3):
    """
    A writable bucket.

    Attributes:
        conditions: How a PUT handles `If-Match` and `If-None-Match`: `obeyed`;
            `ignored`, as in `rclone serve s3`; `refused` with 501, as in S3 before
            2024.
        on_write: Called after every write, before its answer.
    """

    def __init__(self, bucket: str = "dags-bucket") -> None:
        super().__init__(bucket)
        self.conditions: Literal["obeyed", "ignored", "refused"] = "obeyed"
        self.on_write: Callable[[], object] = lambda: None
        self._writing = threading.RLock()

    def good_answer(self, request: Request) -> Answer:
        if request.method not in ("PUT", "DELETE"):
            return super().good_answer(request)
        bucket, key = self._address(request)
        if refusal := signature_problem(request, self.identities):
            return refusal
        if bucket != self.bucket:
            return error_answer(
                404, "NoSuchBucket", "The specified bucket does not exist"
            )
        with self._writing:
            if request.method == "DELETE":
                self.objects.pop(key, None)
                answer = Answer(204)
            else:
                answer = self._put(request, key)
            if answer.status < 300:
                self.on_write()
        return answer

    def _put(self, request: Request, key: str) -> Answer:
        if len(request.body) != int(request.headers["content-length"]):
            return error_answer(400, "IncompleteBody")  # the client has disconnected
        digest = base64.b64encode(hashlib.md5(request.body).digest()).decode()
        if request.headers.get("content-md5") != digest:
            return error_answer(400, "BadDigest")
        wanted = request.headers.get("if-match", "").strip('"')
        is_new = "if-none-match" in request.headers
        if (wanted or is_new) and self.conditions == "refused":
            return error_answer(501, "NotImplemented")
        if self.conditions == "obeyed":
            there = self.objects.get(key)
            if wanted and there is None:
                return error_answer(404, "NoSuchKey", Key=key)
            if there is not None and (is_new or (wanted and wanted != there.etag)):
                return error_answer(412, "PreconditionFailed")
        self.put(key, request.body)
        return Answer(200, {"ETag": f'"{self.objects[key].etag}"'})


def is_write(*ends: str) -> Match:
    """
    Match writes and deletions of keys that end with one of these; without arguments, of
    all keys.
    """
    return lambda request: (
        request.method in ("PUT", "DELETE")
        and (not ends or request.path.endswith(ends))
    )


def lose_answer(exchange: Exchange) -> None:
    """
    Perform the request, but reset the connection instead of answering.
    """
    exchange.good()
    exchange.reset()


def forbid_missing(exchange: Exchange) -> None:
    """
    Answer 403 instead of 404, as S3 does to an identity that may not list the bucket.
    """
    answer = exchange.good()
    if answer.status == 404:
        answer = error_answer(403, "AccessDenied", "Access Denied")
    exchange.send(answer)
