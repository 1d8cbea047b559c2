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
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from s3_sync.s3.refusals import PARTITIONS, REGION, SourceError
from s3_sync.s3.wire import HttpOrigin
from sidecar_runtime import proxies
from sidecar_runtime.aws.credentials import ANONYMOUS, AwsConfig, Credentials

DEFAULT_REGION = "us-east-1"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()

_VIRTUAL_HOST = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")


class Address(NamedTuple):
    """
    The address of a bucket: the origin, the path before its keys, the region for signing.
    """

    origin: HttpOrigin
    base_path: str
    region: str

    def path_of(self, key: str) -> str:
        """
        Return the encoded path of a key; for an empty key, the path of the bucket.
        """
        return f"{self.base_path}/{encode_key(key)}"


def encode_key(key: str) -> str:
    """
    Percent-encode a key for the path; S3 expects it encoded once and never normalized.
    """
    return quote(key, safe="/-_.~")


def encode_query(query: Mapping[str, str]) -> str:
    """
    Return the canonical query string, sorted as the signature requires.
    """
    pairs = (f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in query.items())
    return "&".join(sorted(pairs))


def locate(bucket: str, config: AwsConfig, bucket_region: str | None = None) -> Address:
    """
    Return the address of a bucket (name, or ARN of an access point).

    Args:
        bucket_region: The bucket's region as S3 reported it; default: the configured region.

    Raises:
        SourceError: ``region_invalid``, ``endpoint_invalid``.
    """
    region = bucket_region or config.region or DEFAULT_REGION
    if not REGION.fullmatch(region):
        raise SourceError("region_invalid", f"{region!r} is not a region name", "Fix AWS_REGION.")
    fips, is_path_style = "-fips" if config.use_fips else "", config.addressing_style == "path"
    if bucket.startswith("arn:"):
        if config.endpoint_url:
            said = "AWS_BUCKET is the ARN of an access point, which only AWS has"
            raise SourceError("endpoint_invalid", said, "Write the bucket's name, or unset it.")
        _, _, _, region, account, resource = bucket.split(":", 5)
        name = re.split("[:/]", resource, maxsplit=1)[1]
        host = f"{name}-{account}.{_host(f's3-accesspoint{fips}', region, config)}"
        return Address(_origin("https", host, None), "", region)
    if config.endpoint_url:
        scheme, host, port, base_path = _split_endpoint(config.endpoint_url)
        is_path_style = config.addressing_style != "virtual"  # the default, as in botocore
    else:
        scheme, host, port, base_path = "https", _host(f"s3{fips}", region, config), None, ""
        # The wildcard certificate of virtual hosts does not match a bucket name with a dot.
        is_path_style = is_path_style or not _VIRTUAL_HOST.fullmatch(bucket)
    if is_path_style:
        base_path = f"{base_path}/{encode_key(bucket)}"
    else:
        host = f"{bucket}.{host}"
    return Address(_origin(scheme, host, port), base_path, region)


def _split_endpoint(text: str) -> tuple[str, str, int | None, str]:
    """
    Return scheme, host, port and path of the endpoint that a setting or profile names.
    """
    try:
        url = urlsplit(text)
        # It becomes part of each request.
        if re.fullmatch(r"[!-~]+", text) and url.scheme in ("http", "https") and url.hostname:
            return url.scheme, url.hostname, url.port, url.path.rstrip("/")
    except ValueError:
        pass
    raise SourceError(
        "endpoint_invalid",
        "AWS_ENDPOINT_URL, or endpoint_url of the AWS profile, is not an ASCII URL like "
        "http(s)://HOST[:PORT]",
        "Fix it there.",
    )


def _host(service: str, region: str, config: AwsConfig) -> str:
    suffix = next((s for start, _, s in PARTITIONS if region.startswith(start)), "amazonaws.com")
    dual = "dualstack." if config.use_dualstack else ""
    return f"{service}.{dual}{region}.{suffix}"


def _origin(scheme: str, host: str, port: int | None) -> HttpOrigin:
    number = port or (443 if scheme == "https" else 80)
    proxy = proxies.proxy_for(scheme, host, number, os.environ)
    return HttpOrigin(scheme, host, number, proxy)


def read_trust(config: AwsConfig) -> ssl.SSLContext:
    """
    Trust the CA bundle of the settings, else the system's store, else botocore's bundle.

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
        bundle = config.ca_bundle or error.filename or config.ca_fallback
        raise SourceError(
            "tls_failed",
            f"the CA bundle {bundle} cannot be read: {error.strerror or error}",
            "Check AWS_CA_BUNDLE and REQUESTS_CA_BUNDLE.",
        ) from None
    return context


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
    host = {"host": address.origin.host_header}
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
