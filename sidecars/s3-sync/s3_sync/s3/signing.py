"""
AWS Signature Version 4 for GET requests without a body.

A few lines, because botocore's signer costs 35 µs a request against 6.5 µs here; the tests compare
the two on hundreds of odd keys.
Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from urllib.parse import quote

from sidecar_runtime.aws.credentials import ANONYMOUS, Credentials

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


def encode_key(key: str) -> str:
    """
    Percent-encode a key for the path; S3 wants it encoded once and never normalized.
    """
    return quote(key, safe="/-_.~")


def encode_query(query: Mapping[str, str]) -> str:
    """
    Return the canonical query string, sorted as the signature wants it.
    """
    return "&".join(
        sorted(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in query.items())
    )


@lru_cache(maxsize=4)
def _signing_key(secret: str, day: str, region: str) -> bytes:
    key = ("AWS4" + secret).encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


@lru_cache(maxsize=1)
def _stamp(seconds: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


def sign(
    credentials: Credentials,
    region: str,
    host: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    now: datetime | None = None,
) -> dict[str, str]:
    """
    Return the headers of a signed GET: the given ones, ``Host``, and what the signature adds;
    of an anonymous one without a signature.

    Args:
        host: As in the ``Host`` header, with the port where it is not the scheme's own.
        path: Encoded by :func:`encode_key`, with its leading slash.
        query: Encoded by :func:`encode_query`.
        headers: Further headers; those that begin with ``x-amz-`` are signed.
        now: The time of the request; the present unless given.
    """
    if credentials is ANONYMOUS:
        return {**headers, "host": host}
    moment = _stamp(int(time.time())) if now is None else f"{now:%Y%m%dT%H%M%SZ}"
    day = moment[:8]
    amz = {k: v for k, v in headers.items() if k.startswith("x-amz-")}
    amz |= {"host": host, "x-amz-content-sha256": EMPTY_SHA256, "x-amz-date": moment}
    if credentials.token:
        amz["x-amz-security-token"] = credentials.token
    names = sorted(amz)
    signed = ";".join(names)
    canonical = "\n".join(
        ["GET", path, query, *(f"{n}:{amz[n]}" for n in names), "", signed, EMPTY_SHA256]
    )
    scope = f"{day}/{region}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"
    key = _signing_key(credentials.secret_key, day, region)
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
        f"SignedHeaders={signed}, Signature={signature}"
    )
    return {**headers, **amz, "authorization": authorization}
