"""
The S3 reader: list a page, get an object. All that the daemon needs of S3, and no more.

boto3's client costs ten times the CPU (45 ms for a page of 1,000 keys, 0.7-1.1 ms a GET, measured);
see docs/decisions/0002-data-plane.md.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import Callable
from typing import Protocol

from s3_sync.addressing import DEFAULT_REGION, Address, locate
from s3_sync.pool import Pool
from s3_sync.refusals import (
    STALE_CREDENTIALS,
    ObjectMoved,
    Operation,
    Refusal,
    Request,
    SourceError,
    explain,
    is_denied,
    read_refusal,
)
from s3_sync.signing import encode_query, sign
from s3_sync.wire import Answer, Check, WireError
from sidecar_runtime import __version__
from sidecar_runtime.aws_credentials import AwsConfig, Chain, Credentials
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence

USER_AGENT = f"s3-sync/{__version__}"
PAGE_KEYS = 1000
LIST_SECONDS = 60.0
GET_SECONDS = 60.0
# A download may take a minute, and longer as far as it brings at least this much a second.
SLOWEST_BYTES_PER_SECOND = 50_000
ATTEMPTS = 3
RETRY_CEILING_SECONDS = 0.4
RETRIED = {"throttled", "server_error", "connection_lost"}


class Receiver(Protocol):
    """
    Takes the body of an object; `restart` comes before each attempt.
    """

    def restart(self) -> None: ...

    def write(self, chunk: bytes) -> object: ...


class S3Client:
    """
    Reads one bucket; belongs to one event loop.

    Args:
        count: Called with the operation of each request that is sent.
    """

    def __init__(
        self, bucket: str, prefix: str, chain: Chain, count: Callable[[Operation], None]
    ) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._chain = chain
        self._count = count
        # Whether this store's ETags are MD5s: None until the first that looks like one was tried.
        self.has_md5_etags: bool | None = None
        # When S3 answered the last listing, by its own clock (RFC 9110).
        self.listed_at = ""
        self._bucket_region: str | None = None
        self._config: AwsConfig | None = None
        self._credentials: Credentials | None = None
        self._address: Address | None = None
        self._pool: Pool | None = None
        self._fence = Fence()

    def begin_cycle(self, fence: Fence) -> None:
        """
        Make sure of valid credentials; connections are kept where nothing has changed.

        Raises:
            CredentialsError, SettingsError, CycleAbandoned
        """
        self._fence = fence
        self._credentials, config = self._chain.current(fence)
        if config != self._config or self._address is None:
            self._config = config
            self._relocate(self._bucket_region)

    @property
    def region(self) -> str:
        """
        The region that signs: where the bucket is, as far as we know.
        """
        return self._address.region if self._address else DEFAULT_REGION

    async def list_page(self, token: str | None) -> bytes:
        """
        Return one page of ListObjectsV2 as it came.

        Raises:
            SourceError, WireError
        """
        query = {
            "list-type": "2",
            "encoding-type": "url",
            "max-keys": str(PAGE_KEYS),
            "prefix": self._prefix,
        }
        if token is not None:
            query["continuation-token"] = token
        request = self._request("list", self._prefix)
        answer = await self._send(request, query, {}, None, LIST_SECONDS)
        self.listed_at = answer.headers.get("date", "")
        return answer.body

    async def get_object(
        self, key: str, etag: str, size_bytes: int, receiver: Receiver
    ) -> dict[str, str]:
        """
        Read one object into the receiver and return the headers of the answer.

        Args:
            etag: The object must still have it; without quotes.

        Raises:
            ObjectMoved: It has changed or vanished since it was listed.
            ObjectError, SourceError, WireError
        """
        headers = {
            "accept-encoding": "identity",
            "if-match": f'"{etag}"',
            "x-amz-checksum-mode": "ENABLED",
        }
        request = self._request("get", key)
        seconds = GET_SECONDS + size_bytes / SLOWEST_BYTES_PER_SECOND

        def check(found: dict[str, str]) -> None:
            if found.get("etag", etag).removeprefix("W/").strip('"') != etag:
                raise ObjectMoved  # a server that ignores If-Match

        answer = await self._send(request, {}, headers, receiver, seconds, check)
        return answer.headers

    def close(self) -> None:
        """
        Drop the connections.
        """
        if self._pool is not None:
            self._pool.close()

    def _request(self, operation: Operation, key: str) -> Request:
        return Request(operation, self._bucket, key, self._prefix, self.region)

    async def _send(
        self,
        request: Request,
        query: dict[str, str],
        headers: dict[str, str],
        receiver: Receiver | None,
        seconds: float,
        check: Check | None = None,
    ) -> Answer:
        """
        Send a request, again after what passes by itself: throttling, a failed server, a lost
        connection, rotated credentials, a bucket elsewhere.
        """
        failures = 0
        may_relocate = may_renew = True
        while True:
            if receiver is not None:
                receiver.restart()
            used = self._credentials
            error: SidecarError | ObjectMoved
            try:
                answer = await self._send_once(request, query, headers, receiver, seconds, check)
            except WireError as wire_error:
                error = wire_error
            else:
                if answer.status in (200, 206):
                    return answer
                refusal = read_refusal(answer)
                if answer.status in (301, 307, 400) and refusal.region and may_relocate:
                    may_relocate = False
                    if refusal.region != self.region:
                        self._relocate(refusal.region)
                        continue
                if refusal.code in STALE_CREDENTIALS and may_renew:
                    may_renew = False
                    self._renew(used)
                    continue
                error = explain(answer, refusal, request, self._who(answer, refusal, used))
            failures += 1
            reason = error.reason if isinstance(error, SidecarError) else ""
            if reason not in RETRIED or failures == ATTEMPTS:
                raise error
            await asyncio.sleep(random.uniform(0, RETRY_CEILING_SECONDS * 2**failures))

    async def _send_once(
        self,
        request: Request,
        query: dict[str, str],
        headers: dict[str, str],
        receiver: Receiver | None,
        seconds: float,
        check: Check | None,
    ) -> Answer:
        assert self._address is not None and self._pool is not None
        assert self._credentials is not None
        address = self._address
        if request.operation == "get":
            path = address.path_of(request.key)
        else:
            path = address.base_path or "/"
        encoded = encode_query(query)
        headers = {"user-agent": USER_AGENT, **headers}
        signed = sign(
            self._credentials, address.region, address.origin.host_header, path, encoded, headers
        )
        target = f"{path}?{encoded}" if encoded else path
        self._count(request.operation)
        write = receiver.write if receiver is not None else None
        return await self._pool.get(target, signed, write, seconds, check)

    def _who(self, answer: Answer, refusal: Refusal, used: Credentials | None) -> str | None:
        """
        Return who was refused, for the error; asks STS only where S3 does not say it.
        """
        if refusal.code in STALE_CREDENTIALS and used is not None:
            return f"the access key {used.access_key}"
        if is_denied(answer, refusal) and "User: " not in refusal.message:
            return self._chain.identity(self._fence)
        return None

    def _renew(self, used: Credentials | None) -> None:
        """
        Fetch credentials anew, unless another request has done so since.
        """
        if self._credentials is used:
            self._chain.forget()
            self._credentials, _ = self._chain.current(self._fence)

    def _relocate(self, bucket_region: str | None) -> None:
        """
        Point at the bucket's region; the host is always one that we derive ourselves.
        """
        assert self._config is not None
        self._bucket_region = bucket_region
        address = locate(self._bucket, self._config, bucket_region)
        if self._pool is None or self._address is None or address.origin != self._address.origin:
            self.close()
            context = _tls_context(self._config) if address.origin.scheme == "https" else None
            self._pool = Pool(address.origin, context)
        self._address = address


def _tls_context(config: AwsConfig) -> ssl.SSLContext:
    """
    Trust AWS_CA_BUNDLE, else the system's store, else botocore's own bundle.

    Raises:
        SourceError: The bundle cannot be read.
    """
    try:
        if config.ca_bundle:
            return ssl.create_default_context(cafile=config.ca_bundle)
        context = ssl.create_default_context()
        paths = ssl.get_default_verify_paths()
        has_store = paths.cafile or (paths.capath and os.listdir(paths.capath))
        if not has_store and config.ca_fallback:
            context.load_verify_locations(cafile=config.ca_fallback)
    except (OSError, ssl.SSLError) as error:
        raise SourceError(
            "tls_failed",
            f"the CA bundle {config.ca_bundle} cannot be read: {error.strerror or error}",
            "Check AWS_CA_BUNDLE.",
        ) from None
    return context
