"""
Where the requests for a bucket go, whom they trust, and how they are signed.

Hosts are the simple part of S3's endpoint rules, and signatures are those of GET requests without
a body: tests compare both with botocore, which takes several times as long and 10 MiB. The settings
refuse the other kinds of buckets by name: multi-region access points, S3 Express, Object Lambda.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote

from s3_sync.s3.pool import Address, split_url
from s3_sync.s3.refusals import REGION, SourceError, partition_of
from sidecar_runtime import proxies
from sidecar_runtime.aws.credentials import ANONYMOUS, AwsConfig, Credentials

DEFAULT_REGION = "us-east-1"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()

# The wildcard certificate of virtual hosts does not match a bucket name with a dot.
_VIRTUAL_HOST = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")


def locate(bucket: str, config: AwsConfig, bucket_region: str | None = None) -> Address:
    """
    Return the address of a bucket (name, or ARN of an access point).

    Args:
        bucket_region: The bucket's region as S3 reported it; default: the configured region.

    Raises:
        SourceError: ``region_invalid``, ``endpoint_invalid``.
    """
    region, service, name = bucket_region or config.region or DEFAULT_REGION, "s3", bucket
    is_virtual = _VIRTUAL_HOST.fullmatch(bucket) is not None and config.addressing_style != "path"
    if bucket.startswith("arn:"):
        _, _, _, region, account, resource = bucket.split(":", 5)
        name = f"{re.split('[:/]', resource, maxsplit=1)[1]}-{account}"
        service, is_virtual = "s3-accesspoint", True
    elif config.endpoint_url:  # in the path by default, as in botocore
        is_virtual = config.addressing_style == "virtual"
    if not REGION.fullmatch(region):
        raise SourceError("region_invalid", f"{region!r} is not a region name", "Fix AWS_REGION.")
    fips, dual = "-fips" * config.use_fips, "dualstack." * config.use_dualstack
    regional = f"https://{service}{fips}.{dual}{region}.{partition_of(region)[1]}"
    url = split_url(config.endpoint_url or regional, "http", "https")
    if url is None or url.hostname is None:
        said = "AWS_ENDPOINT_URL, or endpoint_url of the AWS profile, is not http(s)://HOST[:PORT]"
        raise SourceError("endpoint_invalid", said, "Fix it there, in ASCII.")
    port = url.port or (443 if url.scheme == "https" else 80)
    host = f"{name}.{url.hostname}" if is_virtual else url.hostname
    path = url.path.rstrip("/") + ("" if is_virtual else f"/{bucket}")
    proxy = proxies.proxy_for(url.scheme, host, port, os.environ)
    return Address(url.scheme, host, port, proxy, path, region)


def read_trust(config: AwsConfig) -> ssl.SSLContext:
    """
    Trust the CA bundle of the settings, else the system's store.

    Raises:
        SourceError: The bundle cannot be read.
    """
    bundle = config.ca_bundle
    try:
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:
        said = f"the CA bundle {bundle} cannot be read: {error.strerror or error}"
        advice = "Check AWS_CA_BUNDLE and REQUESTS_CA_BUNDLE."
        raise SourceError("tls_failed", said, advice) from None


def encode_query(query: Mapping[str, str]) -> str:
    """
    Return the canonical query string, sorted as the signature requires.
    """
    pairs = (f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in query.items())
    return "&".join(sorted(pairs))


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
    headers: Mapping[str, str],
    now: datetime | None = None,
) -> dict[str, str]:
    """
    Return the headers of a GET, signed with AWS Signature Version 4: the given ones, ``host``, and
    those of the signature; an anonymous GET has none.

    Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html

    Args:
        path: Encoded, with the leading slash.
        query: Encoded with :func:`encode_query`.
        headers: Additional headers; those that begin with ``x-amz-`` are signed.
        now: The time of the request; default: the current time.
    """
    host = {"host": address.host_header}
    if credentials is ANONYMOUS:
        return {**headers, **host}
    moment = f"{now or datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    amz = {name: value for name, value in headers.items() if name.startswith("x-amz-")}
    amz |= {**host, "x-amz-content-sha256": EMPTY_SHA256, "x-amz-date": moment}
    if credentials.token:
        amz["x-amz-security-token"] = credentials.token
    signed = ";".join(sorted(amz))
    lines = [f"{name}:{amz[name]}" for name in sorted(amz)]
    canonical = "\n".join(["GET", path, query, *lines, "", signed, EMPTY_SHA256])
    scope = f"{moment[:8]}/{address.region}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = _signing_key(credentials.secret_key, moment[:8], address.region)
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, SignedHeaders={signed}, "
        f"Signature={hmac.digest(key, text.encode(), 'sha256').hex()}"
    )
    return {**headers, **amz, "authorization": authorization}
