"""
The bucket as a publisher sees it: whole objects, some of them written conditionally.

The only module that loads boto3: a publisher runs for seconds, so botocore's retries and its
handling of request bodies are worth the cost of its client.
"""

from __future__ import annotations

import base64
import hashlib
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar

import boto3
from botocore import UNSIGNED, exceptions
from botocore.config import Config

from s3_sync.reasons import ADVICE
from s3_sync.release.format import BUNDLE_FOLDER, MANIFEST_LIMIT_BYTES, POINTER_KEY
from s3_sync.s3.refusals import Operation, Refusal, Request, S3Error, explain, is_denied
from s3_sync.s3.wire import Answer, WireError
from s3_sync.settings import Settings
from sidecar_runtime.aws.chain import classify, open_session, shown, shows_a_header, whoami
from sidecar_runtime.aws.credentials import CredentialsError
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.settings import without_password

# Requests for an object whose body breaks off.
BODY_TRIES = 3
CHUNK_BYTES = 1 << 20

KINDS = {"json": "application/json", "zip": "application/zip", "gz": "application/gzip"}

_CONFIG = Config(
    connect_timeout=10,
    read_timeout=60,
    retries={"mode": "standard", "total_max_attempts": 5},
    # Every server understands Content-MD5; many do not know trailing checksums.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)
Body = bytes | io.BufferedReader

Taken = TypeVar("Taken")


class ConditionFailed(Exception):
    """
    A conditional write was refused: the object exists, or is not the one that was read.
    """


class Stored(NamedTuple):
    """
    An object that was read; dated by S3's clock.
    """

    data: bytes
    etag: str
    modified_at: datetime


class Listed(NamedTuple):
    """
    An object that exists; its key is relative to the prefix. Dated by S3's clock.
    """

    key: str
    size_bytes: int
    modified_at: datetime


class Store:
    """
    One prefix of one bucket.

    Args:
        profile: The AWS profile; empty: the one of the environment.

    Raises:
        SidecarError: From every method: S3 refuses or is unreachable; no credentials.
    """

    def __init__(self, settings: Settings, profile: str = "") -> None:
        self.bucket = settings.bucket
        self.prefix = settings.prefix
        self.url = f"s3://{self.bucket}/{self.prefix}"
        # The time of S3's last response, by its clock and by our monotonic clock.
        self._heard: tuple[datetime, float] | None = None
        self._session = open_session(profile)
        is_public = settings.bucket_access == "public"
        config = _CONFIG.merge(Config(signature_version=UNSIGNED)) if is_public else _CONFIG
        try:
            self._client: Any = boto3.Session(botocore_session=self._session).client(
                "s3", config=config
            )
        except (exceptions.BotoCoreError, ValueError) as error:
            raise CredentialsError(_reason_of(error), _said(error)) from error
        self._client.meta.events.register("after-call.s3", self._note_time)
        if settings.bucket_access == "requester-pays":
            self._client.meta.events.register("before-call.s3", _pay)

    # --- reading

    def read(self, key: str) -> Stored | None:
        """
        Return a pointer or a manifest; None if it does not exist.
        """

        def take(at: dict[str, str]) -> Stored:
            found = self._client.get_object(**at)
            # One byte more, so that the caller can refuse an object that is too long.
            body = found["Body"].read(MANIFEST_LIMIT_BYTES + 1)
            if len(body) <= MANIFEST_LIMIT_BYTES:
                found["Body"].read(1)  # raises if the connection ended before the object
            # A proxy that compresses weakens the ETag, which If-Match would not match.
            etag = found["ETag"].removeprefix("W/")
            return Stored(body, etag, found["LastModified"])

        return self._unless_absent(key, take)

    def download(self, key: str, path: str, tell: Callable[[int], None]) -> str | None:
        """
        Download an object into a file; return its SHA-256, or None if it does not exist.

        Args:
            tell: Called with the number of bytes received.
        """

        def take(at: dict[str, str]) -> str:
            digest, body = hashlib.sha256(), self._client.get_object(**at)["Body"]
            with open(path, "wb") as file:
                for chunk in body.iter_chunks(CHUNK_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
                    tell(file.tell())
            return digest.hexdigest()

        return self._unless_absent(key, take)

    def look(self, key: str) -> Listed | None:
        """
        Return what is known of one object without reading it; None if it does not exist.
        """

        def take(at: dict[str, str]) -> Listed:
            answer = self._client.head_object(**at)
            return Listed(key, int(answer["ContentLength"]), answer["LastModified"])

        return self._unless_absent(key, take)

    def list(self, folder: str) -> Iterator[Listed]:
        """
        Yield the objects in a folder.
        """
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix + folder
        )
        with self._explaining("list", folder):
            for page in pages:
                for found in page.get("Contents", ()):
                    key = found["Key"].removeprefix(self.prefix)
                    yield Listed(key, found["Size"], found["LastModified"])

    def now(self) -> datetime:
        """
        Return the time by the clock of S3, which dates the objects, from its last response.
        """
        if self._heard is None:
            with self._explaining("list", ""):
                self._client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1)
        if self._heard is None:  # its responses have no date
            return datetime.now(UTC)
        at, then = self._heard
        return at + timedelta(seconds=time.monotonic() - then)

    def age_of(self, found: Stored | Listed) -> timedelta:
        return self.now() - found.modified_at

    # --- writing

    def put(
        self,
        key: str,
        body: Body,
        *,
        if_absent: bool = False,
        if_etag: str = "",
    ) -> None:
        """
        Write an object, completely or not at all.

        botocore retries when a response is lost, so a failed condition may mean our own success:
        read the object and compare.

        Args:
            body: The content, or an open file with it.
            if_absent: Write only if the object does not exist.
            if_etag: Write only if the object still has this ETag.

        Raises:
            ConditionFailed: The condition is not met.
        """
        condition = {"IfNoneMatch": "*"} if if_absent else {"IfMatch": if_etag} if if_etag else {}
        md5 = partial(hashlib.md5, usedforsecurity=False)
        digest = md5(body) if isinstance(body, bytes) else hashlib.file_digest(body, md5)
        given = {
            "Bucket": self.bucket,
            "Key": self.prefix + key,
            "ContentType": KINDS.get(key.rpartition(".")[2], "application/octet-stream"),
            "ContentMD5": base64.b64encode(digest.digest()).decode(),
            **condition,
        }
        with self._explaining("put", key):
            try:
                if not isinstance(body, bytes):
                    body.seek(0)
                self._client.put_object(Body=body, **given)
            except exceptions.ClientError as error:
                status = _status_of(error)
                # 409: of another conditional write at the same moment.
                if condition and (status in (409, 412) or _code_of(error) == "NoSuchKey"):
                    raise ConditionFailed from error
                if condition and status == 501:
                    raise unsupported(self) from error
                raise

    def delete(self, key: str) -> None:
        """
        Delete an object, if it exists.
        """
        with self._explaining("delete", key):
            try:
                self._client.delete_object(Bucket=self.bucket, Key=self.prefix + key)
            except exceptions.ClientError as error:
                if _code_of(error) != "NoSuchKey":  # other stores report it, S3 does not
                    raise

    # --- answers

    def _unless_absent(self, key: str, take: Callable[[dict[str, str]], Taken]) -> Taken | None:
        """
        Return the result of `take` for an object; None if the object does not exist.

        boto3 repeats a request only until its headers arrive; `take` is repeated if the body breaks
        off, and must then start from the beginning.
        """
        at = {"Bucket": self.bucket, "Key": self.prefix + key}
        try:
            for _ in range(BODY_TRIES - 1):
                with suppress(exceptions.IncompleteReadError, exceptions.ResponseStreamingError):
                    return take(at)
            return take(at)
        except exceptions.ClientError as error:
            if _status_of(error) == 404 and _code_of(error) != "NoSuchBucket":
                return None
            explained = self._explained(error, _part_of(key), key)
            is_denied_here = isinstance(explained, S3Error) and explained.permission is not None
            if is_denied_here and self._is_absent(key):
                return None
            raise explained from error
        except exceptions.BotoCoreError as error:
            raise _unreachable(error) from error

    def _is_absent(self, key: str) -> bool:
        """
        Whether an object whose read was denied does not exist. Without permission to list the
        whole bucket, S3 answers 403 in both cases; listing the key tells them apart.
        """
        try:
            answer = self._client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix + key)
            return all(found["Key"] != self.prefix + key for found in answer.get("Contents", ()))
        except (exceptions.ClientError, exceptions.BotoCoreError):
            return False

    @contextmanager
    def _explaining(self, operation: Operation, key: str) -> Iterator[None]:
        """
        Turn errors of boto3 into those of the daemon.
        """
        try:
            yield
        except exceptions.ClientError as error:
            raise self._explained(error, operation, key) from error
        except exceptions.BotoCoreError as error:
            raise _unreachable(error) from error

    def _explained(
        self, error: exceptions.ClientError, operation: Operation, key: str
    ) -> SidecarError:
        """
        Return the error that the daemon would raise for the same response.
        """
        said = error.response.get("Error", {})
        answer = Answer(_status_of(error))
        refusal = Refusal(_code_of(error), str(said.get("Message", "")), "")
        region = self._client.meta.region_name or ""
        request = Request(operation, self.bucket, self.prefix + key, self.prefix, region)
        identity = self._identity() if is_denied(answer, refusal) else None
        explained = explain(answer, refusal, request, identity)
        if isinstance(explained, SidecarError):
            return explained
        text = f"S3 rejected the request for {request.url} ({error})"
        return S3Error("client_error", text, ADVICE["client_error"])

    def _identity(self) -> str | None:
        try:
            return str(whoami(self._session)["arn"])
        except (exceptions.BotoCoreError, exceptions.ClientError):
            return None

    def _note_time(self, parsed: dict[str, Any], **_: object) -> None:
        text = parsed.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
        with suppress(ValueError):
            self._heard = parsedate_to_datetime(text), time.monotonic()


