"""
A scripted S3 server: a dict of objects, and every unusual answer of S3-compatible
stores.

It answers ListObjectsV2 (with a delimiter, too), GetObject, HeadObject and HeadBucket
for one bucket, path style or virtual-hosted. Failures are injected as a `Fault` (those
of any HTTP server are in `tests.support.http.faults`, those of S3 in this module).
Every request is recorded.

    with FakeS3() as s3:
        s3.put("dags/a.py", b"print()")
        s3.inject(error(403, "AccessDenied"), is_get("dags/a.py"), times=1)
"""

import base64
import hashlib
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Literal
from urllib.parse import quote_plus, unquote

from tests import Bodies, Texts
from tests.support.aws.s3_refusals import (
    Identity,
    element,
    error_answer,
    signature_problem,
    signed_region,
)
from tests.support.http.faults import answer_with
from tests.support.http.loopback import Answer, Fault, LoopbackServer, Match, Request

ACCESS_KEY = "AKIATESTSUITE0000001"
SECRET_KEY = "a-secret-of-the-test-suite-0001"


@dataclass(frozen=True)
class Stored:
    """
    An object.

    Args:
        etag: without quotes.
        headers: more headers of its GET answers: checksums, server-side encryption.
    """

    body: bytes
    etag: str
    last_modified: datetime
    headers: Mapping[str, str] = field(default_factory=dict)
    storage_class: str = "STANDARD"


class FakeS3(LoopbackServer):
    """
    A bucket on loopback.

    Attributes:
        objects: key → object; changed by `put` and `delete`.
        identities: access key → its identity. If not empty, signatures are checked.
        clock: the time that objects and answers are dated with.
        region_answer: answer to a request signed for another region; None = ignore the
            region.
    """

    def __init__(
        self,
        bucket: str = "dags-bucket",
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        super().__init__(tls=tls, host=host)
        self.bucket = bucket
        self.region = "us-east-1"
        self.objects: dict[str, Stored] = {}
        self.identities: dict[str, Identity] = {}
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.region_answer: Literal["moved", "redirect", "malformed"] | None = None

    def environment(self) -> Texts:
        """
        Return the variables that make any AWS tool use only this server.
        """
        return environment_for(self.endpoint, self.region)

    def put(
        self,
        key: str,
        body: bytes,
        *,
        etag: str | None = None,
        headers: Mapping[str, str] | None = None,
        storage_class: str = "STANDARD",
        at: datetime | None = None,
    ) -> None:
        """
        Store an object.

        Args:
            etag: None = the MD5 of the body.
            at: when it was written; None = now.
        """
        etag = hashlib.md5(body).hexdigest() if etag is None else etag
        self.objects[key] = Stored(
            body, etag, at or self.clock(), headers or {}, storage_class
        )

    def put_each(self, keys: Iterable[str], body: bytes, **stored: Any) -> None:
        """
        Store objects with the same content.

        Args:
            stored: options as for `put`.
        """
        for key in keys:
            self.put(key, body, **stored)

    def put_all(
        self, bodies: Mapping[str, bytes], prefix: str = "", **stored: Any
    ) -> None:
        """
        Store objects, each under its key below a prefix.

        Args:
            stored: options as for `put`.
        """
        for key, body in bodies.items():
            self.put(prefix + key, body, **stored)

    def files(self) -> Bodies:
        """
        Return the content below `dags/`, by path.
        """
        return {
            key.removeprefix("dags/"): stored.body
            for key, stored in self.objects.items()
        }

    def delete(self, *keys: str) -> None:
        for key in keys:
            del self.objects[key]

    def good_answer(self, request: Request) -> Answer:
        bucket, key = self._address(request)
        refusal = (
            signature_problem(request, self.identities)
            or self._other_region(request)
            or (None if bucket == self.bucket else _no_such_bucket(bucket))
        )
        if refusal:
            return refusal
        if request.method not in ("GET", "HEAD"):
            return error_answer(405, "MethodNotAllowed")
        if key:
            return self._object(request, key)
        if request.method == "HEAD":
            return Answer(200, {"x-amz-bucket-region": self.region})
        return self._listing(request)

    def _address(self, request: Request) -> tuple[str, str]:
        host = request.headers.get("host", "")
        if host.startswith(f"{self.bucket}."):
            return self.bucket, unquote(request.raw_path[1:])
        bucket, _, key = request.raw_path[1:].partition("/")
        return bucket, unquote(key)

    def _other_region(self, request: Request) -> Answer | None:
        if self.region_answer is None or signed_region(request) == self.region:
            return None
        headers = {"x-amz-bucket-region": self.region}
        if self.region_answer == "moved":
            return error_answer(
                301, "PermanentRedirect", headers=headers, Endpoint="s3.example"
            )
        if self.region_answer == "redirect":
            headers["Location"] = "http://dags-bucket.s3.example/"
            return error_answer(
                307, "TemporaryRedirect", headers=headers, Endpoint="s3.example"
            )
        return error_answer(
            400,
            "AuthorizationHeaderMalformed",
            "The authorization header is malformed; the region is wrong",
            headers=headers,
            Region=self.region,
        )

    def _object(self, request: Request, key: str) -> Answer:
        stored = self.objects.get(key)
        if stored is None:
            return error_answer(
                404, "NoSuchKey", "The specified key does not exist.", Key=key
            )
        wanted = request.headers.get("if-match", "").strip('"')
        if wanted and wanted != stored.etag:
            return error_answer(412, "PreconditionFailed", Condition="If-Match")
        headers = {**_object_headers(stored, request), "Date": self._date()}
        if request.headers.get("if-none-match", "").strip('"') == stored.etag:
            return Answer(304, {"ETag": headers["ETag"]})
        if "range" in request.headers:
            return _ranged(stored.body, request.headers["range"], headers)
        return Answer(200, headers, stored.body)

    def _date(self) -> str:
        return format_datetime(self.clock(), usegmt=True)

    def _listing(self, request: Request) -> Answer:
        query = request.query
        if query.get("list-type") != "2":
            return error_answer(501, "NotImplemented", "only ListObjectsV2")
        prefix = query.get("prefix", "")
        delimiter = query.get("delimiter", "")
        after = base64.urlsafe_b64decode(query.get("continuation-token", "")).decode()
        objects = dict(self.objects)  # a test may change them meanwhile
        keys = sorted(key for key in objects if key.startswith(prefix) and key > after)
        if delimiter:
            keys = sorted({_cut(key, prefix, delimiter) for key in keys})
        page = keys[: int(query.get("max-keys", 1000))]
        token = (
            base64.urlsafe_b64encode(page[-1].encode()).decode() if page != keys else ""
        )
        encoded = query.get("encoding-type") == "url"
        inner = "".join(
            [
                element("Name", self.bucket),
                element("Prefix", _encode(prefix, encoded)),
                element("KeyCount", str(len(page))),
                element("MaxKeys", query.get("max-keys", "1000")),
                element("EncodingType", "url") if encoded else "",
                element("IsTruncated", "true" if token else "false"),
                element("NextContinuationToken", token) if token else "",
                *(_listed(_encode(key, encoded), objects.get(key)) for key in page),
            ]
        )
        namespace = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
        document = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<ListBucketResult {namespace}>{inner}</ListBucketResult>"
        )
        return Answer(
            200,
            {"Content-Type": "application/xml", "Date": self._date()},
            document.encode(),
        )


