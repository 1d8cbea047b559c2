"""
AWS Signature Version 4 for GET requests without a body.

Implemented here because botocore's signer takes 35 µs for a request, this module 6.5 µs. The tests
compare both on hundreds of odd keys.
Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

from sidecar_runtime.aws.credentials import ANONYMOUS, Credentials

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


def encode_key(key: str) -> str:
    """
    Percent-encode a key for the path; S3 expects it encoded once and never normalized.
    """
    return quote(key, safe="/-_.~")


def encode_query(query: Mapping[str, str]) -> str:
    """
    Return the canonical query string, sorted as the signature requires.
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


class _Form(NamedTuple):
    """
    The common parts of all requests of one second: the canonical request after path and query,
    the string to sign before its digest, the ``Authorization`` header before the signature, and
    all other headers.
    """

    canonical: str
    text: str
    authorization: str
    headers: dict[str, str]
    key: bytes


@lru_cache(maxsize=4)
def _form(
    credentials: Credentials,
    region: str,
    host: str,
    own: tuple[tuple[str, str], ...],
    moment: str,
) -> _Form:
    amz = {**dict(own), "host": host, "x-amz-content-sha256": EMPTY_SHA256, "x-amz-date": moment}
    if credentials.token:
        amz["x-amz-security-token"] = credentials.token
    names = sorted(amz)
    signed = ";".join(names)
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    return _Form(
        "\n".join([*(f"{name}:{amz[name]}" for name in names), "", signed, EMPTY_SHA256]),
        f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n",
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
        f"SignedHeaders={signed}, Signature=",
        amz,
        _signing_key(credentials.secret_key, moment[:8], region),
    )


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
    Return the headers of a signed GET: the given ones, ``Host``, and the headers of the signature;
    an anonymous GET has no signature.

    Args:
        host: The ``Host`` header, with the port unless it is the scheme's default.
        path: Encoded with :func:`encode_key`, with the leading slash.
        query: Encoded with :func:`encode_query`.
        headers: Additional headers; those that begin with ``x-amz-`` are signed.
        now: The time of the request; default: the current time.
    """
    if credentials is ANONYMOUS:
        return {**headers, "host": host}
    moment = _stamp(int(time.time())) if now is None else f"{now:%Y%m%dT%H%M%SZ}"
    own = tuple((k, v) for k, v in headers.items() if k.startswith("x-amz-"))
    form = _form(credentials, region, host, own, moment)
    digest = hashlib.sha256(f"GET\n{path}\n{query}\n{form.canonical}".encode()).hexdigest()
    signature = hmac.digest(form.key, f"{form.text}{digest}".encode(), "sha256").hex()
    return {**headers, **form.headers, "authorization": f"{form.authorization}{signature}"}
