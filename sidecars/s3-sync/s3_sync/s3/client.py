"""
The S3 client: list a page, get an object. The daemon needs no other operation.

:meth:`S3Client.get` retries requests (``RETRIED`` in `reasons.py`); `http.py` only
sends one again where a kept connection turns out to be closed. All other retries are
those of later cycles.

boto3's client uses ten times the CPU (measured: 45 ms for a page of 1,000 keys, 0.7-1.1
ms for a GET); see docs/decisions/README.md. Hosts are the simple part of S3's endpoint
rules, and signatures are those of GET requests without a body: tests compare both with
botocore. The settings refuse the other kinds of buckets by name: multi-region access
points, S3 Express, Object Lambda.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import os
import random
import re
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from typing import NamedTuple, Protocol
from urllib.parse import quote

from s3_sync.names import EMPTY_SHA256
from s3_sync.reasons import RETRIED, ObjectError, ObjectMoved, S3Error, SourceError
from s3_sync.s3.http import Address, Answer, Headers, Pool, split_url
from s3_sync.s3.refusals import (
    PARTITIONS,
    REGION,
    Operation,
    Refusal,
    Request,
    explain,
    is_stale,
    partition_of,
    read_refusal,
)
from sidecar_runtime import __version__, proxies
from sidecar_runtime.aws.credentials import ANONYMOUS, AwsConfig, Chain, Credentials
from sidecar_runtime.fence import Fence, waits_for

USER_AGENT = f"s3-sync/{__version__}"
PAGE_KEYS = 1000
ATTEMPTS = 3
# The longest pause before the first retry; it doubles with each retry.
RETRY_SECONDS = 0.8
# For a response; a larger body extends it.
ANSWER_SECONDS = 60.0
SLOWEST_BYTES_PER_SECOND = 50_000.0
DEFAULT_REGION = "us-east-1"

# What some stores refuse, and how; without the condition, the response's ETag tells.
OPTIONAL = {"x-amz-checksum-mode", "if-match"}
_REFUSED = re.compile("NotImplemented|x-amz-checksum-mode|if-match", re.IGNORECASE)

# The wildcard certificate of virtual hosts does not match a bucket name with a dot.
_VIRTUAL_HOST = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")


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
        headers: Returns additional headers before each attempt: a range resumes where
            the last one ended.
        until: When to give up (monotonic seconds).
        query: The query of a listing.
    """

    operation: Operation
    key: str
    size_bytes: int = 0
    headers: Callable[[], Headers] = dict
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

    # Of the current cycle, as soon as one has begun.
    _access: tuple[Credentials, AwsConfig]

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
        self._pool: Pool | None = None
        self._fence = Fence()
        # The requests without an answer, the oldest first.
        self._asked: list[str] = []

    async def ensure_credentials(self, fence: Fence) -> None:
        """
        Ensure valid credentials; keep connections if the configuration has not changed.

        While a service is asked for credentials, the first connection is opened: a pod
        with a role would otherwise wait for both.

        Raises:
            SidecarError: There are no credentials, or the configuration is not usable.
            CycleAbandoned: The fence was revoked.
        """
        self._fence = fence
        current = self.chain.current
        if not self.chain.is_due:
            self._use(current(fence))
            return
        loop = asyncio.get_running_loop()

        def prepare(config: AwsConfig) -> None:
            loop.call_soon_threadsafe(self._prepare, config)

        # In a thread, so that this one opens the connection.
        self._use(await asyncio.to_thread(current, fence, prepare))

    def _prepare(self, config: AwsConfig) -> None:
        with suppress(S3Error):  # raised again once there are credentials
            self._use((ANONYMOUS, config))

    def _use(self, access: tuple[Credentials, AwsConfig]) -> None:
        is_kept = self._pool is not None and access[1] == self._access[1]
        self._access = access
        if not is_kept:
            self._move(None)

    @property
    def is_aws(self) -> bool:
        """
        Whether the endpoint is AWS, not another store that AWS_ENDPOINT_URL sets.
        """
        return self._pool is not None and is_of_aws(self._pool.address.host)

    async def list_page(self, token: str | None) -> bytes:
        """
        Return the raw body of one page of ListObjectsV2.

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
        return (await self.get(Get("list", self._prefix, query=query))).body

    async def get_object(
        self,
        key: str,
        etag: str,
        size_bytes: int,
        receiver: Receiver,
        *,
        until: float = math.inf,
    ) -> Headers:
        """
        Read one object into the receiver and return the headers of the response.

        Args:
            etag: The ETag that the object must still have, without quotes; empty is an
                error.
            until: When to give up (monotonic seconds).

        Raises:
            ObjectMoved: The object was changed or deleted since it was listed.
            ObjectError, SourceError, WireError
        """
        if not etag:
            raise ObjectError(
                "etag_missing",
                f"the listing has no usable ETag or size for {key!r} to detect changes with",
            )
        headers = {"if-match": f'"{etag}"', "x-amz-checksum-mode": "ENABLED"}

        what = Get("get", key, size_bytes, lambda: headers, until)
        found = (await self.get(what, receiver)).headers
        if found.get("etag", etag).removeprefix("W/").strip('"') != etag:
            raise ObjectMoved  # the server ignores If-Match
        return found

    async def get(self, what: Get, receiver: Receiver | None = None) -> Answer:
        """
        Send a request, and again after transient failures (throttling, server errors,
        lost connections), with rotated credentials, or to the bucket's region. A
        conditional request may return 304.

        Args:
            receiver: Receives the body; None to return it.

        Raises:
            ObjectMoved: The object does not exist.
            ObjectError, SourceError, WireError
        """
        assert self._pool
        server = self._pool.address.host_header
        asked = waits_for(f"{server} to {what.operation} {what.key!r}")
        self._asked.append(asked)
        self._tell()
        try:
            for attempt in range(ATTEMPTS - 1):
                try:
                    return await self._send_once(what, receiver, is_last=False)
                except _Again:
                    pass
                except S3Error as error:
                    if error.reason not in RETRIED:
                        raise
                    await asyncio.sleep(random.uniform(0, RETRY_SECONDS * 2**attempt))
            return await self._send_once(what, receiver, is_last=True)
        finally:
            self._asked.remove(asked)
            self._tell()

    def _tell(self) -> None:
        """
        Say what the cycle waits for: of several requests, for that of the longest wait.
        """
        self._fence.step = "".join(self._asked[:1])

    def close(self) -> None:
        """
        Close the connections.
        """
        if self._pool:
            self._pool.close()

    async def _send_once(
        self, what: Get, receiver: Receiver | None, *, is_last: bool
    ) -> Answer:
        assert self._pool
        address = self._pool.address
        credentials = self._access[0]
        if receiver is not None:
            receiver.restart()
        headers = {
            n: v for n, v in what.headers().items() if n not in self._pool.refused
        }
        query = encode_query(what.query)
        path = (
            address.path_of(what.key)
            if what.operation != "list"
            else address.base_path or "/"
        )
        signed = sign(
            credentials, address, path, query, {**self._own_headers, **headers}
        )
        self._count(what.operation)
        seconds = ANSWER_SECONDS + what.size_bytes / SLOWEST_BYTES_PER_SECOND
        seconds = min(seconds, max(0.1, what.until - time.monotonic()))
        target = f"{path}?{query}" if query else path
        sink = receiver.write if receiver is not None else None
        answer = await self._pool.get(
            target, signed, sink, seconds, is_part=what.operation == "bundle"
        )
        is_unchanged = answer.status == 304 and "if-none-match" in headers
        if answer.status in (200, 206) or is_unchanged:
            return answer
        refusal = read_refusal(answer)
        request = Request(
            what.operation, self._bucket, what.key, self._prefix, address.region
        )
        if not is_last and self._adapt(answer, refusal, request, credentials):
            raise _Again
        raise explain(answer, refusal, request)

    def _adapt(
        self, answer: Answer, refusal: Refusal, request: Request, used: Credentials
    ) -> bool:
        """
        Whether the request should be sent again, to the region that S3 reports for the
        bucket, without headers that this server refuses, or with rotated credentials.
        Of several requests with the same refusal, the first one adapts.
        """
        assert self._pool
        said = refusal.code + refusal.message
        is_get = request.operation == "get"
        if answer.status in (400, 501) and is_get and _REFUSED.search(said):
            self._pool.refused = OPTIONAL
            return True
        is_elsewhere = refusal.region not in ("", request.region)
        if answer.status in (301, 307, 400) and is_elsewhere:
            if self._pool.address.region != refusal.region:
                self._move(refusal.region)
            return True
        if not is_stale(refusal.code, request.operation):
            return False
        if self._access[0] is used:
            self.chain.forget()
            self._access = self.chain.current(self._fence)[0], self._access[1]
        return self._access[0] != used

    def _move(self, bucket_region: str | None) -> None:
        """
        Switch to another configuration, or to the bucket's region; the host is always
        derived here, never taken from S3.
        """
        self.close()
        self._pool = None
        config = self._access[1]
        address = locate(self._bucket, config, bucket_region)
        self._pool = Pool(address, partial(read_trust, config))
        self._pool.prepare()


class _Again(Exception):
    """
    The same request may succeed now.
    """


def locate(bucket: str, config: AwsConfig, bucket_region: str | None = None) -> Address:
    """
    Return the address of a bucket (name, or ARN of an access point).

    Args:
        bucket_region: The bucket's region as S3 reported it; default: the configured
            region.

    Raises:
        SourceError: ``region_invalid``, ``endpoint_invalid``.
    """
    region = bucket_region or config.region or DEFAULT_REGION
    service = "s3"
    name = bucket
    is_virtual = (
        _VIRTUAL_HOST.fullmatch(bucket) is not None
        and config.addressing_style != "path"
    )
    if bucket.startswith("arn:"):
        *_, region, account, resource = bucket.split(":", 5)
        name = f"{re.split('[:/]', resource, maxsplit=1)[1]}-{account}"
        service = "s3-accesspoint"
        is_virtual = True
    elif config.endpoint_url:  # in the path by default, as in botocore
        is_virtual = config.addressing_style == "virtual"
    if not REGION.fullmatch(region):
        raise SourceError("region_invalid", f"{region!r} is not a region name")
    service += "-fips" * config.use_fips
    dual = "dualstack." * config.use_dualstack
    regional = f"https://{service}.{dual}{region}.{partition_of(region)[1]}"
    url = split_url(config.endpoint_url or regional, "http", "https")
    if url is None or url.hostname is None:
        raise SourceError(
            "endpoint_invalid",
            "AWS_ENDPOINT_URL, or endpoint_url of the AWS profile, is not http(s)://HOST[:PORT]",
        )
    port = url.port or (443 if url.scheme == "https" else 80)
    host = f"{name}.{url.hostname}" if is_virtual else url.hostname
    path = url.path.rstrip("/") + ("" if is_virtual else f"/{bucket}")
    proxy = proxies.proxy_for(url.scheme, host, port, os.environ)
    return Address(url.scheme, host, port, proxy, path, region)


def is_of_aws(host: str) -> bool:
    """
    Whether a host is in a domain of AWS's endpoints, of any partition.
    """
    return host.endswith(tuple(f".{domain}" for _, _, domain in PARTITIONS))


def read_trust(config: AwsConfig) -> ssl.SSLContext:
    """
    Trust the CA bundle of the settings, else the system's store.

    Raises:
        SourceError: The bundle cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=config.ca_bundle)
    except OSError as error:
        raise SourceError(
            "tls_failed",
            f"the CA bundle {config.ca_bundle} cannot be read: {error.strerror or error}",
            "Check AWS_CA_BUNDLE and REQUESTS_CA_BUNDLE.",
        ) from None