def _listed(key: str, stored: Stored | None) -> str:
    """
    Return the element of an object in a listing, or of a common prefix of keys.
    """
    if stored is None:
        return f"<CommonPrefixes>{element('Prefix', key)}</CommonPrefixes>"
    values = {
        "Key": key,
        "LastModified": stored.last_modified.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "ETag": f'"{stored.etag}"',
        "Size": str(len(stored.body)),
        "StorageClass": stored.storage_class,
    }
    return f"<Contents>{''.join(element(*one) for one in values.items())}</Contents>"


def environment_for(endpoint: str, region: str) -> Texts:
    """
    Return the variables that make any AWS tool use only one server, with our keys.
    """
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def is_list(request: Request) -> bool:
    """
    Match listings.
    """
    return "list-type" in request.query


def is_get(key: str | None = None) -> Match:
    """
    Match GETs of an object; without a key, of any object.
    """

    def match(request: Request) -> bool:
        object_request = request.method == "GET" and not is_list(request)
        return object_request and (key is None or request.path.endswith(f"/{key}"))

    return match


def error(
    status: int,
    code: str,
    message: str = "",
    *,
    headers: Mapping[str, str] | None = None,
    **elements: str,
) -> Fault:
    """
    Answer with an S3 error document.

    Args:
        elements: more elements of the document, such as `Region` or `Resource`.
    """
    return answer_with(error_answer(status, code, message, headers=headers, **elements))


def access_denied(action: str, resource: str, identity: str) -> Fault:
    """
    Answer 403 as S3 does since 2024 within one account: with identity, action and
    resource.
    """
    return error(
        403,
        "AccessDenied",
        (
            f"User: {identity} is not authorized to perform: {action} on resource: "
            f'"{resource}" because no identity-based policy allows the {action} action'
        ),
    )


def _no_such_bucket(bucket: str) -> Answer:
    return error_answer(
        404, "NoSuchBucket", "The specified bucket does not exist", BucketName=bucket
    )


def _object_headers(stored: Stored, request: Request) -> Texts:
    """
    Return the headers of a GET; checksums only if the client requests them, as S3 does.
    """
    asked = request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED"
    return {
        "ETag": f'"{stored.etag}"',
        "Last-Modified": format_datetime(stored.last_modified, usegmt=True),
        "Accept-Ranges": "bytes",
        "Content-Type": "binary/octet-stream",
        **{
            name: value
            for name, value in stored.headers.items()
            if asked or not name.lower().startswith("x-amz-checksum-")
        },
    }


def _ranged(body: bytes, text: str, headers: Texts) -> Answer:
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", text)
    start = int(found[1]) if found else len(body)
    if found is None or start >= len(body):
        return error_answer(416, "InvalidRange")
    end = min(int(found[2]) if found[2] else len(body), len(body) - 1)
    headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
    return Answer(206, headers, body[start : end + 1])


def _cut(key: str, prefix: str, delimiter: str) -> str:
    """
    Return the common prefix of a key, up to the first delimiter after the prefix, or
    the key.
    """
    head, found, _ = key.removeprefix(prefix).partition(delimiter)
    return prefix + head + found


def _encode(key: str, encoded: bool) -> str:
    """
    Encode a key as `encoding-type=url` does: a space as `+`, slashes unchanged.
    """
    return quote_plus(key, safe="/") if encoded else key
