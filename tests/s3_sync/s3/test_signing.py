"""Signatures equal botocore's, even for keys and queries that break naive signers."""

import random
from datetime import UTC, datetime

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials

from s3_sync.s3.signing import encode_key, encode_query, sign
from sidecar_runtime.aws.credentials import ANONYMOUS, Credentials

ALPHABET = "abcXYZ019 +%&=?#:;,@!$'()*[]{}<>|\\^`\"~_-.//\n\t\r\x01\x7fäßéÉ́日本語😀ﬁ"
HOSTS = (
    "s3.us-east-1.amazonaws.com",
    "bucket.s3.eu-central-1.amazonaws.com",
    "127.0.0.1:9000",
    "[::1]:9000",
)
ODD_KEYS = (
    "", "plain.py", "a b", "a+b", "a%20b", "a%2Fb", "%", "//", "a//b", "/a", "a/", ".", "..",
    "a/../b", "a/./b", "~user", "é", "e\u0301", "new\nline", "tab\t", "q?x=1&y=2", "#fragment",
    "a;b", "a:b", "a=b", "x" * 1024,
)  # fmt: skip


def generated_keys(count: int) -> list[str]:
    draw = random.Random(20)
    return ["".join(draw.choices(ALPHABET, k=draw.randint(1, 60))) for _ in range(count)]


KEYS = [*ODD_KEYS, *generated_keys(300)]


def botocore_headers(
    token: str | None, host: str, key: str, query: dict[str, str], headers: dict[str, str]
) -> dict[str, str]:
    """Return the headers that botocore sends for the same request."""
    scheme = "http" if ":9000" in host else "https"
    url = f"{scheme}://{host}/bucket/{encode_key(key)}"
    request = AWSRequest("GET", url, headers=headers, params=query)
    credentials = BotocoreCredentials("AKIAEXAMPLE", "sec/ret+", token)
    S3SigV4Auth(credentials, "s3", "eu-central-1").add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


def our_headers(
    token: str | None,
    host: str,
    key: str,
    query: dict[str, str],
    headers: dict[str, str],
    now: datetime,
) -> dict[str, str]:
    credentials = Credentials(access_key="AKIAEXAMPLE", secret_key="sec/ret+", token=token or "")
    path = f"/bucket/{encode_key(key)}"
    return sign(credentials, "eu-central-1", host, path, encode_query(query), headers, now)


@pytest.mark.parametrize("token", [None, "session/token+=="], ids=["keys", "session"])
@pytest.mark.parametrize("host", HOSTS)
def test_signs_unusual_keys_and_queries_as_botocore_does(host: str, token: str | None) -> None:
    for key in KEYS:
        for query in ({}, {"list-type": "2", "prefix": key, "start-after": key, "empty": ""}):
            headers = {"x-amz-checksum-mode": "ENABLED"} if len(key) % 2 else {}
            theirs = botocore_headers(token, host, key, query, dict(headers))
            now = datetime.strptime(theirs["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)

            ours = our_headers(token, host, key, query, headers, now)

            assert theirs["authorization"] == ours["authorization"], repr(key)
            assert theirs.get("x-amz-security-token") == ours.get("x-amz-security-token")
            assert theirs["x-amz-content-sha256"] == ours["x-amz-content-sha256"]
            assert theirs["x-amz-date"] == ours["x-amz-date"]


def test_keeps_headers_that_are_not_signed() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    conditional = {"if-match": '"etag"', "range": "bytes=0-9"}

    signed = our_headers(None, "s3.example", "k", {}, conditional, now)

    assert signed.items() >= conditional.items()
    assert "SignedHeaders=host;x-amz-content-sha256;x-amz-date," in signed["authorization"]


def test_signs_with_the_new_date_after_midnight() -> None:
    before = our_headers(None, "h", "k", {}, {}, datetime(2026, 1, 2, 23, 59, 59, tzinfo=UTC))
    after = our_headers(None, "h", "k", {}, {}, datetime(2026, 1, 3, 0, 0, 0, tzinfo=UTC))

    assert "/20260102/" in before["authorization"]
    assert "/20260103/" in after["authorization"]


def test_an_anonymous_request_keeps_its_headers_and_has_no_signature() -> None:
    headers = {"if-match": '"e"', "x-amz-checksum-mode": "ENABLED"}

    found = sign(ANONYMOUS, "eu-central-1", "bucket.example", "/a", "", headers)

    assert headers | {"host": "bucket.example"} == found
