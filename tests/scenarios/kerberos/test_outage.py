"""The KDC is down or hangs: the last ticket stays, and the reason is reported."""

import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from threading import Thread

import pytest

from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.kerberos.formats import entry, keytab
from tests.support.kerberos.kdc import Kdc
from tests.support.kerberos.kdc_proxy import KdcProxy
from tests.support.kerberos.site import Site, assert_tells, failure, several
from tests.support.waiting import wait_until


def test_waits_for_a_kdc_that_is_down_and_keeps_the_ticket_until_it_expires(
    make_site: MakeSite, running_kdc: Kdc
) -> None:
    life_seconds = 8
    site = make_site(f"{life_seconds}s")
    running_kdc.stop()
    daemon = site.start()
    assert site.kdc.realm in failure(daemon)["error"]
    assert_tells(daemon, "kdc_unreachable", ready=False)
    assert not site.ccache.exists()
    running_kdc.start()
    daemon.wait_until_ready()
    running_kdc.stop()
    before = site.ccache.read_bytes()
    expiry = site.expiry()

    # without the limit of a quarter, the sixth wait would be half a minute
    for _ in range(6):
        failed = site.refresh(daemon)
        assert "kdc_unreachable" == failed["reason"]
        assert failed["retry_in_seconds"] <= life_seconds / 4 or time.time() >= expiry
    wait_until(lambda: daemon.get("/readyz").status == 503, "the ticket expires")
    assert time.time() >= expiry
    assert (200, before) == (daemon.get("/healthz").status, site.ccache.read_bytes())
    running_kdc.start()
    daemon.wait_until_ready()
    assert site.is_valid() and before != site.ccache.read_bytes()
    assert [] == site.leftovers()


AWAY: dict[str, Callable[[Site, Kdc], object]] = {
    "kdc_unreachable": lambda site, kdc: kdc.stop(),
    "keytab_missing": lambda site, kdc: site.keytab.unlink(),
    "keytab_stale": lambda site, kdc: kdc.kadmin(f"cpw -randkey {site.principal}"),
}


@pytest.mark.parametrize("reason", AWAY)
def test_a_restart_stays_ready_if_the_system_refused_the_folders_group(
    here: Site, running_kdc: Kdc, reason: str
) -> None:
    """As in an emptyDir without fsGroup, or on an EFS access point, which maps ids."""
    here.ccache.parent.chmod(0o777)
    user = here.as_user(1001, 1001)
    name = {"KERBEROS_PRINCIPAL": here.name}
    daemon = here.publish(program=user, **name)
    assert 1001 == here.ccache.stat().st_gid != here.ccache.parent.stat().st_gid
    daemon.kill()
    before = here.ccache.read_bytes()
    AWAY[reason](here, running_kdc)

    with here.sidecar(program=user, **name) as daemon:
        failure(daemon)
        assert_tells(daemon, reason, ready=True)
    one_shot = {"KERBEROS_ONE_SHOT": "true", "KERBEROS_ONE_SHOT_DEADLINE": "4s"}
    if reason == "kdc_unreachable":  # an init container must not block its pod
        daemon = here.start(program=user, KERBEROS_ONE_SHOT="true")
        assert 0 == daemon.wait_for_exit().code
        assert daemon.find_events("ticket_kept", reason=reason, level="warning")
    else:
        assert 3 == here.start(program=user, **one_shot).wait_for_exit().code
    check = here.start("check", program=user)
    check.wait_for_exit()
    assert f"ok    ticket         {here.ccache} is valid until" in check.log()
    assert "uid 50000 with group 0 cannot read it" in check.log()
    assert before == here.ccache.read_bytes()
    here.ccache.chmod(0o600)
    assert 3 == here.start(program=user, **one_shot).wait_for_exit().code, (
        "no consumer can read it"
    )


def deny(server: socket.socket) -> None:
    """Answer each question, until the socket is closed: no such name."""
    with suppress(OSError):
        while True:
            question, asker = server.recvfrom(512)
            server.sendto(question[:2] + b"\x81\x83" + question[4:], asker)


