"""
Tickets from a real KDC.
"""

from pathlib import Path

import pytest

pytest.importorskip("gssapi", reason="gssapi is not compiled: make setup-test as root")

from kerberos_sidecar.formats.ccache import read_ticket
from kerberos_sidecar.formats.keytab import read_keytab
from kerberos_sidecar.krb5.acquire import acquire_ticket
from kerberos_sidecar.krb5.overlay import overlay
from kerberos_sidecar.settings import load_settings
from sidecar_runtime.errors import SidecarError
from tests.support.kdc import Kdc, run_client


@pytest.fixture
def got(tmp_path: Path) -> Path:
    return tmp_path / "got"


def acquire(keytab: Path, got: Path) -> bytes:
    found = read_keytab(str(keytab))
    acquire_ticket(found.select(None), found, f"FILE:{got}")
    return got.read_bytes()


def test_what_is_read_of_a_ticket_is_what_klist_says(
    kdc: Kdc, keytab: Path, krb5_config: Path, got: Path
) -> None:
    krb5_config.write_text(
        overlay(load_settings({"KERBEROS_TICKET_LIFETIME": "1h", "KERBEROS_FORWARDABLE": "yes"})[0])
        + krb5_config.read_text().replace("[libdefaults]", "[libdefaults]\n  renew_lifetime = 2h")
    )

    ticket = read_ticket(acquire(keytab, got))

    said = run_client(["klist", "-f"], krb5_config, got).stdout
    assert f"Default principal: {ticket.principal}" in said
    assert "Flags: FRI" in said
    assert {"forwardable", "renewable", "initial"} <= set(ticket.flags)
    assert (3600, 7200) == (ticket.lifetime_seconds, ticket.renew_until - ticket.starts_at)


def test_each_call_asks_the_kdc(kdc: Kdc, keytab: Path, krb5_config: Path, tmp_path: Path) -> None:
    before = kdc.requests()

    for number in range(3):
        acquire(keytab, tmp_path / f"got{number}")

    assert 3 == kdc.requests() - before


def test_the_failure_is_reported_in_libkrb5s_own_words(
    kdc: Kdc, tmp_path: Path, krb5_config: Path, got: Path
) -> None:
    kdc.add_principal("leaver")
    keytab = kdc.write_keytab(tmp_path / "leaver.keytab", "leaver")
    kdc.kadmin("delprinc -force leaver")

    with pytest.raises(SidecarError, match="not found in Kerberos database") as caught:
        acquire(keytab, got)

    assert "principal_unknown" == caught.value.reason
    assert not got.exists()
    # Asked once: gssapi tries all its mechanisms, unless it is given one.
    assert 1 == (kdc.folder / "kdc.log").read_text().count("CLIENT_NOT_FOUND: leaver@")


@pytest.mark.parametrize(
    ("query", "undo", "reason"),
    [
        ("modprinc +needchange {name}", "", "password_expired"),
        ("modprinc -pwexpire 2001-01-01 {name}", "", "password_expired"),
        ("modprinc -allow_svr {tgs}", "modprinc +allow_svr {tgs}", "kdc_refused"),
        ("modprinc -allow_tix {tgs}", "modprinc +allow_tix {tgs}", "kdc_refused"),
    ],
    ids=["must change", "ended", "no service", "disabled realm"],
)
def test_what_the_kdc_has_against_an_account_is_reported(
    kdc: Kdc, tmp_path: Path, krb5_config: Path, got: Path, query: str, undo: str, reason: str
) -> None:
    name = tmp_path.name
    names = {"name": name, "tgs": f"krbtgt/{kdc.realm}"}
    kdc.add_principal(name)
    keytab = kdc.write_keytab(tmp_path / "keytab", name)
    kdc.kadmin(query.format(**names))

    try:
        with pytest.raises(SidecarError) as caught:
            acquire(keytab, got)
    finally:
        if undo:
            kdc.kadmin(undo.format(**names))

    assert reason == caught.value.reason
