"""
How git would connect: proxies as curl chooses them, settings as git-sync passes them on.
"""

from urllib.parse import urlsplit

import pytest

from git_sync_wrapper.http.route import Unheeded, Way, way_to
from tests.support.raising import raised

HTTPS = urlsplit("https://git.example.com/dags.git")


def proxy(url: str, environ: dict[str, str], **config: str) -> str | None:
    settings = [(f"http.{key}", value) for key, value in config.items()]
    found = way_to(urlsplit(url), settings, environ).proxy
    return found and found.netloc


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        ("https://a.example", {"HTTPS_PROXY": "http://p:3128"}, "p:3128"),
        ("https://a.example", {"https_proxy": "http://q:1", "HTTPS_PROXY": "http://p:2"}, "q:1"),
        ("https://a.example", {"http_proxy": "http://p:3128"}, None),
        ("https://a.example", {"all_proxy": "p:3128"}, "p:3128"),
        ("https://a.example", {"ALL_PROXY": "http://p:3128"}, "p:3128"),
        ("http://a.example", {"http_proxy": "http://p:3128"}, "p:3128"),
        ("http://a.example", {"HTTP_PROXY": "http://p:3128"}, None),
        ("http://a.example", {"HTTPS_PROXY": "http://p:3128"}, None),
    ],
)
def test_chooses_proxies_like_curl(url: str, environ: dict[str, str], expected: str | None) -> None:
    assert expected == proxy(url, environ)


@pytest.mark.parametrize(
    ("host", "excepted", "is_excepted"),
    [
        ("git.example.com", "example.com", True),
        ("git.example.com", ".example.com", True),
        ("git.example.com", "*.example.com", True),
        ("git.example.com", "other.com, git.example.com:443", True),
        ("git.example.com", "*", True),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("git.example.com", "ample.com", False),
        ("git.example.com", "", False),
        ("10.1.2.3", "192.168.0.0/16", False),
    ],
)
def test_uses_no_proxy_for_excepted_hosts(host: str, excepted: str, is_excepted: bool) -> None:
    environ = {"https_proxy": "http://p:3128", "no_proxy": excepted}

    assert (None if is_excepted else "p:3128") == proxy(f"https://{host}/x", environ)


def test_git_config_overrides_proxy_variables_but_not_no_proxy() -> None:
    environ = {"https_proxy": "http://p:3128"}

    assert "q:8080" == proxy(HTTPS.geturl(), environ, proxy="http://q:8080")
    assert None is proxy(HTTPS.geturl(), environ, proxy="")
    assert None is proxy(HTTPS.geturl(), {"no_proxy": "*"}, proxy="http://q:8080")


def test_reads_the_ca_file_from_the_environment_or_from_git_config() -> None:
    assert "/a.pem" == way_to(HTTPS, [("http.sslCAInfo", "/a.pem")], {}).ca_file
    environ = {"GIT_SSL_CAINFO": "/b.pem"}
    assert "/b.pem" == way_to(HTTPS, [("http.sslCAInfo", "/a.pem")], environ).ca_file


@pytest.mark.parametrize(
    ("config", "environ", "verifies"),
    [
        ([("http.sslVerify", "false")], {}, False),
        ([("HTTP.SSLVERIFY", "true")], {}, True),
        ([], {"GIT_SSL_NO_VERIFY": "1"}, False),
    ],
)
def test_verification_can_be_turned_off(
    config: list[tuple[str, str]], environ: dict[str, str], verifies: bool
) -> None:
    assert verifies == way_to(HTTPS, config, environ).verifies


def test_reads_extra_headers_and_hides_them_in_the_repr() -> None:
    way = way_to(HTTPS, [("http.extraHeader", "Authorization: Basic c2VjcmV0")], {})

    assert {"Authorization": "Basic c2VjcmV0"} == way.headers
    assert "c2VjcmV0" not in repr(way)


def test_connects_directly_and_ignores_settings_of_the_transfer() -> None:
    config = [("http.postBuffer", "1"), ("gc.auto", "0"), ("credential.useHttpPath", "true")]

    assert [Way()] * 2 == [way_to(HTTPS, given, {}) for given in ([], config)]


@pytest.mark.parametrize(
    ("config", "environ"),
    [
        ([("http.sslCert", "/client.pem")], {}),
        ([("http.https://git.example.com/.proxy", "http://p")], {}),
        ([("url.https://u:secret@mirror/.insteadOf", "https://git.example.com/")], {}),
        ([("credential.helper", "store")], {}),
        ([("include.path", "/x")], {}),
        ([("http.proxy", "socks5://p:1080")], {}),
        ([], {"https_proxy": "socks5h://p:1080"}),
        ([], {"https_proxy": "http://me:secret[@p:3128"}),
        ([], {"https_proxy": "http://me:secret/x@p:3128"}),
        ([], {"GIT_CONFIG_COUNT": "1"}),
        ([], {"GIT_SSL_CERT": "/client.pem"}),
    ],
)
def test_refuses_unsupported_settings_without_showing_secrets(
    config: list[tuple[str, str]], environ: dict[str, str]
) -> None:
    assert "secret" not in str(raised(Unheeded, way_to, HTTPS, config, environ))