@pytest.mark.parametrize(
    ("dns", "said"),
    [
        ("dead", "its servers fail or are silent"),
        ("silent", "its servers fail or are silent"),
        ("unknowing", "it does not know"),
    ],
)
def test_dns_that_fails_is_an_outage_that_a_valid_ticket_outlives(
    here: Site, dns: str, said: str
) -> None:
    here.publish().terminate()
    here.configure("kdc.example.test:88")
    resolver = here.folder / "resolv.conf"
    server = socket.socket(type=socket.SOCK_DGRAM)
    # of its own: another run on this machine may have one
    address = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.53"
    server.bind((address, 53))
    if dns == "dead":
        server.close()
    if dns == "unknowing":
        Thread(target=deny, args=[server], daemon=True).start()
    resolver.write_text(f"nameserver {address}\noptions timeout:20 attempts:1\n")
    daemon = here.sidecar(KERBEROS_ONE_SHOT="true", KERBEROS_TIMEOUT="2s")
    daemon.wrapper = (
        "unshare",
        "--mount",
        "sh",
        "-c",
        f'mount --bind {resolver} /etc/resolv.conf && exec "$@"',
        "sh",
    )

    daemon.start()

    assert 0 == daemon.wait_for_exit().code, daemon.log()
    assert [] == daemon.find_events("http_listening")
    (kept,) = daemon.find_events("ticket_kept")
    assert "kdc_unreachable" == kept["reason"], kept
    assert (
        f"DNS names no address for a KDC of {here.kdc.realm} ({said}" in kept["error"]
    ), kept
    assert ": kdc = kdc.example.test:88" in kept["error"]
    server.close()


@pytest.mark.parametrize("limit", ["1465", "1"], ids=["udp", "tcp"])
def test_answers_probes_and_exits_cleanly_on_sigterm_while_the_kdc_hangs(
    here: Site, proxy: KdcProxy, limit: str
) -> None:
    here.configure(proxy.address, udp_preference_limit=limit)
    daemon = here.publish()
    before = here.ccache.read_bytes()
    seen = proxy.requests
    proxy.behavior = "silent"
    daemon.sighup()
    wait_until(lambda: proxy.requests > seen, "a request hangs")

    health = {daemon.get("/healthz").status for _ in range(20)}
    wait_until(lambda: daemon.reason() == "kdc_hung", "it is named while it lasts")
    assert f"asked: {proxy.address}; answered: none" in daemon.status()["error"]
    assert ({200}, 0) == (health, daemon.terminate().code)
    assert [] == daemon.find_events("cycle_failed"), "the request no longer hangs"
    assert before == here.ccache.read_bytes()
    assert [] == here.leftovers()
    assert [] == os.listdir(here.folder / "tmp")


@contextmanager
def silent(count: int, kdc: Kdc) -> Iterator[list[KdcProxy]]:
    """Start KDCs that accept requests and never answer."""
    with ExitStack() as stack:
        proxies = [stack.enter_context(KdcProxy(kdc.port)) for _ in range(count)]
        for proxy in proxies:
            proxy.behavior = "silent"
        yield proxies


def test_says_which_kdcs_were_silent_when_the_time_is_over(here: Site) -> None:
    """The last one has answered, and is asked again after the silent ones."""
    here.kdc.kadmin(f"modprinc +requires_preauth {here.principal}")
    with silent(3, here.kdc) as away:
        kdcs = [*(proxy.address for proxy in away), here.kdc.address]
        here.configure(tuple(kdcs))

        failed = failure(daemon := here.start(KERBEROS_TIMEOUT="5s"))

    assert "kdc_hung" == failed["reason"], failed
    assert (
        f"asked: {', '.join(kdcs)}; answered: {here.kdc.address}" in failed["error"]
    ), failed
    assert "KERBEROS_TIMEOUT" in failed["advice"], failed
    assert_tells(daemon, "kdc_hung", ready=False)
    assert [] == here.leftovers()


def test_a_silent_realm_costs_one_deadline_and_delays_the_others_once(
    here: Site,
) -> None:
    with silent(1, here.kdc) as (proxy,):
        away = "SILENT.TEST"
        folder = here.ccache.parent
        keys = here.folder / "keytab" / "away"
        keys.write_bytes(keytab(entry("one", away), entry("two", away)))
        here.config.write_text(
            here.config.read_text().replace(
                "[realms]", f"[realms]\n  {away} = {{\n kdc = {proxy.address}\n  }}"
            )
        )
        daemon = here.start(
            **several(
                *[
                    {
                        "principal": f"{name}@{away}",
                        "keytab": keys,
                        "ccache": folder / name,
                    }
                    for name in ("one", "two")
                ],
                {"principal": here.principal, "ccache": here.ccache},
            ),
            KERBEROS_TIMEOUT="4s",
        )

        failed = failure(daemon)
        asked = (b"one" in proxy.datagrams, b"two" in proxy.datagrams)
        acquired = here.refresh(daemon)
        ended = failure(daemon, after=daemon.events.index(acquired))

        assert (True, False) == asked
        assert failed["error"].startswith(f"no KDC of {away} answers")
        assert [True, False] == [
            f"kdc = {kdc.address}" in failed["error"] for kdc in (proxy, here.kdc)
        ], failed
        assert here.is_valid()
        start, first, last = (
            datetime.fromisoformat(one["timestamp"])
            for one in (daemon.find_events("cycle_started")[-1], acquired, ended)
        )
        assert last - first > first - start, "the silent realm is last"
