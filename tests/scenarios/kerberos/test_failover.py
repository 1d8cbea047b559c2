"""One KDC that answers is enough, with every MIT Kerberos of Debian."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.daemon import SidecarProcess
from tests.support.kerberos.formats import entry, keytab
from tests.support.kerberos.kdc import Kdc
from tests.support.kerberos.kdc_proxy import KdcProxy
from tests.support.kerberos.krb5_libraries import SYSTEM, Libraries
from tests.support.kerberos.name_server import SRV, A, NameServer, srv
from tests.support.kerberos.site import Site, failure
from tests.support.program import own_port

MOST = 6
HOST = "kdc.example.test"


@contextmanager
def silent(count: int, kdc: Kdc) -> Iterator[tuple[list[str], list[KdcProxy]]]:
    """Start KDCs that accept requests and never answer; yield addresses and proxies."""
    with ExitStack() as stack:
        proxies = [stack.enter_context(KdcProxy(kdc.port)) for _ in range(count)]
        for proxy in proxies:
            proxy.behavior = "silent"
        yield [proxy.address for proxy in proxies], proxies


def test_acquires_a_ticket_from_the_sixth_kdc_when_five_others_hang(here: Site) -> None:
    with silent(MOST - 1, here.kdc) as (addresses, proxies):
        here.configure((*addresses, here.kdc.address))

        daemon = here.publish()

        assert 1 == len(daemon.find_events("ticket_acquired"))
        assert all(proxy.requests for proxy in proxies)


def test_acquires_a_ticket_when_the_first_kdc_refuses_connections(here: Site) -> None:
    here.configure((f"127.0.0.1:{own_port()}", here.kdc.address), udp_preference_limit="1")

    here.publish()

    assert here.is_valid()


def test_reports_a_server_that_is_no_kdc(here: Site, proxy: KdcProxy) -> None:
    here.configure(proxy.address)
    proxy.behavior = "garbage"

    failed = failure(here.start())

    assert "kdc_garbage" == failed["reason"]
    assert here.kdc.realm in failed["error"]


def test_a_silent_realm_delays_the_others_by_one_deadline(here: Site) -> None:
    """Its second principal is asked after the principal of the other realm."""
    with silent(1, here.kdc) as (addresses, _):
        away = "SILENT.TEST"
        keys = here.folder / "keytab" / "away"
        keys.write_bytes(keytab(entry("one", away), entry("two", away)))
        text = here.config.read_text()
        text = text.replace("[realms]", f"[realms]\n  {away} = {{\n kdc = {addresses[0]}\n  }}")
        here.config.write_text(text)
        folder = here.ccache.parent
        entries = [
            {"principal": f"one@{away}", "keytab": str(keys), "ccache": f"{folder}/one"},
            {"principal": f"two@{away}", "keytab": str(keys), "ccache": f"{folder}/two"},
            {"principal": here.principal, "ccache": str(here.ccache)},
        ]
        daemon = here.start(
            KERBEROS_PRINCIPALS=json.dumps(entries),
            KERBEROS_PRINCIPAL=None,
            KERBEROS_CCACHE=None,
            KERBEROS_TIMEOUT="10s",
        )

        daemon.wait_for_event("ticket_acquired", 60)

        shown = daemon.status()["details"]
        assert shown[f"{folder}/one"]["last_error"].startswith("kdc_hung: ")
        assert "last_error" not in shown[f"{folder}/two"]
        assert here.is_valid()
        assert [200, 503] == [daemon.get(path).status for path in ("/healthz", "/readyz")]


@pytest.mark.usefixtures("only_in_full")  # skips before packages are unpacked
@pytest.mark.parametrize("libraries", [SYSTEM, "trixie", "sid"], indirect=True)
def test_every_mit_kerberos_version_fails_over_to_the_last_kdc(
    here: Site, libraries: Libraries
) -> None:
    with silent(MOST - 1, here.kdc) as (addresses, _):
        here.configure((*addresses, here.kdc.address))
        daemon = here.sidecar()
        libraries.run(daemon)

        daemon.start().wait_for_event("ticket_acquired", 120)


@pytest.fixture
def libraries(request: pytest.FixtureRequest) -> Libraries:
    return Libraries.find_or_skip(request.param)


@pytest.fixture
def named(here: Site, running_kdc: Kdc) -> Iterator[Callable[..., NameServer]]:
    """A function that serves KDCs by port from DNS, on a made-up host; krb5.conf lists none."""
    text = here.config.read_text().replace("dns_lookup_kdc = false", "dns_lookup_kdc = true")
    here.config.write_text(text.replace(f"kdc = {here.kdc.address}", ""))
    with ExitStack() as stack:

        def begin(*ports: int) -> NameServer:
            records = {
                (f"_kerberos._{transport}.{here.kdc.realm}", SRV): [
                    srv(HOST, port, rank) for rank, port in enumerate(ports)
                ]
                for transport in ("udp", "tcp")
            }
            records[HOST, A] = [socket.inet_aton("127.0.0.1")]
            return stack.enter_context(NameServer(records))

        yield begin


def by_dns(site: Site, server: NameServer, **settings: str) -> SidecarProcess:
    daemon = site.sidecar(**settings)
    daemon.wrapper = server.asked_by(site.folder)
    return daemon.start()


def test_fails_over_among_kdcs_from_dns(here: Site, named: Callable[..., NameServer]) -> None:
    with silent(2, here.kdc) as (addresses, proxies):
        ports = [int(address.rpartition(":")[2]) for address in addresses]

        by_dns(here, named(*ports, here.kdc.port)).wait_until_ready(60)

        assert all(one.requests for one in proxies)


def test_reports_a_realm_that_dns_does_not_know(
    here: Site, named: Callable[..., NameServer]
) -> None:
    assert "realm_unknown" == failure(by_dns(here, named()))["reason"]
