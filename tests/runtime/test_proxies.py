"""
Which requests go through a proxy, here and in programs that are not ours.
"""

import pytest

from sidecar_runtime import proxies
from tests import Texts

PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("scheme", "environ", "proxy"),
    [
        ("https", {"https_proxy": "http://other:1", "HTTPS_PROXY": PROXY}, "http://other:1"),
        ("https", {"https_proxy": "", "HTTPS_PROXY": PROXY}, PROXY),
        ("https", {"HTTPS_PROXY": "user:pw@proxy.example:3128"}, "http://user:pw@proxy.example:3128"),
        ("https", {"HTTP_PROXY": PROXY, "ALL_PROXY": PROXY}, None),
        ("http", {"HTTP_PROXY": PROXY}, PROXY),
        ("https", {"HTTPS_PROXY": PROXY, "NO_PROXY": "s3.example"}, None),
        ("https", {"HTTPS_PROXY": PROXY, "no_proxy": "other", "NO_PROXY": "s3.example"}, PROXY),
    ],
)  # fmt: skip
def test_the_proxy_depends_on_the_scheme_and_on_exceptions(
    scheme: str, environ: Texts, proxy: str | None
) -> None:
    assert proxy == proxies.proxy_for(scheme, "s3.example", 443, environ)


# The entry, the hosts that it covers, and those that it does not.
EXCEPTIONS = [
    ("*", "a.example:443", ""),
    ("", "", "a.example:443"),
    ("example.com", "example.com:443 git.example.com:443", ""),
    (".example.com", "git.example.com:443 example.com:443", ""),
    ("*.example.com", "git.example.com:443", ""),
    ("MINIO.Svc", "minio.svc.:9000", ""),
    ("minio.svc.", "minio.svc:9000", ""),
    ("my_store", "my_store:80", ""),
    ("other , minio.svc", "minio.svc:9000", ""),
    ("other minio.svc", "minio.svc:9000", ""),
    ("minio:9000", "minio:9000", "minio:9001"),
    ("10.1.2.3:80", "10.1.2.3:80", "10.1.2.3:81"),
    ("10.0.0.0/8", "10.1.2.3:80", "11.1.2.3:80 a10.example:80 ::1:80"),
    ("10.1.2.3/8", "10.9.9.9:80", ""),
    ("::1", "::1:80", ""),
    ("[::1]:80", "::1:80", ""),
    ("0:0:0:0:0:0:0:1", "::1:80", ""),
    ("fd00::/8", "fd00:ec2::254:80", ""),
    ("ample.com", "", "example.com:443"),
    ("git.example.com", "", "example.com:443"),
    ("example", "", "10.1.2.3:80"),
]
# Not one client reads these in the same way, and few of them say so.
WRONG = [
    *(
        "http://minio:9000",
        "https://minio.svc/",
        "minio/",
        "minio:http",
        "minio:",
        "user@minio",
    ),
    *(
        "10.0.0.0/33",
        "10.0.0.0/",
        "10.*",
        "10.0.0.300",
        "10.1",
        "s3.*.example",
        "*svc",
        "**",
        ".",
    ),
]


@pytest.mark.parametrize(("excepted", "covered", "beside"), EXCEPTIONS)
def test_the_meaning_of_an_exception(excepted: str, covered: str, beside: str) -> None:
    environ = {"NO_PROXY": excepted}

    for hosts, is_covered in ((covered, True), (beside, False)):
        for address in hosts.split():
            host, _, port = address.rpartition(":")
            assert is_covered == proxies.is_excepted(host, int(port), environ), address
    assert {} == proxies.ignored(environ)


@pytest.mark.parametrize("entry", WRONG)
def test_an_entry_without_a_meaning_is_named(entry: str) -> None:
    assert proxies.ignored({"no_proxy": f"minio, {entry},.svc"})["no_proxy"].endswith(
        f": {entry.rpartition('@')[2]}"
    )
    assert not proxies.is_excepted("minio2", 9000, {"no_proxy": entry})


# --- in programs that are not ours


def test_other_programs_read_the_same_names() -> None:
    """curl knows no `*.`, and neither it nor urllib a `*` among other entries."""
    wide = {"HTTPS_PROXY": PROXY, "NO_PROXY": "minio *"}
    given = {
        "https_proxy": PROXY,
        "no_proxy": "*.svc .Example.com,10.0.0.0/8 minio:9000",
    }

    assert {"*"} == set(proxies.for_others(wide).values())
    told = proxies.for_others(given)
    assert told["NO_PROXY"] == told["no_proxy"]
    assert ["svc", "example.com", "10.0.0.0/8", "minio:9000"] == told["no_proxy"].split(
        ","
    )[:4]
    for text in told.values():  # what we read in it is what we read before
        for host in ("a.svc", "svc", "example.com", "10.1.2.3"):
            assert proxies.is_excepted(host, 80, given) and proxies.is_excepted(
                host, 80, {"NO_PROXY": text}
            )
