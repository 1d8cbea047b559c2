"""
The bucket as a publisher sees it: whole objects, some of them written conditionally.

The only module here that loads boto3: a publisher runs for seconds, so botocore's retries and its
handling of request bodies are worth the cost of its client.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import boto3
from botocore import UNSIGNED, exceptions
from botocore.config import Config

from s3_sync.publisher.boto_errors import code_of, reason_of, said, status_of, unreachable
from s3_sync.reasons import ADVICE
from s3_sync.release.manifest import MANIFEST_LIMIT_BYTES
from s3_sync.release.names import BUNDLE_FOLDER, POINTER_KEY
from s3_sync.s3.refusals import (
    Operation,
    Refusal,
    Request,
    S3Error,
    SealedError,
    explain,
    is_denied,
)
from s3_sync.s3.wire import Answer
from s3_sync.settings import Settings
from s3_sync.signature import NO_KEYS, PublisherKeys
from sidecar_runtime.aws.chain import open_session, whoami
from sidecar_runtime.aws.credentials import CredentialsError
from sidecar_runtime.errors import SidecarError

# Retries of a conditional write that S3 refused because of another write in progress (409).
CONFLICT_TRIES = 6
CONFLICT_SECONDS = 0.2

# Requests for an object whose body breaks off.
BODY_TRIES = 3

_CONFIG = Config(
    connect_timeout=10,
    read_timeout=60,
    retries={"mode": "standard", "total_max_attempts": 5},
    # Every server understands Content-MD5; many do not know trailing checksums.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)

CHUNK_BYTES = 1 << 20
# Larger objects are uploaded in parts of this size, in sequence: a lost connection costs one part.
PART_BYTES = 64 << 20

KINDS = {"json": "application/json", "zip": "application/zip"}

Body = bytes | io.BufferedReader

Taken = TypeVar("Taken")


class ConditionFailed(Exception):
    """
    A conditional write was refused: the object exists, or is not the one that was read.
    """


class ConditionUnknown(Exception):
    """
    The server reports that it has no conditional writes.
    """


class UploadEnded(Exception):
    """
    A multipart upload was aborted from outside, for example by a lifecycle rule.
    """


@dataclass(frozen=True, slots=True)
class Stored:
    """
    An object that was read.

    Args:
        modified_at: By S3's clock; None if the server does not report it.
    """

    data: bytes
    etag: str
    modified_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """
    An object in a listing; its key is relative to the prefix.
    """

    key: str
    size_bytes: int
    modified_at: datetime


class Store:
    """
    The objects under one prefix; keys are relative to it.

    Attributes:
        keys: The keys that must have signed the objects of others; None: all are trusted.
        signer: Signs the objects that are written; None: they are not signed.
        part_bytes: Larger objects are uploaded in parts of this size.

    Raises:
        SidecarError: From every method, if S3 refuses or cannot be reached.
    """

    def __init__(
        self, settings: Settings, profile: str = "", trust: PublisherKeys = NO_KEYS
    ) -> None:
        """
        Args:
            profile: The section of the AWS configuration to use instead of AWS_PROFILE.
        """
        self.keys, self.signer = trust.keys, trust.signer
        self.part_bytes = PART_BYTES
        # The time of S3's last response, by its clock and by our monotonic clock.
        self._heard: tuple[datetime, float] | None = None
        self.bucket = settings.bucket
        self.prefix = settings.prefix
        self._session = open_session(profile)
        is_public = settings.bucket_access == "public"
        config = _CONFIG.merge(Config(signature_version=UNSIGNED)) if is_public else _CONFIG
        try:
            self._client: Any = boto3.Session(botocore_session=self._session).client(
                "s3", config=config
            )
        except (exceptions.BotoCoreError, ValueError) as error:
            raise CredentialsError(reason_of(error), said(error)) from error
        self._client.meta.events.register("after-call.s3", self._note_time)
        if settings.bucket_access == "requester-pays":
            self._client.meta.events.register("before-call.s3", _pay)

    def needs_no_signature(self, signed_by: str) -> bool:
        """
        Whether an object signed with this key ("": unsigned) need not be signed again.
        """
        return self.signer is None or signed_by == self.signer.key_id

    @property
    def url(self) -> str:
        """
        The place as an ``s3://`` URL.
        """
        return f"s3://{self.bucket}/{self.prefix}"

    def read(self, key: str, *, head_bytes: int = 0) -> Stored | None:
        """
        Return an object, or its first bytes; None if it does not exist.
        """
        part = {"Range": f"bytes=0-{head_bytes - 1}"} if head_bytes else {}

        def take(at: dict[str, str]) -> Stored:
            found = self._client.get_object(**at, **part)
            # One byte more, so that the caller can refuse an object that is too long.
            body = found["Body"].read(MANIFEST_LIMIT_BYTES + 1)
            if len(body) <= MANIFEST_LIMIT_BYTES:
                found["Body"].read(1)  # raises if the connection ended before the object
            modified_at = found.get("LastModified")
            return Stored(body, found["ETag"], _aware(modified_at) if modified_at else None)

        return self._unless_absent(key, take)

    def sha256_of(self, key: str) -> str | None:
        """
        Read an object and return its SHA-256; None if it does not exist, or nobody can read it.
        """

        def take(at: dict[str, str]) -> str:
            digest = hashlib.sha256()
            for chunk in self._client.get_object(**at)["Body"].iter_chunks(CHUNK_BYTES):
                digest.update(chunk)
            return digest.hexdigest()

        try:
            return self._unless_absent(key, take)
        except SealedError:
            return None

    def fetch(self, key: str, path: str, tell: Callable[[int], None]) -> bool:
        """
        Download an object into a file; return whether it exists.

        Args:
            tell: Called with the number of bytes received.
        """

        def take(at: dict[str, str]) -> bool:
            body = self._client.get_object(**at)["Body"]
            with open(path, "wb") as file:
                for chunk in body.iter_chunks(CHUNK_BYTES):
                    file.write(chunk)
                    tell(file.tell())
            return True

        return self._unless_absent(key, take) or False

    def readable_bytes(self, key: str) -> int | None:
        """
        Read the first byte of an object and return its size; None if it does not exist.

        HEAD also succeeds for an object that is archived, or whose KMS key is disabled.
        """

        def take(at: dict[str, str]) -> int:
            found = self._client.get_object(**at, Range="bytes=0-0")
            with closing(found["Body"]) as body:
                body.read(1)
            # A server without ranges sends the whole object.
            size = found.get("ContentRange", "").rpartition("/")[2]
            return int(size or found["ContentLength"])

        return self._unless_absent(key, take)

    def look(self, key: str) -> Listed | None:
        """
        Return the listing entry of one object; None if it does not exist.
        """

        def take(at: dict[str, str]) -> Listed:
            answer = self._client.head_object(**at)
            # If the server does not report the time, the object may be new.
            modified_at = answer.get("LastModified") or self.now()
            return Listed(key, int(answer["ContentLength"]), _aware(modified_at))

        return self._unless_absent(key, take)

    def _unless_absent(self, key: str, take: Callable[[dict[str, str]], Taken]) -> Taken | None:
        """
        Return the result of `take` for an object; None if the object does not exist or is empty.

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
            if status_of(error) == 404 and code_of(error) != "NoSuchBucket":
                return None
            if status_of(error) == 416:  # a range of an empty object
                return None
            explained = self._explained(error, _part_of(key), key)
            is_denied_here = isinstance(explained, S3Error) and explained.permission is not None
            if is_denied_here and self._is_absent(key):
                return None
            raise explained from error
        except exceptions.BotoCoreError as error:
            raise unreachable(error) from error

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
            raise unreachable(error) from error

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
            if_absent: Write only if the object does not exist.
            if_etag: Write only if the object still has this ETag.

        Raises:
            ConditionFailed: The condition is not met.
            ConditionUnknown: The server does not support the condition.
        """
        condition = {"IfNoneMatch": "*"} if if_absent else {"IfMatch": if_etag} if if_etag else {}
        given = {
            "Bucket": self.bucket,
            "Key": self.prefix + key,
            "ContentType": _kind_of(key),
            "ContentMD5": _md5(body),
            **condition,
        }
        for attempt in range(CONFLICT_TRIES):
            if not isinstance(body, bytes):
                body.seek(0)
            with self._explaining("put", key):
                try:
                    self._client.put_object(Body=body, **given)
                    return
                except exceptions.ClientError as error:
                    status = status_of(error)
                    is_gone = if_etag and code_of(error) == "NoSuchKey"
                    if condition and (status == 412 or is_gone):
                        raise ConditionFailed from error
                    if condition and status == 501:
                        raise ConditionUnknown from error
                    if status != 409 or attempt + 1 == CONFLICT_TRIES:
                        raise
            time.sleep(CONFLICT_SECONDS * 2**attempt * random.uniform(0.5, 1))

    def upload(self, key: str, body: io.BufferedReader) -> None:
        """
        Write an object from a file, in parts if it is large; the last step makes it visible.

        If the upload fails, uploaded parts are removed. After a kill, S3 keeps them, invisible,
        until a lifecycle rule of the bucket removes unfinished uploads.

        Raises:
            UploadEnded: The upload was aborted from outside.
        """
        size_bytes = body.seek(0, os.SEEK_END)
        body.seek(0)
        if size_bytes <= self.part_bytes:
            self.put(key, body)
            return
        at = {"Bucket": self.bucket, "Key": self.prefix + key}
        with self._explaining("put", key):
            try:
                begun = self._client.create_multipart_upload(**at, ContentType=_kind_of(key))
            except exceptions.ClientError as error:
                if status_of(error) not in (405, 501):
                    raise
                self.put(key, body)  # a store without multipart uploads
                return
            at["UploadId"] = begun["UploadId"]
            try:
                self._upload_parts(at, body)
            except exceptions.ClientError as error:
                # It may have been completed, and the response lost.
                if code_of(error) != "NoSuchUpload":
                    raise
                body.seek(0)
                if self.sha256_of(key) != hashlib.file_digest(body, "sha256").hexdigest():
                    raise UploadEnded from error

    def _upload_parts(self, at: dict[str, str], body: io.BufferedReader) -> None:
        parts: list[dict[str, object]] = []
        try:
            while data := body.read(self.part_bytes):
                number = len(parts) + 1
                taken = self._client.upload_part(
                    **at, PartNumber=number, Body=data, ContentMD5=_md5(data)
                )
                parts.append({"PartNumber": number, "ETag": taken["ETag"]})
                data = b""  # never hold two parts in memory
            self._client.complete_multipart_upload(**at, MultipartUpload={"Parts": parts})
        except BaseException:
            with suppress(exceptions.ClientError, exceptions.BotoCoreError):
                self._client.abort_multipart_upload(**at)
            raise

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

    def _note_time(self, parsed: dict[str, Any], **_: object) -> None:
        text = parsed.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
        with suppress(ValueError):
            self._heard = _aware(parsedate_to_datetime(text)), time.monotonic()

    def delete(self, key: str) -> None:
        """
        Delete an object, if it exists.
        """
        with self._explaining("delete", key):
            try:
                self._client.delete_object(Bucket=self.bucket, Key=self.prefix + key)
            except exceptions.ClientError as error:
                if code_of(error) != "NoSuchKey":  # other stores report it, S3 does not
                    raise

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
                    yield Listed(key, found["Size"], _aware(found["LastModified"]))

    def _is_absent(self, key: str) -> bool:
        """
        Whether an object whose read was denied does not exist.

        Without permission to list the whole bucket, S3 answers 403 for a missing object as well,
        even if the policy allows listing this prefix. Listing the key tells both cases apart.
        """
        try:
            answer = self._client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix + key)
            return all(found["Key"] != self.prefix + key for found in answer.get("Contents", ()))
        except (exceptions.ClientError, exceptions.BotoCoreError):
            return False

    def _explained(
        self, error: exceptions.ClientError, operation: Operation, key: str
    ) -> SidecarError:
        """
        Return the error that the daemon would raise for the same response.
        """
        said = error.response.get("Error", {})
        answer = Answer(status_of(error))
        refusal = Refusal(code_of(error), str(said.get("Message", "")), "")
        region = self._client.meta.region_name or ""
        request = Request(operation, self.bucket, self.prefix + key, self.prefix, region)
        identity = self._identity() if is_denied(answer, refusal) else self._access_key()
        explained = explain(answer, refusal, request, identity)
        if isinstance(explained, SidecarError):
            return explained
        text = f"S3 rejected the request for {request.url} ({error})"
        return S3Error("client_error", text, ADVICE["client_error"])

    def _access_key(self) -> str:
        found = self._session.get_credentials()
        return f"the access key {found.access_key}" if found else "a request without credentials"

    def _identity(self) -> str | None:
        try:
            return str(whoami(self._session)["arn"])
        except (exceptions.BotoCoreError, exceptions.ClientError):
            return None


def _pay(params: dict[str, Any], **_: object) -> None:
    params["headers"]["x-amz-request-payer"] = "requester"


def _aware(at: datetime) -> datetime:
    """
    Return a time with a time zone: UTC if the server omits it.
    """
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _part_of(key: str) -> Operation:
    """
    Return which part of a release a key is.
    """
    if key == POINTER_KEY:
        return "pointer"
    return "bundle" if key.startswith(BUNDLE_FOLDER) else "manifest"


def _kind_of(key: str) -> str:
    return KINDS.get(key.rpartition(".")[2], "application/octet-stream")


def _md5(body: Body) -> str:
    """
    Return the Content-MD5 of a body.
    """
    if isinstance(body, bytes):
        digest = hashlib.md5(body, usedforsecurity=False)
    else:
        body.seek(0)
        digest = hashlib.file_digest(body, lambda: hashlib.md5(usedforsecurity=False))
    return base64.b64encode(digest.digest()).decode()
