"""One KDC that answers is enough, whatever the others do, with every MIT Kerberos of Debian."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.daemon import SidecarProcess
from tests.support.kerberos.kdc import Kdc
from tests.support.kerberos.kdc_proxy import KdcProxy
from tests.support.kerberos.krb5_libraries import SYSTEM, Libraries
from tests.support.kerberos.name_server import SRV, URI, A, Behavior, NameServer, srv, uri
from tests.support.kerberos.site import Site, failure
from tests.support.program import own_port
from tests.support.waiting import wait_until

MOST = 6
HOST = "kdc.example.test"


@pytest.fixture(params=["udp", "tcp"])
def limit(request: pytest.FixtureRequest) -> str:
    """The `udp_preference_limit` that makes libkrb5 prefer this transport."""
    return "1465" if request.param == "udp" else "1"


@contextmanager
def others(count: int, kind: str, kdc: Kdc) -> Iterator[tuple[list[str], list[KdcProxy]]]:
    """
    Start KDCs that fail; yield their addresses, and the proxies that count requests.

    Args:
        kind: `dead` refuses connections, `silent` accepts requests and never answers, `slow` takes
            seconds for each answer, `mixed` alternates between them.
    """
    kinds = ["dead", "silent", "slow"] if kind == "mixed" else [kind]
    with ExitStack() as stack:
        addresses, proxies = [], []
        for number in range(count):
            if (one := kinds[number % len(kinds)]) == "dead":
                addresses.append(f"127.0.0.1:{own_port()}")
                continue
            proxy = stack.enter_context(KdcProxy(kdc.port))
            proxy.behavior = "slow" if one == "slow" else "silent"
            proxies.append(proxy)
            addresses.append(proxy.address)
        yield addresses, proxies


def test_acquires_a_ticket_from_the_sixth_kdc_when_five_others_hang(here: Site, limit: str) -> None:
    """libkrb5 (MIT 1.20) fails behind three KDCs that accept a connection and stay silent."""
    with others(MOST - 1, "silent", here.kdc) as (addresses, silent):
        here.configure((*addresses, here.kdc.address), udp_preference_limit=limit)

        daemon = here.publish()

        assert 1 == len(daemon.find_events("ticket_acquired"))
        here.refresh(daemon)
        assert all(one.requests == 1 for one in silent), "the KDC that answered is not asked first"
        expected = [*[0.0] * (MOST - 1), 1.0]
        everyone = (*addresses, here.kdc.address)
        wait_until(
            lambda: expected == [up(daemon, here, address) for address in everyone],
            "the health of each KDC is known",
        )
        page = daemon.status()["details"][f"KDCs of {here.kdc.realm}"]
        assert page[here.kdc.address].startswith("answered (")
        assert page[addresses[0]].startswith("no answer (")
        assert addresses[0] in daemon.get("/").body


def up(daemon: SidecarProcess, site: Site, kdc: str) -> float | None:
    labels = f'kdc="{kdc}",realm="{site.kdc.realm}",sidecar="kerberos"'
    return daemon.metrics().get(f"kerberos_kdc_up{{{labels}}}")


@dataclass(frozen=True)
class World:
    """A KDC that answers, possibly only over TCP, behind others that fail."""

    count: int
    kind: str
    is_tcp_only: bool = False


WORLDS = [
    World(1, "dead"),
    World(1, "dead", is_tcp_only=True),
    World(MOST, "silent", is_tcp_only=True),
    *(
        World(count, kind)
        for count in range(2, MOST + 1)
        for kind in ("dead", "silent", "slow", "mixed")
    ),
]


@pytest.mark.timeout(1_200)
@pytest.mark.usefixtures("only_in_full")  # skips before packages are unpacked
@pytest.mark.parametrize("libraries", [SYSTEM, "trixie", "sid"], indirect=True)
def test_every_mit_kerberos_version_fails_over_to_the_last_kdc_in_its_first_cycle(
    make_site: MakeSite,
    running_kdc: Kdc,
    limit: str,
    libraries: Libraries,
) -> None:
    """All sidecars run at once, because they mostly wait."""
    with ExitStack() as stack:
        daemons: dict[World, SidecarProcess] = {}
        for world in WORLDS:
            site = make_site("1d")
            addresses, _ = stack.enter_context(others(world.count - 1, world.kind, running_kdc))
            last = stack.enter_context(KdcProxy(running_kdc.port))
            last.behavior = "relay tcp" if world.is_tcp_only else "relay"
            site.configure((*addresses, last.address), udp_preference_limit=limit)
            daemon = site.sidecar()
            libraries.run(daemon)
            daemons[world] = daemon.start()
        for world, daemon in daemons.items():
            ends = ("ticket_acquired", "cycle_failed")
            assert "ticket_acquired" == daemon.wait_for_event(ends, 120)["event"], world
            assert libraries.are_used_by(daemon.pid)


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


@pytest.mark.parametrize("outage", ["silent", "refuse"])
def test_fails_over_among_kdcs_from_dns_and_survives_a_dns_outage(
    here: Site, named: Callable[..., NameServer], outage: Behavior
) -> None:
    """libkrb5 waits 27 s for one of them; the last DNS answer stays in use during an outage."""
    with others(2, "silent", here.kdc) as (addresses, silent):
        ports = [int(address.rpartition(":")[2]) for address in addresses]
        server = named(*ports, here.kdc.port)

        daemon = by_dns(here, server)

        daemon.wait_until_ready(60)
        assert all(one.requests for one in silent)
        page = daemon.status()["details"][f"KDCs of {here.kdc.realm}"]
        assert page[f"{HOST}:{here.kdc.port}"].startswith("answered (")
        server.behavior = outage
        assert "ticket_acquired" == here.refresh(daemon, 60)["event"]


def test_reports_a_silent_name_server_and_recovers_when_it_answers(
    here: Site, named: Callable[..., NameServer]
) -> None:
    server = named(here.kdc.port)
    server.behavior = "silent"
    daemon = by_dns(here, server)

    failed = failure(daemon)

    assert "kdc_unreachable" == failed["reason"]
    assert "DNS did not return the KDCs" in failed["error"]
    server.behavior = "answer"
    daemon.wait_until_ready(60)


def test_reports_a_realm_that_dns_does_not_know(
    here: Site, named: Callable[..., NameServer]
) -> None:
    assert "realm_unknown" == failure(by_dns(here, named()))["reason"]


def test_asks_for_no_uri_records_if_krb5_conf_forbids_it(
    here: Site, named: Callable[..., NameServer]
) -> None:
    """Such records may be for other clients; libkrb5 reads the same setting."""
    text = here.config.read_text()
    here.config.write_text(text.replace("[libdefaults]", "[libdefaults]\n  dns_uri_lookup = false"))
    server = named(here.kdc.port)
    away = uri(f"krb5srv:m:tcp:{HOST}:{own_port()}")
    server.records[f"_kerberos.{here.kdc.realm}", URI] = [away]

    by_dns(here, server).wait_until_ready(60)
