"""
The S3 client: list a page, get an object. The daemon needs no other operation.

boto3's client uses ten times the CPU (measured: 45 ms for a page of 1,000 keys, 0.7-1.1 ms for a
GET); see docs/decisions/README.md.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, Protocol

from s3_sync.reasons import REASONS, S3Error
from s3_sync.s3.endpoint import encode_query, locate, read_trust, sign
from s3_sync.s3.pool import Pool
from s3_sync.s3.refusals import (
    STALE_CREDENTIALS,
    ObjectError,
    ObjectMoved,
    Operation,
    Refusal,
    Request,
    explain,
    read_refusal,
)
from s3_sync.s3.wire import Answer, Check
from sidecar_runtime import __version__
from sidecar_runtime.aws.credentials import AwsConfig, Chain, Credentials
from sidecar_runtime.fence import Fence

USER_AGENT = f"s3-sync/{__version__}"
PAGE_KEYS = 1000
ATTEMPTS = 3
# The longest pause before the first retry; it doubles with each retry.
RETRY_SECONDS = 0.8
# For a response; a larger body extends it.
ANSWER_SECONDS = 60.0
SLOWEST_BYTES_PER_SECOND = 50_000.0


class Receiver(Protocol):
    """
    Receives the body of an object; `restart` is called before each attempt.
    """

    def restart(self) -> None: ...

    def write(self, chunk: bytes) -> object: ...


class Get(NamedTuple):
    """
    What to read.

    Args:
        key: The key of an object, or the prefix of a listing.
        size_bytes: The expected size, which extends the time limit of each attempt.
        headers: Returns additional headers before each attempt: a range resumes where the last one
            ended.
        check: Checks the headers of the response before its body arrives.
        until: When to give up (monotonic seconds).
        query: The query of a listing.
    """

    operation: Operation
    key: str
    size_bytes: int = 0
    headers: Callable[[], Mapping[str, str]] = dict
    check: Check | None = None
    until: float = math.inf
    query: Mapping[str, str] = {}


class S3Client:
    """
    Reads one bucket; belongs to one event loop.

    Attributes:
        chain: Where the credentials come from.

    Args:
        count: Called with the operation of each request that is sent.
        pays: Whether to pay for requests to a requester-pays bucket.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str,
        chain: Chain,
        count: Callable[[Operation], None],
        *,
        pays: bool = False,
    ) -> None:
        self._own_headers = {"user-agent": USER_AGENT, "accept-encoding": "identity"}
        if pays:
            self._own_headers["x-amz-request-payer"] = "requester"
        self._bucket = bucket
        self._prefix = prefix
        self.chain = chain
        self._count = count
        self._access: tuple[Credentials, AwsConfig] | None = None
        self._pool: Pool | None = None
        self._fence = Fence()

    def begin_cycle(self, fence: Fence) -> None:
        """
        Ensure valid credentials; keep connections if the configuration has not changed.

        Raises:
            SidecarError: There are no credentials, or the configuration is not usable.
            CycleAbandoned: The fence was revoked.
        """
        before, self._fence = self._access, fence
        self._access = self.chain.current(fence)
        if self._pool is None or before is None or before[1] != self._access[1]:
            self._move(None)

    @property
    def is_aws(self) -> bool:
        """
        Whether the endpoint is AWS, not another store that AWS_ENDPOINT_URL sets.
        """
        return self._pool is not None and ".amazonaws." in self._pool.address.host

    async def list_page(self, token: str | None, **other: str) -> bytes:
        """
        Return the raw body of one page of ListObjectsV2.

        Args:
            other: Parameters of the query in place of the usual ones.

        Raises:
            SourceError, WireError
        """
        query = {"list-type": "2", "encoding-type": "url", "max-keys": str(PAGE_KEYS)}
        query |= {"prefix": self._prefix, **other}
        if token is not None:
            query["continuation-token"] = token
        return (await self.get(Get("list", self._prefix, query=query))).body

    async def get_object(
        self, key: str, etag: str, size_bytes: int, receiver: Receiver, *, until: float = math.inf
    ) -> dict[str, str]:
        """
        Read one object into the receiver and return the headers of the response.

        Args:
            etag: The ETag that the object must still have, without quotes; empty is an error.
            until: When to give up (monotonic seconds).

        Raises:
            ObjectMoved: The object was changed or deleted since it was listed.
            ObjectError, SourceError, WireError
        """
        if not etag:
            raise ObjectError(
                "etag_missing",
                f"the listing has no usable ETag or size for {key!r} to detect changes with",
                "Write it again through the S3 API, not directly into the store's files, or "
                "exclude it with S3_SYNC_EXCLUDE.",
            )
        headers = {"if-match": f'"{etag}"', "x-amz-checksum-mode": "ENABLED"}

        def check(found: dict[str, str]) -> None:
            if found.get("etag", etag).removeprefix("W/").strip('"') != etag:
                raise ObjectMoved  # the server ignores If-Match

        what = Get("get", key, size_bytes, lambda: headers, check, until)
        return (await self.get(what, receiver)).headers

    async def get(self, what: Get, receiver: Receiver | None = None) -> Answer:
        """
        Send a request, and again after transient failures (throttling, server errors, lost
        connections), with rotated credentials, or to the bucket's region. A conditional request may
        return 304.

        Args:
            receiver: Receives the body; None to return it.

        Raises:
            ObjectMoved: The object does not exist.
            ObjectError, SourceError, WireError
        """
        for attempt in range(ATTEMPTS - 1):
            try:
                return await self._try(what, receiver, is_last=False)
            except _Again:
                pass
            except S3Error as error:
                if not REASONS[error.reason].is_retried:
                    raise
                await asyncio.sleep(random.uniform(0, RETRY_SECONDS * 2**attempt))
        return await self._try(what, receiver, is_last=True)

    def close(self) -> None:
        """
        Close the connections.
        """
        if self._pool is not None:
            self._pool.close()

    async def _try(self, what: Get, receiver: Receiver | None, *, is_last: bool) -> Answer:
        assert self._pool is not None and self._access is not None
        address, credentials = self._pool.address, self._access[0]
        if receiver is not None:
            receiver.restart()
        headers, query = what.headers(), encode_query(what.query)
        is_list = what.operation == "list"
        path = (address.base_path or "/") if is_list else address.path_of(what.key)
        signed = sign(credentials, address, path, query, {**self._own_headers, **headers})
        self._count(what.operation)
        seconds = ANSWER_SECONDS + what.size_bytes / SLOWEST_BYTES_PER_SECOND
        seconds = min(seconds, max(0.1, what.until - time.monotonic()))
        target = f"{path}?{query}" if query else path
        sink = receiver.write if receiver is not None else None
        answer = await self._pool.get(target, signed, sink, seconds, what.check)
        is_unchanged = answer.status == 304 and "if-none-match" in headers
        if answer.status in (200, 206) or is_unchanged:
            return answer
        refusal = read_refusal(answer)
        if not is_last and self._adapt(answer, refusal, credentials):
            raise _Again
        request = Request(what.operation, self._bucket, what.key, self._prefix, address.region)
        raise explain(answer, refusal, request)

    def _adapt(self, answer: Answer, refusal: Refusal, used: Credentials) -> bool:
        """
        Whether the request should be sent again, to the region that S3 reports for the bucket, or
        with rotated credentials.
        """
        assert self._access is not None and self._pool is not None
        is_elsewhere = refusal.region not in ("", self._pool.address.region)
        if answer.status in (301, 307, 400) and is_elsewhere:
            self._move(refusal.region)
            return True
        if refusal.code in STALE_CREDENTIALS and self._access[0] is used:
            self.chain.forget()
            self._access = self.chain.current(self._fence)[0], self._access[1]
        return refusal.code in STALE_CREDENTIALS and self._access[0] != used

    def _move(self, bucket_region: str | None) -> None:
        """
        Switch to another configuration, or to the bucket's region; the host is always derived here,
        never taken from S3.
        """
        assert self._access is not None
        config = self._access[1]
        self.close()
        self._pool = None
        address = locate(self._bucket, config, bucket_region)
        self._pool = Pool(address, partial(read_trust, config))


class _Again(Exception):
    """
    The same request may succeed now.
    """
