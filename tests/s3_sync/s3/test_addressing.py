"""Endpoint rules: a bucket has the same URL as in botocore."""

import itertools
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import botocore.exceptions
import botocore.session
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config

from s3_sync.s3.addressing import locate
from s3_sync.s3.refusals import SourceError
from s3_sync.s3.wire import HttpOrigin
from sidecar_runtime.aws.credentials import AwsConfig
from tests.s3_sync.given import config
from tests.support.raising import raised

KEY = "dags/a b+ü.py"
POINT = "arn:{}:s3:{}:123456789012:accesspoint{}my-point"

REGIONS = [
    "us-east-1", "us-west-2", "eu-central-1", "ap-southeast-3", "cn-north-1", "cn-northwest-1",
    "us-gov-west-1", "us-iso-east-1", "us-isob-east-1", "us-isof-south-1", "eu-isoe-west-1",
    "eusc-de-east-1",
]  # fmt: skip
BUCKETS = ["a-bucket", "1bucket", "my.dotted.bucket", "under_score", "Upper-Case", "abc", "a" * 63]


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
        scope = request.headers["Authorization"].decode().split("Credential=", 1)[1].split("/")
        return request.url, scope[2]


def our_url(bucket: str, settings: AwsConfig) -> tuple[str, str]:
    address = locate(bucket, settings)
    origin = address.origin
    return f"{origin.scheme}://{origin.host_header}{address.path_of(KEY)}", address.region


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize("region", REGIONS)
def test_bucket_urls_equal_botocores(session: botocore.session.Session, region: str) -> None:
    compared = 0
    kinds = itertools.product([False, True], [False, True], [None, "path", "virtual"])
    for use_fips, use_dualstack, style in kinds:
        options = {"use_fips": use_fips, "use_dualstack": use_dualstack, "addressing_style": style}
        settings = config(region=region, **options)
        with suppress(Refused):  # the partition has no FIPS or dual-stack endpoint
            theirs = Botocore(session, settings)
            for bucket in BUCKETS:
                assert theirs.get(bucket, KEY) == our_url(bucket, settings), settings
                compared += 1
    assert compared >= 3 * len(BUCKETS)


@pytest.mark.parametrize(
    ("partition", "region"),
    [("aws", "us-east-1"), ("aws", "eu-central-1"), ("aws-cn", "cn-north-1"),
     ("aws-us-gov", "us-gov-east-1")],
)  # fmt: skip
@pytest.mark.parametrize("separator", ["/", ":"])
def test_access_point_urls_equal_botocores(
    session: botocore.session.Session, partition: str, region: str, separator: str
) -> None:
    point = POINT.format(partition, region, separator)
    compared = 0
    for use_fips, use_dualstack in itertools.product([False, True], [False, True]):
        settings = config(region=region, use_fips=use_fips, use_dualstack=use_dualstack)
        with suppress(Refused):
            assert Botocore(session, settings).get(point, KEY) == our_url(point, settings), settings
            compared += 1
    assert compared >= 2


def test_an_access_point_uses_the_region_of_its_arn() -> None:
    address = locate(POINT.format("aws", "eu-west-3", "/"), config(region="us-east-1"))

    assert address.region == "eu-west-3"
    assert address.origin.host == "my-point-123456789012.s3-accesspoint.eu-west-3.amazonaws.com"


@pytest.mark.parametrize(
    ("endpoint", "style"),
    [
        (endpoint, style)
        for endpoint in (
            "http://127.0.0.1:9000",
            "http://minio:9000/",
            "https://minio.example",
            "https://minio.example:443",
            "http://minio.example:80",
            "https://s3.example:8443/base/path",
            "https://s3.example/base/",
            "http://[::1]:9000",
            "https://storage.googleapis.com",
            "https://bucket.vpce-0123-abcd.s3.eu-central-1.vpce.amazonaws.com",
        )
        for style in (None, "path", "virtual")
        if not (style == "virtual" and "[" in endpoint)  # an IP address has no subdomains
    ],
)
def test_custom_endpoint_urls_equal_botocores(
    session: botocore.session.Session, endpoint: str, style: str | None
) -> None:
    settings = config(endpoint_url=endpoint, addressing_style=style, region="eu-central-1")
    theirs = Botocore(session, settings)
    for bucket in ("a-bucket", "my.dotted.bucket"):
        if style == "virtual" and ("127.0.0.1" in endpoint or "." in bucket):
            continue  # botocore does not obey: an address has no subdomains
        expected, region = theirs.get(bucket, KEY)
        ours, our_region = our_url(bucket, settings)

        assert _plain(expected) == _plain(ours)
        assert region == our_region


