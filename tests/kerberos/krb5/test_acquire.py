"""
Tickets from a real KDC.
"""

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kerberos_sidecar.formats.ccache import read_ticket
from kerberos_sidecar.formats.keytab import read_keytab
from kerberos_sidecar.krb5.acquire import acquire_ticket
from kerberos_sidecar.krb5.carry import PATIENCE, Patience
from kerberos_sidecar.krb5.kdcs import Kdcs, Way
from kerberos_sidecar.krb5.library import Request
from kerberos_sidecar.krb5.overlay import overlay
from kerberos_sidecar.settings import Settings, load_settings
from sidecar_runtime.errors import SidecarError
from tests.support.kerberos.kdc import Kdc, run_client
from tests.support.kerberos.kdc_proxy import KdcProxy
from tests.support.raising import raised

DEFAULTS, _ = load_settings({})
SHORT = Patience(next_seconds=0.1, favorite_seconds=0.2, last_seconds=0.3)


def acquire(
    keytab: Path,
    kdcs: Kdcs | None = None,
    patience: Patience = PATIENCE,
    settings: Settings = DEFAULTS,
) -> bytes:
    found = read_keytab(str(keytab))
    return acquire_ticket(found.select(None), found, settings, kdcs or Kdcs(), patience)


class Allocated(ctypes.Structure):
    """glibc's `struct mallinfo2`; its eighth number is the memory in use."""

    _fields_ = (("numbers", ctypes.c_size_t * 10),)


def test_a_request_leaks_no_memory(keytab: Path, krb5_config: Path) -> None:
    """A profile that is not released takes 80 bytes per request."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Allocated
    used = []
    for _ in range(3):
        used.append(mallinfo().numbers[7])
        for _ in range(100):
            with ExitStack() as stack:
                Request(stack, "airflow@EXAMPLE.TEST", str(keytab), DEFAULTS)

    assert used[2] - used[1] < 100 * 40, used


def test_reads_a_ticket_as_klist_shows_it(
    kdc: Kdc, keytab: Path, krb5_config: Path, tmp_path: Path
) -> None:
    kdc.client_config(krb5_config, libdefaults={"renew_lifetime": "2h"})
    environ = {"KERBEROS_TICKET_LIFETIME": "1h", "KERBEROS_FORWARDABLE": "yes"}

    got = tmp_path / "got"
    got.write_bytes(acquire(keytab, settings=load_settings(environ)[0]))
    ticket = read_ticket(got.read_bytes())

    said = run_client(["klist", "-f"], krb5_config, got).stdout
    assert f"Default principal: {ticket.principal}" in said
    assert "Flags: FRI" in said
    assert {"forwardable", "renewable", "initial"} <= set(ticket.flags)
    assert (3600, 7200) == (ticket.lifetime_seconds, ticket.renew_until - ticket.starts_at)


RENEW, ZERO = {"renew_lifetime": "7d"}, {"KERBEROS_RENEW_LIFETIME": "0"}


@pytest.mark.parametrize(
    ("environ", "site", "flags"),
    [
        ({}, RENEW, {"forwardable", "renewable"}),
        ({"KERBEROS_FORWARDABLE": "false"}, RENEW | {"forwardable": "true"}, {"renewable"}),
        (ZERO, RENEW, {"forwardable"}),
        (ZERO, {}, {"forwardable"}),
    ],
)
def test_settings_override_the_sites_ticket_flags(
    kdc: Kdc,
    tmp_path: Path,
    krb5_config: Path,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    site: dict[str, str],
    flags: set[str],
) -> None:
    """The KDC grants a shorter lifetime than requested, and may offer renewal to compensate."""
    kdc.add_principal(tmp_path.name, "1h", "7d")
    keytab = kdc.write_keytab(tmp_path / "keytab", tmp_path.name)
    kdc.client_config(krb5_config, libdefaults={"ticket_lifetime": "24h", **site})
    settings, _ = load_settings(environ)
    ours = tmp_path / "ours"
    ours.write_text(overlay(settings))
    monkeypatch.setenv("KRB5_CONFIG", f"{ours}:{krb5_config}")

    ticket = read_ticket(acquire(keytab, settings=settings))

    assert flags == {"forwardable", "renewable"} & set(ticket.flags)


@pytest.mark.parametrize(
    ("environ", "flags", "life_seconds"),
    [
        ({"KERBEROS_FORWARDABLE": "false"}, {"renewable"}, 1800),
        ({"KERBEROS_RENEW_LIFETIME": "0"}, {"forwardable"}, 1800),
        ({"KERBEROS_TICKET_LIFETIME": "1h"}, {"forwardable", "renewable"}, 3600),
    ],
)
def test_settings_override_what_the_site_sets_for_the_realm(
    kdc: Kdc,
    keytab: Path,
    krb5_config: Path,
    environ: dict[str, str],
    flags: set[str],
    life_seconds: int,
) -> None:
    """libkrb5 prefers the realm's own values, which an overlay without its name cannot replace."""
    site = "{\n  forwardable = true\n  ticket_lifetime = 30m\n  renew_lifetime = 7d\n }"
    kdc.client_config(krb5_config, libdefaults={kdc.realm: site})
    settings, _ = load_settings(environ)

    ticket = read_ticket(acquire(keytab, settings=settings))

    assert flags == {"forwardable", "renewable"} & set(ticket.flags)
    assert life_seconds == ticket.lifetime_seconds


