"""
The S3 client: list a page, get an object. The daemon needs no other operation.

boto3's client uses ten times the CPU (measured: 45 ms for a page of 1,000 keys, 0.7-1.1 ms for a
GET); see docs/decisions/0002-data-plane.md.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Mapping
from typing import Protocol

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
from s3_sync.s3.tls import CaBundle
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
        # When S3 answered the last listing, from its Date header (RFC 9110).
        self.listed_at = ""
        self._bucket_region: str | None = None
        self._config: AwsConfig | None = None
        self._credentials: Credentials | None = None
        self._address: Address | None = None
        self._pool: Pool | None = None
        self._fence = Fence()

    def begin_cycle(self, fence: Fence) -> None:
        """
        Ensure valid credentials; keep connections if the configuration has not changed.

        Raises:
            CredentialsError, SettingsError, CycleAbandoned
        """
        self._fence = fence
        self._credentials, config = self._chain.current(fence)
        if config != self._config or self._address is None:
            self._relocate(config, self._bucket_region)

    @property
    def is_aws(self) -> bool:
        """
        Whether the endpoint is AWS, not another store that AWS_ENDPOINT_URL sets.
        """
        assert self._address is not None and self._config is not None
        return not self._config.endpoint_url or self._address.origin.host.endswith(AWS_DOMAINS)

    @property
    def region(self) -> str:
        """
        The region for signing: the bucket's region as far as it is known.
        """
        return self._address.region if self._address else DEFAULT_REGION

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
        answer = await self._send(request, query, dict, None, self._patience.answer_seconds)
        self.listed_at = answer.headers.get("date", "")
        return answer.body

    async def get_object(
        self,
        key: str,
        etag: str,
        size_bytes: int,
        receiver: Receiver,
        *,
        is_trial: bool = False,
        until: float = math.inf,
        encoding: str = "identity",
    ) -> dict[str, str]:
        """
        Read one object into the receiver and return the headers of the response.

        Args:
            etag: The ETag that the object must still have, without quotes; empty is an error.
            is_trial: Read only the first byte.
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
        if is_trial and size_bytes:  # an empty object has no range
            headers["range"] = "bytes=0-0"

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

        return await self._send(request, {}, all_headers, receiver, seconds, check, until)

    def close(self) -> None:
        """
        Close the connections.
        """
        if self._pool is not None:
            self._pool.close()

    def _request(self, operation: Operation, key: str) -> Request:
        assert self._address is not None
        origin = self._address.origin
        proxy = hide_userinfo(origin.proxy) if origin.proxy and origin.scheme == "http" else ""
        return Request(operation, self._bucket, key, self._prefix, self.region, proxy)

    async def _send(
        self,
        request: Request,
        query: dict[str, str],
        headers: Headers,
        receiver: Receiver | None,
        seconds: float,
        check: Check | None = None,
        until: float = math.inf,
    ) -> Answer:
        """
        Send a request, and retry it after transient failures (throttling, server errors, lost
        connections), rotated credentials or a redirect to the bucket's region.
        """
        failures = 0
        may_relocate = may_renew = True
        while True:
            if receiver is not None:
                receiver.restart()
            used, region = self._credentials, self.region
            error: SidecarError | ObjectMoved
            try:
                sent = headers()
                assert self._pool is not None
                target, signed = self._sign(request, query, sent)
                self._count(request.operation)
                write = receiver.write if receiver is not None else None
                rest = min(seconds, max(0.1, until - time.monotonic()))
                answer = await self._pool.get(target, signed, write, rest, check)
            except WireError as wire_error:
                error = wire_error
            else:
                if answer.status in (200, 206):
                    return answer
                if answer.status == 304 and "if-none-match" in sent:
                    return answer
                refusal = read_refusal(answer)
                if answer.status in (301, 307, 400) and refusal.region and may_relocate:
                    may_relocate = False
                    if refusal.region != self.region:
                        assert self._config is not None
                        self._relocate(self._config, refusal.region)
                    if refusal.region != region:  # another request may have relocated meanwhile
                        continue
                if refusal.code in STALE_CREDENTIALS and may_renew:
                    may_renew = False
                    self._renew(used)
                    continue
                error = explain(answer, refusal, request, self._who(answer, refusal, used))
            failures += 1
            reason = error.reason if isinstance(error, SidecarError) else ""
            if not is_retried(reason) or failures == ATTEMPTS:
                raise error
            ceiling = self._patience.retry_seconds * 2 ** (failures - 1)
            await asyncio.sleep(random.uniform(0, ceiling))

    def _sign(
        self, request: Request, query: dict[str, str], headers: Mapping[str, str]
    ) -> tuple[str, dict[str, str]]:
        """
        Return the path with query and all headers of a request.
        """
        assert self._address is not None and self._credentials is not None
        address = self._address
        if request.operation == "list":
            path = address.base_path or "/"
        else:
            path = address.path_of(request.key)
        encoded = encode_query(query) if query else ""
        headers = {**self._own_headers, **headers}
        signed = sign(
            self._credentials, address.region, address.origin.host_header, path, encoded, headers
        )
        return (f"{path}?{encoded}" if encoded else path), signed

    def _who(self, answer: Answer, refusal: Refusal, used: Credentials | None) -> str | None:
        """
        Return who was refused, for the error; ask STS only if S3 does not report it.
        """
        if refusal.code in STALE_CREDENTIALS and used is not None:
            return f"the access key {used.access_key}"
        if is_denied(answer, refusal) and "User: " not in refusal.message:
            return self._chain.identity(self._fence)
        return None

    def _renew(self, used: Credentials | None) -> None:
        """
        Fetch credentials again, unless another request has done so since.
        """
        if self._credentials is used:
            self._chain.forget()
            self._credentials, _ = self._chain.current(self._fence)

    def _relocate(self, config: AwsConfig, bucket_region: str | None) -> None:
        """
        Switch to the bucket's region; the host is always derived here, never taken from S3.
        """
        address = locate(self._bucket, config, bucket_region)
        is_known = self._address is not None and self._address.origin == address.origin
        if not is_known or config != self._config:
            context = CaBundle(config).context if address.origin.scheme == "https" else None
            self.close()
            self._pool = Pool(address.origin, context, self._patience)
        self._config, self._address, self._bucket_region = config, address, bucket_region
