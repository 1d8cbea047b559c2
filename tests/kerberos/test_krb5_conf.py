"""
Our relations before the site's krb5.conf, and what is quoted of it.
"""

from pathlib import Path

import pytest

from kerberos_sidecar import krb5_conf
from kerberos_sidecar.formats import parse_principal
from kerberos_sidecar.keytab import Key, Keytab
from kerberos_sidecar.krb5_conf import check_enctypes, lines_about, overlay
from kerberos_sidecar.settings import Settings, load_settings
from sidecar_runtime.errors import SidecarError
from tests.support.raising import raised

AIRFLOW = parse_principal("airflow@R")
SITE = """\
a comment before the first section
[libdefaults]
  ticket_lifetime = 10 hours
  R = {
    renew_lifetime = "7d"
  }
[realms]
  R = {
    # the first
    kdc = one  # of two
    kdc = two:88
  }
  OTHER = {
    kdc = three
  }
"""


def site(folder: Path, text: str) -> Settings:
    path = folder / "krb5.conf"
    path.write_text(text)
    return load_settings({"KRB5_CONFIG": f"{folder}/missing:{path}"})[0]


def keys(*enctypes: int) -> Keytab:
    return Keytab("/k", AIRFLOW, tuple(Key(AIRFLOW, 1, enctype) for enctype in enctypes))


def test_the_overlay_overrides_the_site_also_in_the_part_of_the_realm() -> None:
    environ = {"KERBEROS_RENEW_LIFETIME": "0", "KERBEROS_TICKET_LIFETIME": "7h"}
    relations = [
        "request_timeout = 54s",
        "ticket_lifetime = 25200s",
        "renew_lifetime = 0s",
        "forwardable = true",
        "kdc_default_options = 0",
    ]

    lines = [line.strip() for line in overlay(load_settings(environ)[0], "R").splitlines()]

    assert ["[libdefaults]", *relations, "R = {", *relations, "}"] == lines
    assert "lifetime" not in overlay(load_settings({})[0], "R")


def test_quotes_what_a_file_says_of_a_realm_with_its_line(tmp_path: Path) -> None:
    settings, path = site(tmp_path, SITE), tmp_path / "krb5.conf"

    assert [f"{path}, line 10: kdc = one  # of two", f"{path}, line 11: kdc = two:88"] == (
        lines_about(settings, "R", "kdc")
    )
    lives = lines_about(settings, "R", "ticket_lifetime", "renew_lifetime")
    expected = ["line 3: ticket_lifetime = 10 hours", "line 5: renew_lifetime = 7d"]
    assert expected == [line.partition(", ")[2] for line in lives]
    assert [] == lines_about(settings, "R")


@pytest.mark.parametrize("line", ["[libdefaults", "rdns", "= true", "kdc { x"])
def test_quotes_a_line_that_cannot_be_parsed(tmp_path: Path, line: str) -> None:
    settings = site(tmp_path, f"[libdefaults]\n  rdns = false\n  {line}\n")

    assert [f"{tmp_path}/krb5.conf, line 3: cannot parse {line}"] == lines_about(settings, "R")


def test_reads_what_a_file_includes_but_nothing_that_includes_itself(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    one = tmp_path / "more" / "one.conf"
    one.write_text("[realms]\nR = {\nkdc = here\n}\n")
    (tmp_path / "more" / "one.rpmsave").write_text("[realms]\nR = {\nkdc = old\n}\n")
    settings = site(tmp_path, f"includedir {tmp_path}/more\n" * 2)

    assert [f"{one}, line 3: kdc = here"] * 2 == lines_about(settings, "R", "kdc")
    one.write_text(f"include {tmp_path}/krb5.conf\n")
    error = raised(SidecarError, check_enctypes, settings, keys(18))
    assert "config_invalid" == error.reason
    assert f"{one}, line 1 includes {tmp_path}/krb5.conf, which includes it" == error.message


@pytest.mark.parametrize(
    ("line", "is_read"), [("include", True), ("includedir", True), (" include", False)]
)
def test_names_the_line_of_a_file_or_folder_that_cannot_be_included(
    tmp_path: Path, line: str, is_read: bool
) -> None:
    settings = site(tmp_path, f"[realms]\n{line} {tmp_path}/none\n")

    if is_read:
        error = raised(SidecarError, check_enctypes, settings, keys(18))
        expected = (
            f"{tmp_path}/krb5.conf, line 2 includes {tmp_path}/none: No such file or directory"
        )
        assert ("config_invalid", expected) == (error.reason, error.message)
    else:
        check_enctypes(settings, keys(18))


@pytest.mark.parametrize(
    ("permitted", "enctypes", "is_usable"),
    [
        ("aes256-cts", [23], False),
        ("aes256-cts-hmac-sha1-96 aes256-cts-hmac-sha384-192", [17], False),
        ("DEFAULT -rc4", [23], False),
        ("aes256-cts", [18], True),
        ("aes", [23, 17], True),
        ("arcfour-hmac-md5", [23], True),
        ("rc4, aes", [23], True),
        ("aes256-sha2", [20], True),
        ("DEFAULT", [23], True),
        ("camellia", [26], True),
        ("what-a-later-version-knows", [23], True),
    ],
)
def test_names_a_keytab_of_which_krb5_conf_permits_no_key(
    tmp_path: Path, permitted: str, enctypes: list[int], is_usable: bool
) -> None:
    others = "[appdefaults]\n permitted_enctypes = des\n[libdefaults]\n"
    settings = site(tmp_path, f"{others}permitted_enctypes = {permitted}")

    if is_usable:
        check_enctypes(settings, keys(*enctypes))
    else:
        error = raised(SidecarError, check_enctypes, settings, keys(*enctypes))
        assert f"line 4: permitted_enctypes = {permitted}" in error.message
        assert "keytab_enctypes_unusable" == error.reason


def test_krb5_config_is_missing_if_none_of_its_files_is_readable(tmp_path: Path) -> None:
    assert krb5_conf.missing(site(tmp_path, "")) is None
    assert krb5_conf.missing(load_settings({})[0]) is None
    assert krb5_conf.missing(load_settings({"KRB5_CONFIG": str(tmp_path)})[0]) is None
    error = krb5_conf.missing(load_settings({"KRB5_CONFIG": f"{tmp_path}/a:{tmp_path}/b"})[0])

    assert error and "config_missing" == error.reason