def test_quotes_the_error_message_of_libkrb5(kdc: Kdc, tmp_path: Path, krb5_config: Path) -> None:
    kdc.add_principal("leaver")
    keytab = kdc.write_keytab(tmp_path / "leaver.keytab", "leaver")
    kdc.kadmin("delprinc -force leaver")

    with pytest.raises(SidecarError, match="not found in Kerberos database") as caught:
        acquire(keytab)

    assert "principal_unknown" == caught.value.reason
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
def test_reports_why_the_kdc_refuses_an_account(
    kdc: Kdc, tmp_path: Path, krb5_config: Path, query: str, undo: str, reason: str
) -> None:
    name = tmp_path.name
    names = {"name": name, "tgs": f"krbtgt/{kdc.realm}"}
    kdc.add_principal(name)
    keytab = kdc.write_keytab(tmp_path / "keytab", name)
    kdc.kadmin(query.format(**names))

    try:
        error = raised(SidecarError, acquire, keytab)
    finally:
        if undo:
            kdc.kadmin(undo.format(**names))

    assert reason == error.reason


@pytest.fixture
def silent() -> Iterator[tuple[str, ...]]:
    """Five KDCs that accept every datagram and connection, but never answer."""
    with ExitStack() as stack:
        proxies = [stack.enter_context(KdcProxy(0)) for _ in range(5)]
        for proxy in proxies:
            proxy.behavior = "silent"
        yield tuple(proxy.address for proxy in proxies)


@pytest.mark.parametrize("limit", ["1465", "1"], ids=["udp", "tcp"])
@pytest.mark.parametrize("preauth", ["+", "-"])
def test_finds_the_one_kdc_of_six_that_answers_and_then_asks_it_first(
    kdc: Kdc,
    tmp_path: Path,
    krb5_config: Path,
    silent: tuple[str, ...],
    limit: str,
    preauth: str,
) -> None:
    kdc.client_config(krb5_config, (*silent, kdc.address), {"udp_preference_limit": limit})
    name = tmp_path.name
    kdc.add_principal(name)
    kdc.kadmin(f"modprinc {preauth}requires_preauth {name}")
    keytab = kdc.write_keytab(tmp_path / "keytab", name)
    kdcs = Kdcs()

    acquire(keytab, kdcs, SHORT)

    way = Way(kdc.host, kdc.port, "udp" if limit == "1465" else "tcp")
    assert {kdc.realm: way} == kdcs.favorites
    heard = kdcs.heard[kdc.realm]
    assert {**dict.fromkeys(silent, "no answer"), kdc.address: ""} == {
        name: one.said for name, one in heard.items()
    }
    # Only that KDC is asked: with this patience, a silent one would block for an hour.
    acquire(keytab, kdcs, Patience(next_seconds=3600.0, favorite_seconds=3600.0))


@pytest.mark.parametrize("limit", ["1465", "1"], ids=["udp", "tcp"])
def test_distinguishes_silent_unreachable_and_garbage_sending_kdcs(
    kdc: Kdc, keytab: Path, krb5_config: Path, silent: tuple[str, ...], limit: str
) -> None:
    libdefaults = {"udp_preference_limit": limit}
    reasons = []
    with KdcProxy(0) as proxy:
        proxy.behavior = "garbage"
        closed = f"127.0.0.2:{proxy.port}"
        for addresses in ((silent[0], closed), (closed, "kdc..test"), (silent[0], proxy.address)):
            kdc.client_config(krb5_config, addresses, libdefaults)
            reasons.append(raised(SidecarError, acquire, keytab, None, SHORT).reason)

    assert ["kdc_hung", "kdc_unreachable", "kdc_garbage"] == reasons


def test_forgets_a_kdc_that_krb5_conf_no_longer_names(
    kdc: Kdc, keytab: Path, krb5_config: Path, silent: tuple[str, ...]
) -> None:
    kdcs = Kdcs()
    kdc.client_config(krb5_config, (silent[0], kdc.address))
    acquire(keytab, kdcs, SHORT)

    kdc.client_config(krb5_config, kdc.address)
    acquire(keytab, kdcs, SHORT)

    assert {kdc.address} == set(kdcs.heard[kdc.realm])


class Overwritten(Kdcs):
    """KDC results that another thread of the realm keeps overwriting with outdated ones."""

    def hear(self, realm: str, way: Way, said: str, seconds: float) -> None:
        self.heard[realm] = {}


def test_accepts_an_answer_while_another_principal_asks_the_same_realm(
    kdc: Kdc, keytab: Path, krb5_config: Path
) -> None:
    assert acquire(keytab, Overwritten())


def test_sends_a_wrong_key_only_once(kdc: Kdc, tmp_path: Path, krb5_config: Path) -> None:
    """libkrb5 would ask the `primary_kdc` too, and the account would count two failures."""
    name = tmp_path.name
    kdc.add_principal(name)
    kdc.kadmin(f"modprinc +requires_preauth {name}")
    keytab = kdc.write_keytab(tmp_path / "keytab", name)
    kdc.write_keytab(tmp_path / "newer", name)

    assert "keytab_stale" == raised(SidecarError, acquire, keytab).reason

    log = (kdc.folder / "kdc.log").read_text()
    assert 1 == log.count(f"PREAUTH_FAILED: {name}@")


def test_fetches_an_oversized_answer_over_tcp(kdc: Kdc, keytab: Path, krb5_config: Path) -> None:
    kdcs = Kdcs()
    with KdcProxy(kdc.port) as proxy:
        proxy.behavior = "too long"
        kdc.client_config(krb5_config, proxy.address)

        acquire(keytab, kdcs)

    assert ["tcp"] == [way.transport for way in kdcs.favorites.values()]
