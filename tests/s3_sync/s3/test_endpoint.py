"""A bucket has the same URL, proxy and signature as in botocore, even with odd keys."""

import itertools
import random
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import botocore.exceptions
import botocore.session
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config
from botocore.credentials import Credentials as BotocoreCredentials

from s3_sync.reasons import SourceError
from s3_sync.s3.client import encode_query, is_of_aws, locate, sign
from s3_sync.s3.http import Address
from sidecar_runtime.aws.credentials import AwsConfig, Credentials
from tests.s3_sync.given import config
from tests.support.raising import raised

KEY = "dags/a b+ü.py"
POINT = "arn:{}:s3:{}:123456789012:accesspoint{}my-point"
REGIONS = [
    "us-east-1",
    "eu-central-1",
    "cn-north-1",
    "us-gov-west-1",
    "eusc-de-east-1",
    "us-iso-east-1",
    "us-isob-east-1",
    "us-isof-south-1",
    "eu-isoe-west-1",
]
BUCKETS = [
    "a-bucket",
    "1bucket",
    "my.dotted.bucket",
    "under_score",
    "Upper-Case",
    "abc",
    "a" * 63,
]


@pytest.fixture(scope="module")
def session() -> botocore.session.Session:
    return botocore.session.Session()


class Refused(Exception):
    """Botocore has no such endpoint."""


class Botocore:
    """A botocore client that sends nothing, and returns the URL that it would use."""

    def __init__(self, session: botocore.session.Session, settings: AwsConfig) -> None:
        s3: Any = {"us_east_1_regional_endpoint": "regional"}
        if settings.addressing_style:
            s3["addressing_style"] = settings.addressing_style
        options = Config(
            s3=s3,
            use_fips_endpoint=settings.use_fips,
            use_dualstack_endpoint=settings.use_dualstack,
            retries={"total_max_attempts": 1},
        )
        try:
            self._client: Any = session.create_client(
                "s3",
                region_name=settings.region,
                endpoint_url=settings.endpoint_url,
                aws_access_key_id="key",
                aws_secret_access_key="secret",
                config=options,
            )
        except botocore.exceptions.EndpointVariantError:
            raise Refused from None
        self._client.meta.events.register("before-send.s3", self._answer)  # type: ignore[arg-type]
        self._sent: list[Any] = []

    def _answer(self, request: Any, **_: object) -> AWSResponse:
        self._sent.append(request)
        return AWSResponse(request.url, 404, HTTPHeaders(), None)

    def get(self, bucket: str, key: str) -> tuple[str, str]:
        """Return the URL and the signing region of a GET."""
        with suppress(Exception):  # the answer has no body
            self._client.get_object(Bucket=bucket, Key=key)
        if not self._sent:
            raise Refused
        request = self._sent.pop()
        scope = (
            request.headers["Authorization"]
            .decode()
            .split("Credential=", 1)[1]
            .split("/")
        )
        return request.url, scope[2]


def our_url(bucket: str, settings: AwsConfig) -> tuple[str, str]:
    address = locate(bucket, settings)
    return (
        f"{address.scheme}://{address.host_header}{address.path_of(KEY)}",
        address.region,
    )


@pytest.mark.parametrize("region", REGIONS)
def test_urls_equal_botocores(session: botocore.session.Session, region: str) -> None:
    """Of buckets, and of access points, whose region is the one in their ARN."""
    partition = session.get_partition_for_region(region)
    points = [POINT.format(partition, region, separator) for separator in "/:"]
    compared = 0
    for use_fips, use_dualstack, style in itertools.product(
        [False, True], [False, True], [None, "path", "virtual"]
    ):
        settings = config(
            region=region,
            use_fips=use_fips,
            use_dualstack=use_dualstack,
            addressing_style=style,
        )
        with suppress(Refused):  # the partition has no FIPS or dual-stack endpoint
            theirs = Botocore(session, settings)
            for bucket in [*BUCKETS, *([] if style == "path" else points)]:
                assert theirs.get(bucket, KEY) == our_url(bucket, settings), settings
                assert is_of_aws(locate(bucket, settings).host), settings
                compared += 1

    assert compared >= 3 * len(BUCKETS)
    assert set(session.get_available_partitions()) <= {
        session.get_partition_for_region(region) for region in REGIONS
    }
    assert our_url(points[0], config(region="eu-west-3"))[1] == region
    assert our_url("a-bucket", config(region=None))[1] == "us-east-1"


