"""
The overlay that precedes the site's krb5.conf.
"""

import ctypes
import os
from pathlib import Path

import pytest

from kerberos_sidecar.krb5.overlay import check_config, lay_over, leave_name_servers_soon, overlay
from kerberos_sidecar.settings import load_settings
from sidecar_runtime.errors import SidecarError


def relations(**environ: str) -> dict[str, str]:
    text = overlay(load_settings(environ)[0])
    head, *lines = text.splitlines()
    assert "[libdefaults]" == head
    return dict(line.strip().split(" = ") for line in lines)


def test_sets_what_a_request_has_no_option_for() -> None:
    assert {"request_timeout": "54s"} == relations()
    assert {"request_timeout": "54s"} == relations(KERBEROS_RENEW_LIFETIME="7h")
    assert {"request_timeout": "1s", "kdc_default_options": "0"} == relations(
        KERBEROS_RENEW_LIFETIME="0", KERBEROS_TIMEOUT="1s"
    )


@pytest.mark.parametrize(("site", "expected"), [("", "/etc/krb5.conf"), ("/a:/b", "/a:/b")])
def test_precedes_the_sites_krb5_conf_and_exists_only_in_memory(
    monkeypatch: pytest.MonkeyPatch, site: str, expected: str
) -> None:
    """Only libkrb5 sees the overlay; the status page shows the configured value."""
    of_libkrb5 = ctypes.CDLL(None).getenv
    of_libkrb5.restype = ctypes.c_char_p
    for name in ("KRB5_CONFIG", "KRB5CCNAME", "KRB5_KTNAME", "KRB5_CLIENT_KTNAME", "RES_OPTIONS"):
        monkeypatch.setenv(name, "/theirs")
    settings, _ = load_settings({"KRB5_CONFIG": site})

    lay_over(settings)

    ours, _, theirs = of_libkrb5(b"KRB5_CONFIG").decode().partition(":")
    assert "/theirs" == os.environ["KRB5_CONFIG"]
    assert expected == theirs
    assert overlay(settings) == Path(ours).read_text()
    assert "/memfd:" in os.readlink(ours)
    assert {"KRB5CCNAME", "KRB5_KTNAME", "KRB5_CLIENT_KTNAME"}.isdisjoint(os.environ)
    os.close(int(os.path.basename(ours)))


@pytest.mark.parametrize(
    ("resolv", "before", "after"),
    [
        ("nameserver 10.0.0.1\n", None, "timeout:2"),
        ("options ndots:5\n", None, "timeout:2"),
        ("options ndots:5 timeout:1\n", None, None),
        ("options ndots:5\n", "attempts:3", "attempts:3"),
        (None, None, "timeout:2"),
    ],
)
def test_shortens_the_dns_timeout_unless_the_pod_configures_it(
    tmp_path: Path, resolv: str | None, before: str | None, after: str | None
) -> None:
    path = tmp_path / "resolv.conf"
    if resolv is not None:
        path.write_text(resolv)
    environ = {} if before is None else {"RES_OPTIONS": before}

    leave_name_servers_soon(environ, path)

    assert after == environ.get("RES_OPTIONS")


def test_refuses_krb5_config_if_none_of_its_files_is_readable(tmp_path: Path) -> None:
    path = tmp_path / "krb5.conf"
    path.write_text("")

    missing = f"{tmp_path}/missing:{tmp_path}/neither"

    check_config(load_settings({"KRB5_CONFIG": f"{tmp_path}/missing:{path}"})[0])
    check_config(load_settings({})[0])
    check_config(load_settings({"KRB5_CONFIG": str(tmp_path)})[0])  # libkrb5 reads its files
    with pytest.raises(SidecarError, match="names no readable file") as caught:
        check_config(load_settings({"KRB5_CONFIG": missing})[0])

    assert "config_missing" == caught.value.reason
