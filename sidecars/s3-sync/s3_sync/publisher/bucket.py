"""
The bucket as a publisher sees it: whole objects, some of them written conditionally.

The only module that loads boto3: a publisher runs for seconds, so botocore's retries
and its handling of request bodies are worth the cost of its client.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from io import BufferedRandom, BytesIO
from typing import Any, NamedTuple

import boto3
from botocore import exceptions
from botocore.config import Config

from s3_sync.reasons import S3Error
from s3_sync.release.format import BLOCK_BYTES, MANIFEST_LIMIT_BYTES
from s3_sync.release.signature import Keys
from s3_sync.s3.http import Answer, WireError
from s3_sync.s3.refusals import Operation, Refusal, Request, explain
from s3_sync.settings import Settings
from sidecar_runtime.aws.chain import classify, open_session, shown, shows_a_header
from sidecar_runtime.aws.credentials import CredentialsError
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.settings import without_password

_CONFIG = Config(
    connect_timeout=10,
    read_timeout=60,
    retries={"mode": "standard", "total_max_attempts": 5},
    # Every server understands Content-MD5; many do not know trailing checksums.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)
# The reasons that the daemon has for the same failures.
_REASONS = {
    exceptions.ProxyConnectionError: "proxy_refused",
    exceptions.ConnectTimeoutError: "request_timeout",
    exceptions.ReadTimeoutError: "request_timeout",
    exceptions.EndpointConnectionError: "endpoint_unreachable",
    exceptions.HTTPClientError: "connection_lost",
    exceptions.IncompleteReadError: "connection_lost",
}


class ConditionFailed(S3Error):
    """
    A conditional write was refused: the object exists, or is not the one that was read;
    or the store refuses a condition that is met.
    """


# The condition of a write, as boto3 takes it.
Condition = dict[str, str]
# The object does not exist.
IF_NEW: Condition = {"IfNoneMatch": "*"}


class Listed(NamedTuple):
    """
    An object that exists; its key is relative to the prefix. Dated by S3's clock.

    Args:
        modified_at: Now, if the store does not say it: too young to be pruned.
    """

    key: str
    size_bytes: int
    modified_at: datetime


class Content(NamedTuple):
    """
    An object that was read.

    Args:
        etag: Empty if the store does not say it.
    """

    data: bytes
    etag: str


class Boto3Store:
    """
    One prefix of one bucket.

    Args:
        keys: The keys that its pointer must be signed with; None: any pointer is
            trusted.
        profile: The AWS profile; None: the one of the environment.

    Raises:
        SidecarError: From every method: S3 refuses or is unreachable; no credentials.
    """

    def __init__(
        self, settings: Settings, keys: Keys | None, profile: str | None = None
    ) -> None:
        self.keys = keys
        self.bucket = settings.bucket
        self.prefix = settings.prefix
        self.url = settings.source
        # How far S3's clock, which dates the objects, is ahead of ours.
        self._ahead = timedelta(0)
        with self._explaining("list", ""):
            session = boto3.Session(botocore_session=open_session(profile or ""))
            self._client: Any = session.client("s3", config=_CONFIG)
            # A repeated deletion could remove what another publisher has written
            # meanwhile.
            once = _CONFIG.merge(Config(retries={"total_max_attempts": 1}))
            self._deleter: Any = session.client("s3", config=once)
        self._client.meta.events.register("after-call.s3", self._note_time)

    def now(self) -> datetime:
        """
        Return the time by the clock of S3.
        """
        return datetime.now(UTC) + self._ahead

    # --- reading

    def read(self, key: str) -> Content | None:
        """
        Return a pointer or a manifest; None if it does not exist.
        """
        with self._explaining("get", key):
            found = self._get(key)
            if found is None:
                return None
            # The caller refuses what is longer. Only a read at the end shows that the
            # connection was cut.
            body = found["Body"].read(MANIFEST_LIMIT_BYTES + 1) + found["Body"].read(1)
            # A proxy that compresses weakens the ETag, which If-Match would not match.
            return Content(body, found.get("ETag", "").removeprefix("W/"))

    def download(self, key: str, size_bytes: int, file: BufferedRandom) -> str | None:
        """
        Download an object into a file; return its SHA-256, or None if it does not
        exist. Of a longer one the rest is not read: it may be endless.
        """
        with self._explaining("get", key):
            found = self._get(key)
            if found is None:
                return None
            body = found["Body"]
            while file.tell() <= size_bytes and file.write(body.read(BLOCK_BYTES)):
                pass
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()

    def look(self, key: str) -> Listed | None:
        """
        Return what is known of one object without reading it; None if it does not
        exist.
        """
        found = next(self.list(key), None)  # a listing begins with the shortest key
        return found if found and found.key == key else None

    def list(self, beginning: str) -> Iterator[Listed]:
        """
        Yield the objects whose keys begin so.
        """
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix + beginning
        )
        with self._explaining("list", beginning):
            for page in pages:
                for found in page.get("Contents", ()):
                    yield Listed(
                        found["Key"].removeprefix(self.prefix),
                        found.get("Size", 0),
                        found.get("LastModified", self.now()),
                    )

    def _get(self, key: str) -> Any:
        """
        Return the response with an object; None if it does not exist.
        """
        try:
            return self._client.get_object(Bucket=self.bucket, Key=self.prefix + key)
        except exceptions.ClientError as error:
            status, code, _ = _answer_of(error)
            if status == 404 and code not in ("", "NoSuchBucket"):
                return None
            # Without permission to list the whole bucket, S3 answers 403 if it does not
            # exist.
            with suppress(SidecarError):
                if code.startswith("AccessDenied") and self.look(key) is None:
                    return None
            raise

    # --- writing

    def put(
        self,
        key: str,
        body: bytes | BufferedRandom,
        condition: Condition | None = None,
    ) -> None:
        """
        Write an object, completely or not at all.

        botocore retries when a response is lost, so a failed condition may mean our own
        success: read the object and compare.

        Args:
            body: The content, or an open file with it.
            condition: Write only if it is met: :data:`IF_NEW`, or ``IfMatch`` and an
                ETag.

        Raises:
            ConditionFailed: The condition is not met.
        """
        stream = BytesIO(body) if isinstance(body, bytes) else body
        stream.seek(0)
        md5 = hashlib.file_digest(stream, partial(hashlib.md5, usedforsecurity=False))
        stream.seek(0)
        with self._explaining("put", key):
            try:
                self._client.put_object(
                    Bucket=self.bucket,
                    Key=self.prefix + key,
                    Body=stream,
                    ContentMD5=base64.b64encode(md5.digest()).decode(),
                    **(condition or {}),
                )
            except exceptions.ClientError as error:
                status, code, _ = _answer_of(error)
                # 409: of another conditional write at the same moment.
                if condition and (status in (409, 412) or code == "NoSuchKey"):
                    raise ConditionFailed(
                        "condition_refused",
                        f"the store refuses {key}, although nobody has changed it: {error}",
                    ) from error
                if condition and status == 501:
                    raise self.unsupported() from error
                raise

    def delete(self, key: str) -> None:
        """
        Delete an object, in one attempt.
        """
        with self._explaining("delete", key):
            self._deleter.delete_object(Bucket=self.bucket, Key=self.prefix + key)

    def unsupported(self) -> SidecarError:
        """
        Return the error for a store that does not obey conditions, or has no ETags.
        """
        return S3Error(
            "store_unsupported",
            f"the store of {self.url} has no conditional writes (ETag, If-Match, If-None-Match)",
        )

    # --- answers

    @contextmanager
    def _explaining(self, operation: Operation, key: str) -> Iterator[None]:
        """
        Turn errors of boto3 into those that the daemon raises for the same failure.
        """
        try:
            yield
        except exceptions.ClientError as error:
            status, code, message = _answer_of(error)
            headers = error.response["ResponseMetadata"]["HTTPHeaders"]
            request = Request(
                operation,
                self.bucket,
                self.prefix + key,
                self.prefix,
                self._client.meta.region_name or "",
            )
            explained = explain(
                Answer(status, headers), Refusal(code, message, ""), request
            )
            if not isinstance(explained, SidecarError):
                explained = S3Error(
                    "client_error",
                    f"S3 rejected the request for {request.url} ({error})",
                )
            raise explained from error
        except (exceptions.BotoCoreError, ValueError) as error:
            raise _unreachable(error) from error

    def _note_time(self, parsed: dict[str, Any], **_: object) -> None:
        # TypeError: a date without a time zone, or none
        with suppress(ValueError, TypeError):
            self._ahead = parsedate_to_datetime(
                parsed["ResponseMetadata"]["HTTPHeaders"].get("date")
            ) - datetime.now(UTC)


def _unreachable(error: Exception) -> SidecarError:
    """
    Return the error of a request that received no response.
    """
    kinds = {} if shows_a_header(error) else _REASONS  # then nothing was sent
    found = (reason for kind, reason in kinds.items() if isinstance(error, kind))
    reason = next(found, "") or classify(error)
    # botocore keeps the cause but does not show it.
    if reason == "endpoint_unreachable" and "resolve" in str(
        getattr(error, "kwargs", "")
    ):
        reason = "name_unresolved"
    kind = CredentialsError if reason.startswith("credentials_") else WireError
    return kind(reason, without_password(shown(error)))


def _answer_of(error: exceptions.ClientError) -> tuple[int, str, str]:
    """
    Return status, code and message of S3's answer; the code is empty if the response is
    not S3's.

    Without a code, botocore takes the status.
    """
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    said = error.response.get("Error", {})
    code = said.get("Code", "")
    return status, "" if code.isdigit() else code, said.get("Message") or ""
