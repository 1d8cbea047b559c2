"""
The scripted S3 server for publishers: it accepts writes, and optionally obeys
conditions.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from tests.support.aws.fake_s3 import FakeS3, is_list
from tests.support.aws.s3_refusals import error_answer, signature_problem
from tests.support.http.loopback import Answer, Exchange, Fault, Match, Request

Conditions = Literal[
    "obeyed",
    "ignored",
    "refused",
    "not_atomic",
    "unquoted",
    "versioned",
    "deleted_stays",
]


class WritableS3(FakeS3):
    """
    A writable bucket.

    Attributes:
        conditions: How a PUT handles `If-Match` and `If-None-Match`: `obeyed`;
            `ignored`, as in `rclone serve s3`; `refused` with 501, as in S3 before
            2024; `not_atomic`, as in S3Proxy and S3Mock; `unquoted`, as in Ceph, which
            knows no ETag with quotes; `versioned`, as in a versioned bucket of Ceph;
            `deleted_stays`, as in a versioned bucket of versitygw, to which a deleted
            key is not new.
        between: Called between the look at a condition and the write, if `not_atomic`.
    """

    def __init__(self, bucket: str = "dags-bucket") -> None:
        super().__init__(bucket)
        self.conditions: Conditions = "obeyed"
        self.between: Callable[[Request], object] = lambda request: None
        self._deleted: set[str] = set()
        self._writing = threading.RLock()

    def delete(self, *keys: str) -> None:
        super().delete(*keys)
        self._deleted.update(keys)

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
        if request.method == "PUT":
            return self._put(request, key)
        with self._writing:
            self.objects.pop(key, None)
            self._deleted.add(key)
        return Answer(204)

    def _put(self, request: Request, key: str) -> Answer:
        if len(request.body) != int(request.headers["content-length"]):
            return error_answer(400, "IncompleteBody")  # the client has disconnected
        digest = base64.b64encode(hashlib.md5(request.body).digest()).decode()
        if request.headers.get("content-md5") != digest:
            return error_answer(400, "BadDigest")
        if self.conditions == "not_atomic":
            refusal = self._refusal(request, key)
            if refusal is None:
                self.between(request)
            return refusal or self._write(key, request.body)
        with self._writing:
            return self._refusal(request, key) or self._write(key, request.body)

    def _refusal(self, request: Request, key: str) -> Answer | None:
        """
        Return the refusal of a write whose condition is not met; None if it is.
        """
        wanted = request.headers.get("if-match", "")
        is_new = "if-none-match" in request.headers
        there = self.objects.get(key)
        if self.conditions == "ignored" or not (wanted or is_new):
            return None
        if self.conditions == "refused":
            return error_answer(501, "NotImplemented")
        if wanted and there is None:
            return error_answer(404, "NoSuchKey", Key=key)
        if wanted and self.conditions != "unquoted":
            wanted = wanted.strip('"')
        is_met = there is None
        if wanted:
            is_met = there is not None and wanted == there.etag
        if self.conditions == "versioned":
            is_met = is_new
        if self.conditions == "deleted_stays" and is_new and key in self._deleted:
            is_met = False
        return None if is_met else error_answer(412, "PreconditionFailed")

    def _write(self, key: str, body: bytes) -> Answer:
        with self._writing:
            self.put(key, body)
            return Answer(200, {"ETag": f'"{self.objects[key].etag}"'})


class Meeting:
    """
    Two writers of the pointer that both find their condition met before either writes;
    the second one is slow.
    """

    def __init__(self) -> None:
        self._barrier = threading.Barrier(2)

    def __call__(self, request: Request) -> None:
        if request.path.endswith("current.json") and self._barrier.wait(60) == 1:
            threading.Event().wait(0.1)


def is_write(*ends: str) -> Match:
    """
    Match writes and deletions of keys that end with one of these; without arguments, of
    all keys.
    """
    return lambda request: (
        request.method in ("PUT", "DELETE")
        and (not ends or request.path.endswith(ends))
    )


def is_delete(request: Request) -> bool:
    """
    Match deletions.
    """
    return request.method == "DELETE"


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


def without(*names: str) -> Fault:
    """
    Answer without these headers, and without these elements of a listing.
    """

    def fault(exchange: Exchange) -> None:
        answer = exchange.good()
        body = answer.body
        for name in names if is_list(exchange.request) else ():
            body = re.sub(f"<{name}>.*?</{name}>".encode(), b"", body)
        left = {
            name: value for name, value in answer.headers.items() if name not in names
        }
        exchange.send(replace(answer, headers=left, body=body))

    return fault
