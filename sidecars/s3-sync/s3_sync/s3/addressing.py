"""
Derives the host and path of a bucket: the simple part of S3's endpoint rules.

Supported cases match botocore's endpoint provider (a test compares them). The settings refuse the
others by name: multi-region access points, S3 Express, Object Lambda.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from urllib.parse import urlsplit

from s3_sync.s3.refusals import PARTITIONS, REGION, SourceError
from s3_sync.s3.signing import encode_key
from s3_sync.s3.wire import HttpOrigin
from sidecar_runtime import proxies
from sidecar_runtime.aws.credentials import AwsConfig

DEFAULT_REGION = "us-east-1"

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
    if bucket.startswith("arn:"):
        if config.endpoint_url:
            said = "AWS_BUCKET is the ARN of an access point, which only AWS has"
            raise SourceError("endpoint_invalid", said, "Write the bucket's name, or unset it.")
        _, _, _, arn_region, account, resource = bucket.split(":", 5)
        name = re.split("[:/]", resource, maxsplit=1)[1]
        service = "s3-accesspoint-fips" if config.use_fips else "s3-accesspoint"
        host = _host(service, arn_region, config)
        return Address(_origin("https", f"{name}-{account}.{host}", None), "", arn_region)
    if config.endpoint_url:
        return _locate_custom(bucket, config, region)
    host = _host("s3-fips" if config.use_fips else "s3", region, config)
    # The wildcard certificate of virtual hosts does not match a bucket name with a dot.
    if config.addressing_style != "path" and _VIRTUAL_HOST.fullmatch(bucket):
        return Address(_origin("https", f"{bucket}.{host}", None), "", region)
    return Address(_origin("https", host, None), f"/{encode_key(bucket)}", region)


def _locate_custom(bucket: str, config: AwsConfig, region: str) -> Address:
    """
    Locate a bucket of an S3-compatible store: path style unless the profile overrides it, as in
    botocore.
    """
    assert config.endpoint_url is not None
    try:
        url = urlsplit(config.endpoint_url)
        port = url.port
    except ValueError:
        url, port = urlsplit(""), None
    is_plain = re.fullmatch(r"[!-~]+", config.endpoint_url)  # it becomes part of each request
    if not is_plain or url.scheme not in ("http", "https") or not url.hostname:
        raise SourceError(
            "endpoint_invalid",
            "AWS_ENDPOINT_URL, or endpoint_url of the AWS profile, is not an ASCII URL like "
            "http(s)://HOST[:PORT]",
            "Fix it there.",
        )
    base = url.path.rstrip("/")
    if config.addressing_style == "virtual":
        return Address(_origin(url.scheme, f"{bucket}.{url.hostname}", port), base, region)
    return Address(_origin(url.scheme, url.hostname, port), f"{base}/{encode_key(bucket)}", region)


def _host(service: str, region: str, config: AwsConfig) -> str:
    suffix = next((s for start, _, s in PARTITIONS if region.startswith(start)), "amazonaws.com")
    dual = "dualstack." if config.use_dualstack else ""
    return f"{service}.{dual}{region}.{suffix}"


def _origin(scheme: str, host: str, port: int | None) -> HttpOrigin:
    number = port or (443 if scheme == "https" else 80)
    proxy = proxies.proxy_for(scheme, host, number, os.environ)
    return HttpOrigin(scheme, host, number, proxy)
