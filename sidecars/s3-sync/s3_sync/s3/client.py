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

from s3_sync.reasons import REASONS
from s3_sync.s3.endpoint import DEFAULT_REGION, Address, encode_query, locate, read_trust, sign
from s3_sync.s3.pool import PATIENCE, Patience, Pool
from s3_sync.s3.refusals import (
    STALE_CREDENTIALS,
    ObjectError,
    ObjectMoved,
    Operation,
    Refusal,
    Request,
    explain,
    is_denied,
    read_refusal,
)
from s3_sync.s3.wire import Answer, Check, WireError
from sidecar_runtime import __version__
from sidecar_runtime.aws.credentials import AwsConfig, Chain, Credentials
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence

USER_AGENT = f"s3-sync/{__version__}"
PAGE_KEYS = 1000
ATTEMPTS = 3


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
    """

    operation: Operation
    key: str
    size_bytes: int = 0
    headers: Callable[[], Mapping[str, str]] = dict
    check: Check | None = None
    until: float = math.inf


class _Place(NamedTuple):
    """
    Where requests go: the configuration, and what follows from it and the bucket's region.
    """

    config: AwsConfig
    address: Address
    pool: Pool


class S3Client:
    """
    Reads one bucket; belongs to one event loop.

    Args:
        count: Called with the operation of each request that is sent.
        pays: Whether to pay for requests to a requester-pays bucket.
        patience: The timeouts.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str,
        chain: Chain,
        count: Callable[[Operation], None],
        *,
        pays: bool = False,
        patience: Patience = PATIENCE,
    ) -> None:
        self._patience = patience
        self._own_headers = {"user-agent": USER_AGENT, "accept-encoding": "identity"}
        if pays:
            self._own_headers["x-amz-request-payer"] = "requester"
        self._bucket = bucket
        self._prefix = prefix
        self._chain = chain
        self._count = count
        self._credentials: Credentials | None = None
        self._place: _Place | None = None
        self._fence = Fence()

    def begin_cycle(self, fence: Fence) -> None:
        """
        Ensure valid credentials; keep connections if the configuration has not changed.

        Raises:
            SidecarError: There are no credentials, or the configuration is not usable.
            CycleAbandoned: The fence was revoked.
        """
        self._fence = fence
        self._credentials, config = self._chain.current(fence)
        if self._place is None or config != self._place.config:
            self._move(config, None)

    @property
    def is_aws(self) -> bool:
        """
        Whether the endpoint is AWS, not another store that AWS_ENDPOINT_URL sets.
        """
        assert self._place is not None
        config, address, _ = self._place
        return not config.endpoint_url or ".amazonaws." in address.origin.host

    @property
    def region(self) -> str:
        """
        The region for signing: the bucket's region as far as it is known.
        """
        return self._place.address.region if self._place else DEFAULT_REGION

    async def list_page(
        self, token: str | None, prefix: str | None = None, delimiter: str = ""
    ) -> bytes:
        """
        Return the raw body of one page of ListObjectsV2.

        Args:
            prefix: The prefix of the keys; None: the prefix of the synced folder.
            delimiter: Where to cut keys off; empty for whole keys.

        Raises:
            SourceError, WireError
        """
        prefix = self._prefix if prefix is None else prefix
        query = {"list-type": "2", "encoding-type": "url", "max-keys": str(PAGE_KEYS)}
        query["prefix"] = prefix
        if delimiter:
            query["delimiter"] = delimiter
        if token is not None:
            query["continuation-token"] = token
        answer = await self.get(Get("list", prefix), query=query)
        return answer.body

    async def get_object(
        self,
        key: str,
        etag: str,
        size_bytes: int,
        receiver: Receiver,
        *,
        until: float = math.inf,
        encoding: str = "identity",
    ) -> dict[str, str]:
        """
        Read one object into the receiver and return the headers of the response.

        Args:
            etag: The ETag that the object must still have, without quotes; empty is an error.
            until: When to give up (monotonic seconds).
            encoding: The content encoding to accept.

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
        headers = {
            "if-match": f'"{etag}"',
            "x-amz-checksum-mode": "ENABLED",
            "accept-encoding": encoding,
        }

        def check(found: dict[str, str]) -> None:
            if found.get("etag", etag).removeprefix("W/").strip('"') != etag:
                raise ObjectMoved  # the server ignores If-Match

        what = Get("get", key, size_bytes, lambda: headers, check, until)
        answer = await self.get(what, receiver)
        return answer.headers

    async def get(
        self, what: Get, receiver: Receiver | None = None, query: Mapping[str, str] | None = None
    ) -> Answer:
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
        for attempt in range(1, ATTEMPTS + 1):
            if receiver is not None:
                receiver.restart()
            used, headers = self._credentials, what.headers()
            error: SidecarError | ObjectMoved
            try:
                answer = await self._try(what, headers, receiver, encode_query(query or {}))
            except WireError as wire_error:
                error = wire_error
            else:
                is_unchanged = answer.status == 304 and "if-none-match" in headers
                if answer.status in (200, 206) or is_unchanged:
                    return answer
                refusal = read_refusal(answer)
                if self._adapt(answer, refusal, used) and attempt < ATTEMPTS:
                    continue
                request = Request(what.operation, self._bucket, what.key, self._prefix, self.region)
                error = explain(answer, refusal, request, self._who(answer, refusal, used))
            if isinstance(error, ObjectMoved) or not REASONS[error.reason].is_retried:
                break
            if attempt < ATTEMPTS:
                ceiling = self._patience.retry_seconds * 2 ** (attempt - 1)
                await asyncio.sleep(random.uniform(0, ceiling))
        raise error

    def close(self) -> None:
        """
        Close the connections.
        """
        if self._place is not None:
            self._place.pool.close()

    async def _try(
        self, what: Get, headers: Mapping[str, str], receiver: Receiver | None, query: str
    ) -> Answer:
        assert self._place is not None and self._credentials is not None
        _, address, pool = self._place
        is_list = what.operation == "list"
        path = (address.base_path or "/") if is_list else address.path_of(what.key)
        signed = sign(self._credentials, address, path, query, {**self._own_headers, **headers})
        self._count(what.operation)
        patience = self._patience
        seconds = patience.answer_seconds + what.size_bytes / patience.slowest_bytes_per_second
        seconds = min(seconds, max(0.1, what.until - time.monotonic()))
        target = f"{path}?{query}" if query else path
        return await pool.get(
            target, signed, receiver.write if receiver is not None else None, seconds, what.check
        )

    def _adapt(self, answer: Answer, refusal: Refusal, used: Credentials | None) -> bool:
        """
        Whether the request should be sent again, to the region that S3 reports for the bucket, or
        with rotated credentials.
        """
        assert self._place is not None
        if answer.status in (301, 307, 400) and refusal.region not in ("", self.region):
            self._move(self._place.config, refusal.region)
            return True
        if refusal.code in STALE_CREDENTIALS and self._credentials is used:
            self._chain.forget()
            self._credentials, _ = self._chain.current(self._fence)
        return refusal.code in STALE_CREDENTIALS and self._credentials != used

    def _who(self, answer: Answer, refusal: Refusal, used: Credentials | None) -> str | None:
        """
        Return who was refused, for the error; ask STS only if S3 does not report it.
        """
        if refusal.code in STALE_CREDENTIALS and used is not None:
            return f"the access key {used.access_key}"
        if is_denied(answer, refusal) and "User: " not in refusal.message:
            return self._chain.identity(self._fence)
        return None

    def _move(self, config: AwsConfig, bucket_region: str | None) -> None:
        """
        Switch to another configuration, or to the bucket's region; the host is always derived here,
        never taken from S3.
        """
        address = locate(self._bucket, config, bucket_region)
        is_tls = address.origin.scheme == "https"
        trust = partial(read_trust, config) if is_tls else lambda: None
        pool = Pool(address.origin, trust, self._patience)
        self.close()
        self._place = _Place(config, address, pool)