def unsupported(store: Store) -> SidecarError:
    """
    Return the error for a store that does not obey conditions.
    """
    return SidecarError(
        "store_unsupported",
        f"the store of {store.url} has no conditional writes (If-Match, If-None-Match on PUT)",
        "Without them, two publishers overwrite each other unseen, so nothing was made current. "
        "Use Amazon S3, MinIO, Ceph, versitygw or another store that has them.",
    )


def _pay(params: dict[str, Any], **_: object) -> None:
    params["headers"]["x-amz-request-payer"] = "requester"


def _part_of(key: str) -> Operation:
    if key == POINTER_KEY:
        return "pointer"
    return "bundle" if key.startswith(BUNDLE_FOLDER) else "manifest"


def _unreachable(error: Exception) -> SidecarError:
    """
    Return the error of a request that received no response.
    """
    reason = _reason_of(error)
    if reason.startswith("credentials_"):
        return CredentialsError(reason, _said(error))
    return WireError(reason, _said(error))


def _said(error: Exception) -> str:
    """
    Return the error text, without the secrets that botocore quotes.
    """
    return without_password(shown(error))


def _reason_of(error: Exception) -> str:
    """
    Return the reason that the daemon has for the same failure.
    """
    match error:
        case _ if shows_a_header(error):  # an HTTPClientError, although nothing was sent
            return classify(error)
        case exceptions.ProxyConnectionError():
            return "proxy_refused"
        case exceptions.ConnectTimeoutError() | exceptions.ReadTimeoutError():
            return "request_timeout"
        case exceptions.EndpointConnectionError():
            # botocore keeps the cause but does not show it.
            cause = str(error.kwargs.get("error"))
            return "name_unresolved" if "resolve" in cause else "endpoint_unreachable"
        case exceptions.HTTPClientError() | exceptions.IncompleteReadError():
            return "connection_lost"
        case _:
            return classify(error)


def _status_of(error: exceptions.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code_of(error: exceptions.ClientError) -> str:
    """
    Return the error code of S3; empty if the response does not come from S3.

    Without a code, botocore takes the status; the response to a HEAD never has one.
    """
    code = str(error.response.get("Error", {}).get("Code", ""))
    if error.operation_name == "HeadObject":
        return "AccessDenied" if code == "403" else code
    return "" if code.isdigit() else code
