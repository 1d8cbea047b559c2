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

from s3_sync.reasons import is_retried
from s3_sync.s3.addressing import DEFAULT_REGION, Address, locate
from s3_sync.s3.pool import PATIENCE, Patience, Pool, hide_userinfo
from s3_sync.s3.refusals import (
    PARTITIONS,
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
from s3_sync.s3.signing import encode_query, sign
from s3_sync.s3.tls import read_trust
from s3_sync.s3.wire import Answer, Check, WireError
from sidecar_runtime import __version__
from sidecar_runtime.aws.credentials import AwsConfig, Chain, Credentials
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence

USER_AGENT = f"s3-sync/{__version__}"
PAGE_KEYS = 1000
ATTEMPTS = 3

AWS_DOMAINS = (".amazonaws.com", *(f".{domain}" for _, _, domain in PARTITIONS))

# Returns the headers of a request before each attempt: a range resumes where the last one ended.
Headers = Callable[[], Mapping[str, str]]


class Receiver(Protocol):
    """
    Receives the body of an object; `restart` is called before each attempt.
    """

    def restart(self) -> None: ...

    def write(self, chunk: bytes) -> object: ...


class _Want(NamedTuple):
    """
    How a response is received.

    Args:
        seconds: The time limit of each attempt.
        until: When to give up (monotonic seconds).
        receiver: Receives the body; None to return it.
        check: Checks the headers before the body arrives.
    """

    seconds: float
    until: float = math.inf
    receiver: Receiver | None = None
    check: Check | None = None


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
        self._own_headers = {"user-agent": USER_AGENT}
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
        return not config.endpoint_url or address.origin.host.endswith(AWS_DOMAINS)

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
        query = {
            "list-type": "2",
            "encoding-type": "url",
            "max-keys": str(PAGE_KEYS),
            "prefix": self._prefix if prefix is None else prefix,
        }
        if delimiter:
            query["delimiter"] = delimiter
        if token is not None:
            query["continuation-token"] = token
        request = self._request("list", query["prefix"])
        answer = await self._send(request, query, dict, _Want(self._patience.answer_seconds))
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

        answer = await self.get("get", key, lambda: headers, size_bytes, receiver, check, until)
        return answer.headers

    async def get(
        self,
        operation: Operation,
        key: str,
        headers: Headers,
        size_bytes: int,
        receiver: Receiver,
        check: Check | None = None,
        until: float = math.inf,
    ) -> Answer:
        """
        Read an object, or a range of it, into the receiver; a conditional request may return 304.

        Args:
            headers: Returns additional headers before each attempt.
            size_bytes: The expected size, which extends the time limit.
            until: When to give up (monotonic seconds).

        Raises:
            ObjectMoved: The object does not exist.
            ObjectError, SourceError, WireError
        """
        request = self._request(operation, key)
        patience = self._patience
        seconds = patience.answer_seconds + size_bytes / patience.slowest_bytes_per_second

        def all_headers() -> Mapping[str, str]:
            return {"accept-encoding": "identity", **headers()}

        return await self._send(request, {}, all_headers, _Want(seconds, until, receiver, check))

    def close(self) -> None:
        """
        Close the connections.
        """
        if self._place is not None:
            self._place.pool.close()

    def _request(self, operation: Operation, key: str) -> Request:
        assert self._place is not None
        origin = self._place.address.origin
        proxy = hide_userinfo(origin.proxy) if origin.proxy and origin.scheme == "http" else ""
        return Request(operation, self._bucket, key, self._prefix, self.region, proxy)

    async def _send(
        self, request: Request, query: dict[str, str], headers: Headers, want: _Want
    ) -> Answer:
        """
        Send a request, and again after transient failures (throttling, server errors, lost
        connections), with rotated credentials, or to the bucket's region.
        """
        for attempt in range(1, ATTEMPTS + 1):
            if want.receiver is not None:
                want.receiver.restart()
            used, sent = self._credentials, headers()
            error: SidecarError | ObjectMoved
            try:
                answer = await self._try(request, query, sent, want)
            except WireError as wire_error:
                error = wire_error
            else:
                is_unchanged = answer.status == 304 and "if-none-match" in sent
                if answer.status in (200, 206) or is_unchanged:
                    return answer
                refusal = read_refusal(answer)
                if self._adapt(answer, refusal, used) and attempt < ATTEMPTS:
                    continue
                error = explain(answer, refusal, request, self._who(answer, refusal, used))
            if attempt == ATTEMPTS or not (
                isinstance(error, SidecarError) and is_retried(error.reason)
            ):
                break
            ceiling = self._patience.retry_seconds * 2 ** (attempt - 1)
            await asyncio.sleep(random.uniform(0, ceiling))
        raise error

    async def _try(
        self, request: Request, query: dict[str, str], headers: Mapping[str, str], want: _Want
    ) -> Answer:
        assert self._place is not None and self._credentials is not None
        _, address, pool = self._place
        path = address.path_of(request.key)
        if request.operation == "list":
            path = address.base_path or "/"
        encoded = encode_query(query)
        headers = {**self._own_headers, **headers}
        host = address.origin.host_header
        signed = sign(self._credentials, address.region, host, path, encoded, headers)
        self._count(request.operation)
        seconds = min(want.seconds, max(0.1, want.until - time.monotonic()))
        write = want.receiver.write if want.receiver is not None else None
        target = f"{path}?{encoded}" if encoded else path
        return await pool.get(target, signed, write, seconds, want.check)

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