def encode_query(query: Mapping[str, str]) -> str:
    """
    Return the canonical query string, sorted as the signature requires.
    """
    return "&".join(
        sorted(
            f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in query.items()
        )
    )


@lru_cache(maxsize=4)
def _signing_key(secret: str, day: str, region: str) -> bytes:
    key = ("AWS4" + secret).encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def sign(
    credentials: Credentials,
    address: Address,
    path: str,
    query: str,
    headers: Headers,
    now: float | None = None,
) -> Headers:
    """
    Return the headers of a GET, signed with AWS Signature Version 4: the given ones,
    ``host``, and those of the signature; an anonymous GET has none.

    Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html

    Args:
        path: Encoded, with the leading slash.
        query: Encoded with :func:`encode_query`.
        headers: Additional headers; those that begin with ``x-amz-`` are signed.
        now: The Unix time of the request; default: the current time.
    """
    host = {"host": address.host_header}
    if credentials is ANONYMOUS:
        return {**headers, **host}
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    amz = {name: value for name, value in headers.items() if name.startswith("x-amz-")}
    amz |= {**host, "x-amz-content-sha256": EMPTY_SHA256, "x-amz-date": moment}
    if credentials.token:
        amz["x-amz-security-token"] = credentials.token
    names = sorted(amz)
    signed = ";".join(names)
    lines = [f"{name}:{amz[name]}" for name in names]
    canonical = "\n".join(["GET", path, query, *lines, "", signed, EMPTY_SHA256])
    scope = f"{moment[:8]}/{address.region}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = _signing_key(credentials.secret_key, moment[:8], address.region)
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, SignedHeaders={signed}, "
        f"Signature={signature}"
    )
    return {**headers, **amz, "authorization": authorization}
