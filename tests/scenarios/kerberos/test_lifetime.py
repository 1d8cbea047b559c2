"""
When a new ticket is acquired: half of its life, INTERVAL, SIGHUP; and a one-shot's end.
"""

import time

from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.daemon import SidecarProcess
from tests.support.kdc import Kdc, run_client
from tests.support.site import SERVICE, Site
from tests.support.waiting import wait_until


def test_sixteen_second_tickets_are_replaced_at_half_their_life(brief: Site) -> None:
    daemon = brief.publish()
    first = brief.ccache.stat().st_ctime
    invalid = 0

    def renewed() -> float | None:
        nonlocal invalid
        invalid += not brief.is_valid()
        changed = brief.ccache.stat().st_ctime
        return changed if changed > first else None

    second = wait_until(renewed, "the second ticket", 15)

    assert second is not None
    assert 6 <= second - first <= 10
    assert 0 == invalid
    assert daemon.get("/readyz").status == 200


def test_interval_is_kept_where_it_is_shorter(here: Site) -> None:
    daemon = here.publish(INTERVAL="1s", KERBEROS_JITTER="0")
    before = here.kdc.requests()

    wait_until(lambda: here.kdc.requests() >= before + 3, "three more tickets", 10)

    assert daemon.metrics()['sidecar_cycles_total{result="changed",sidecar="kerberos"}'] >= 3


def test_a_restart_keeps_a_fresh_ticket_or_takes_a_new_one_and_is_ready_at_once(
    here: Site,
) -> None:
    here.publish().terminate()

    daemon = here.start()

    daemon.wait_until_ready(5)
    assert here.is_valid()


def test_sighup_takes_a_ticket_now(here: Site) -> None:
    daemon = here.publish()
    before, issued = here.ccache.read_bytes(), here.kdc.requests()

    acquired = here.refresh(daemon)

    assert "asked" == acquired["cause"]
    assert before != here.ccache.read_bytes()
    assert issued + 1 == here.kdc.requests()


def test_a_ccache_that_was_removed_or_damaged_is_created_again(here: Site) -> None:
    daemon = here.publish(INTERVAL="1s")

    here.ccache.unlink()
    wait_until(here.is_valid, "it is back")
    here.ccache.write_bytes(b"\x05\x04 damaged")
    wait_until(here.is_valid, "it is whole again")

    assert daemon.get("/readyz").status == 200


def test_the_published_ccache_is_a_plain_one_that_only_the_group_may_read(here: Site) -> None:
    here.publish()

    listing = run_client(["klist", "-C", "-f"], here.config, here.ccache).stdout
    assert "0640" == here.mode()
    assert f"Default principal: {here.principal}" in listing
    assert "refresh_time" not in listing
    assert b"refresh_time" not in here.ccache.read_bytes()
    assert [] == here.leftovers()


def test_a_service_accepts_the_ticket(here: Site) -> None:
    service = here.kdc.add_principal(f"{SERVICE}{here.principal.partition('@')[0]}")
    keytab = here.kdc.write_keytab(here.folder / "service.keytab", service)
    here.publish()

    done = run_client(["kvno", "-k", str(keytab), service], here.config, here.ccache)

    assert 0 == done.returncode, done.stderr
    assert "keytab entry valid" in done.stdout


def one_shot(site: Site, deadline: str = "30s") -> SidecarProcess:
    return site.start(KERBEROS_ONE_SHOT="true", KERBEROS_ONE_SHOT_DEADLINE=deadline)


def test_a_one_shot_ends_with_its_first_ticket_and_binds_no_port(here: Site) -> None:
    daemon = one_shot(here)

    ended = daemon.wait_for_exit()

    assert 0 == ended.code, daemon.log()
    assert here.is_valid()
    assert [] == daemon.find_events("http_listening")
    assert [] == here.leftovers()


def test_a_one_shot_gives_up_at_its_deadline(here: Site, running_kdc: Kdc) -> None:
    running_kdc.stop()

    daemon = one_shot(here, "2s")

    assert 3 == daemon.wait_for_exit().code
    gave_up = daemon.find_events("sidecar_gave_up")[0]
    assert "one_shot_deadline" == gave_up["reason"]
    assert "kdc_unreachable" in gave_up["error"]
    assert gave_up["advice"]


def test_a_one_shot_gives_up_at_its_deadline_while_the_kdc_hangs(
    here: Site, running_kdc: Kdc
) -> None:
    running_kdc.hang()

    daemon = one_shot(here, "2s")

    assert 3 == daemon.wait_for_exit().code
    assert not here.ccache.exists()
    assert [] == here.leftovers()


def test_lifetime_and_flags_are_what_krb5_conf_says(make_site: MakeSite) -> None:
    site = make_site("1d")
    site.configure(ticket_lifetime="3h", forwardable="true")

    site.publish()

    flags = run_client(["klist", "-f"], site.config, site.ccache).stdout
    assert abs(site.expiry() - time.time() - 3 * 3600) < 60
    assert "Flags: F" in flags