def _plain(url: str) -> tuple[str, str | None, int, str]:
    """Return the parts of a URL, with the default port of its scheme if it has none."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname, port, parts.path


@pytest.mark.parametrize(
    ("found", "configured", "region"),
    [
        (None, None, "us-east-1"),
        (None, "eu-west-1", "eu-west-1"),
        ("eu-north-1", "x-1", "eu-north-1"),
    ],
)
def test_the_region_that_s3_reports_overrides_the_configured_one(
    found: str | None, configured: str | None, region: str
) -> None:
    address = locate("a-bucket", config(region=configured), found)

    assert address.region == region
    assert address.origin.host == f"a-bucket.s3.{region}.amazonaws.com"


def test_a_region_found_later_does_not_change_a_custom_endpoint() -> None:
    settings = config(endpoint_url="http://minio:9000")

    assert locate("a-bucket", settings, "eu-north-1").origin == locate("a-bucket", settings).origin
    assert locate("a-bucket", settings, "eu-north-1").region == "eu-north-1"


@pytest.mark.parametrize("url", ["minio:9000", "http://", "ftp://x", "http://x:port", "//x", "/x",
                                 "http://min…o:9000", "http://x/a…b", "http://x/a b"])  # fmt: skip
def test_an_invalid_endpoint_url_of_a_profile_is_reported(url: str) -> None:
    error = raised(SourceError, locate, "a-bucket", config(endpoint_url=url))

    assert error.reason == "endpoint_invalid"
    assert "endpoint_url" in error.message


def test_the_bucket_itself_has_a_path() -> None:
    assert locate("a-bucket", config()).path_of("") == "/"
    assert locate("my.dotted.bucket", config()).path_of("") == "/my.dotted.bucket/"


# --- proxies


PROXY = "http://proxy.example:3128"
HOST = "a-bucket.s3.eu-central-1.amazonaws.com"
COVERING = ["*", HOST, f"x,{HOST}:443", ".amazonaws.com", "amazonaws.com"]
BESIDE = [f"{HOST}:80", "s3.amazonaws.com", ".eu-west-1.amazonaws.com"]


def proxy_of(
    monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str], **changes: Any
) -> str | None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return locate("a-bucket", config(region="eu-central-1", **changes)).origin.proxy


@pytest.mark.parametrize(
    ("environ", "endpoint", "proxy"),
    [
        ({}, None, None),
        ({"HTTPS_PROXY": PROXY}, None, PROXY),
        ({"https_proxy": PROXY}, None, PROXY),
        ({"HTTPS_PROXY": "user:pass@proxy.example"}, None, "http://user:pass@proxy.example"),
        ({"HTTPS_PROXY": "https://proxy.example"}, None, "https://proxy.example"),
        ({"HTTP_PROXY": PROXY}, None, None),
        ({"HTTP_PROXY": PROXY}, "http://minio:9000", PROXY),
        ({"HTTPS_PROXY": PROXY}, "http://minio:9000", None),
        *(({"HTTPS_PROXY": PROXY, "NO_PROXY": names}, None, None) for names in COVERING),
        *(({"HTTPS_PROXY": PROXY, "NO_PROXY": names}, None, PROXY) for names in BESIDE),
        ({"HTTPS_PROXY": PROXY, "no_proxy": ".s3.eu-central-1.amazonaws.com"}, None, None),
        ({"HTTP_PROXY": PROXY, "NO_PROXY": "minio"}, "http://minio:9000", None),
        ({"HTTP_PROXY": PROXY, "NO_PROXY": "127.0.0.1,localhost"}, "http://127.0.0.1:9", None),
    ],
)
def test_selects_the_proxy_by_scheme_and_host(
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    endpoint: str | None,
    proxy: str | None,
) -> None:
    assert proxy_of(monkeypatch, environ, endpoint_url=endpoint) == proxy


def test_no_proxy_rules_equal_botocores(monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.utils import get_environ_proxies

    lists = ["", HOST, ".amazonaws.com", "s3.amazonaws.com", "*", "eu-central-1.amazonaws.com",
             "a-bucket", ".COM", "10.0.0.0/8"]  # fmt: skip
    for no_proxy in lists:
        environ = {"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy}
        ours = proxy_of(monkeypatch, environ)

        assert get_environ_proxies(f"https://{HOST}/").get("https") == ours, no_proxy


# --- origins


@pytest.mark.parametrize(
    ("origin", "header"),
    [(HttpOrigin("https", "h", 443), "h"), (HttpOrigin("http", "h", 80), "h"),
     (HttpOrigin("https", "h", 80), "h:80"), (HttpOrigin("http", "h", 443), "h:443"),
     (HttpOrigin("http", "::1", 9000), "[::1]:9000"), (HttpOrigin("http", "::1", 80), "[::1]")],
)  # fmt: skip
def test_the_host_header_includes_only_a_nonstandard_port(origin: HttpOrigin, header: str) -> None:
    assert origin.host_header == header