@pytest.mark.parametrize("style", [None, "path", "virtual"])
@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:9000",
        "http://minio:9000/",
        "https://minio.example:443",
        "http://minio.example:80",
        "https://s3.example:8443/base/path",
        "https://s3.example/base/",
        "http://[::1]:9000",
        "https://bucket.vpce-0123-abcd.s3.eu-central-1.vpce.amazonaws.com",
    ],
)
def test_custom_endpoint_urls_equal_botocores(
    session: botocore.session.Session, endpoint: str, style: str | None
) -> None:
    settings = config(
        endpoint_url=endpoint, addressing_style=style, region="eu-central-1"
    )
    is_address = "127.0.0.1" in endpoint or "[" in endpoint
    if style == "virtual" and is_address:  # it has no subdomains
        return
    theirs = Botocore(session, settings)
    dotted = [] if style == "virtual" else ["my.dotted.bucket"]
    points = (
        []
        if is_address or style == "path"
        else [POINT.format("aws", "eu-central-1", "/")]
    )
    for bucket in ("a-bucket", *dotted, *points):
        (expected, region), (ours, our_region) = (
            theirs.get(bucket, KEY),
            our_url(bucket, settings),
        )

        assert _plain(expected) == _plain(ours)
        assert region == our_region
        assert ("vpce" in endpoint) == is_of_aws(locate(bucket, settings).host)


def _plain(url: str) -> tuple[str, str | None, int, str]:
    """Return the parts of a URL, with the default port of its scheme if it has none."""
    parts = urlsplit(url)
    return (
        parts.scheme,
        parts.hostname,
        (parts.port or (443 if parts.scheme == "https" else 80)),
        parts.path,
    )


@pytest.mark.parametrize("url", ["minio:9000", "http://", "ftp://x", "http://x:port", "//x", "/x",
                                 "http://min…o:9000", "http://x/a…b", "http://x/a b"])  # fmt: skip
def test_an_invalid_endpoint_url_of_a_profile_is_reported(url: str) -> None:
    error = raised(SourceError, locate, "a-bucket", config(endpoint_url=url))

    assert error.reason == "endpoint_invalid"
    assert "endpoint_url" in error.message


# --- signatures

ALPHABET = "abcXYZ019 +%&=?#:;,@!$'()*[]{}<>|\\^`\"~_-.//\n\t\r\x01\x7fäßéÉ́日本語😀ﬁ"
ODD_KEYS = (
    "", "plain.py", "a b", "a+b", "a%20b", "a%2Fb", "%", "//", "a//b", "/a", "a/", ".", "..",
    "a/../b", "a/./b", "~user", "é", "e\u0301", "new\nline", "tab\t", "q?x=1&y=2", "#fragment",
    "a;b", "a:b", "a=b", "x" * 1024,
)  # fmt: skip


@pytest.mark.parametrize("token", ["", "session/token+=="], ids=["keys", "session"])
@pytest.mark.parametrize(
    "origin",
    [
        Address("https", "b.s3.eu-central-1.amazonaws.com", 443),
        Address("http", "::1", 9000),
    ],
)
def test_signs_odd_keys_and_queries_as_botocore_does(
    origin: Address, token: str
) -> None:
    address = origin._replace(base_path="/bucket", region="eu-central-1")
    draw = random.Random(20)
    drawn = ["".join(draw.choices(ALPHABET, k=draw.randint(1, 60))) for _ in range(300)]
    for key in [*ODD_KEYS, *drawn]:
        for query in (
            {},
            {"list-type": "2", "prefix": key, "start-after": key, "empty": ""},
        ):
            path = address.path_of(key)
            headers = {"x-amz-checksum-mode": "ENABLED"} if len(key) % 2 else {}
            request = AWSRequest(
                "GET",
                f"{origin.scheme}://{origin.host_header}{path}",
                headers=dict(headers),
                params=query,
            )
            S3SigV4Auth(
                BotocoreCredentials("AKIAEXAMPLE", "sec/ret+", token or None),
                "s3",
                "eu-central-1",
            ).add_auth(request)
            theirs = {name.lower(): value for name, value in request.headers.items()}
            now = datetime.strptime(theirs["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(
                tzinfo=UTC
            )

            ours = sign(
                Credentials("AKIAEXAMPLE", "sec/ret+", token),
                address,
                path,
                encode_query(query),
                headers,
                now.timestamp(),
            )

            assert theirs.items() <= ours.items(), repr(key)
