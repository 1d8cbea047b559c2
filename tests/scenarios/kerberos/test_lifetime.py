"""When a new ticket is acquired: at half of its life and on SIGHUP; when a one-shot exits."""

import os
import subprocess
from collections.abc import Callable

import pytest

from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.kerberos.kdc import Kdc, run_client
from tests.support.kerberos.site import SERVICE, Site
from tests.support.machine.pipes import unread_pipe
from tests.support.waiting import wait_until


def test_short_tickets_are_replaced_at_half_their_life(make_site: MakeSite) -> None:
    site = make_site("8s")
    daemon = site.publish()
    first = site.ccache.stat().st_ctime
    invalid = 0

    def renewed() -> bool:
        nonlocal invalid
        invalid += not site.is_valid()
        return site.ccache.stat().st_ctime > first

    wait_until(renewed, "the second ticket")

    assert "half_life" == daemon.wait_for_event("ticket_acquired", cause="half_life")["cause"]
    assert 0 == invalid
    assert daemon.get("/readyz").status == 200


def test_a_blocked_stdout_delays_neither_tickets_nor_sigterm(make_site: MakeSite) -> None:
    site = make_site("8s")
    daemon = site.sidecar()
    daemon.home.mkdir(parents=True)
    with (
        unread_pipe() as pipe,
        subprocess.Popen(
            [daemon.program], env=daemon.environment, cwd="/", stdout=pipe.writer
        ) as process,
    ):
        try:
            wait_until(site.is_valid, "the first ticket", 60)
            pipe.fill()
            for _ in range(2):
                before = site.ccache.stat().st_ctime
                wait_until(lambda: site.ccache.stat().st_ctime > before, "a new ticket", 30)  # noqa: B023
                assert site.is_valid()
            process.terminate()

            assert 0 == process.wait(15)
        finally:
            process.kill()


def test_is_ready_after_a_restart_and_acquires_a_new_ticket_on_sighup(here: Site) -> None:
    here.publish().terminate()
    daemon = here.start()
    daemon.wait_until_ready(60)
    assert here.is_valid()
    daemon.wait_until_synced()
    before, issued = here.ccache.read_bytes(), here.kdc.requests()

    acquired = here.refresh(daemon)

    assert "asked" == acquired["cause"]
    assert before != here.ccache.read_bytes()
    assert issued + 1 == here.kdc.requests()


def test_a_keytab_swapped_for_an_equal_one_costs_no_request(here: Site) -> None:
    """Some agents write a Secret's files again and again."""
    daemon = here.publish()
    looks, issued = 0, here.kdc.requests()
    content = here.keytab.read_bytes()

    def looked() -> bool:
        nonlocal looks
        here.keytab.with_name("new").write_bytes(content)
        os.replace(here.keytab.with_name("new"), here.keytab)
        looks += 1
        return looks > 200

    wait_until(looked, "it was swapped often", 60, step_seconds=0.05)
    other = here.kdc.write_keytab(here.folder / "other", here.principal)
    after = len(daemon.events)
    os.replace(other, here.keytab)

    acquired = daemon.wait_for_event("ticket_acquired", 60, after=after)

    assert "keytab_changed" == acquired["cause"]
    assert 2 == len(daemon.find_events("ticket_acquired"))
    assert issued < here.kdc.requests()


def test_publishes_a_plain_ccache_that_only_owner_and_group_can_read(here: Site) -> None:
    service = here.kdc.add_principal(f"{SERVICE}{here.principal.partition('@')[0]}")
    keytab = here.kdc.write_keytab(here.folder / "service.keytab", service)
    here.publish()

    listing = run_client(["klist", "-C", "-f"], here.config, here.ccache).stdout
    assert "0640" == here.mode()
    assert f"Default principal: {here.principal}" in listing
    assert "refresh_time" not in listing
    assert b"refresh_time" not in here.ccache.read_bytes()
    assert [] == here.leftovers()
    done = run_client(["kvno", "-k", str(keytab), service], here.config, here.ccache)
    assert (0, True) == (done.returncode, "keytab entry valid" in done.stdout), done.stderr


def test_the_status_shows_an_interval_under_the_charts_name(here: Site) -> None:
    daemon = here.publish(INTERVAL=None, AIRFLOW__KERBEROS__REINIT_FREQUENCY="600")

    shown = daemon.status()["settings"]
    assert "600" == shown["AIRFLOW__KERBEROS__REINIT_FREQUENCY"]
    assert str(here.ccache) == shown["KERBEROS_CCACHE"]
    assert "INTERVAL" not in shown


def test_a_one_shot_exits_after_its_first_ticket_and_binds_no_port(here: Site) -> None:
    daemon = here.start(KERBEROS_ONE_SHOT="true")

    assert 0 == daemon.wait_for_exit().code, daemon.log()
    assert here.is_valid()
    assert [] == daemon.find_events("http_listening")
    assert [] == here.leftovers()


@pytest.mark.parametrize("trouble", [Kdc.stop, Kdc.hang])
def test_a_one_shot_gives_up_at_its_deadline(
    here: Site, running_kdc: Kdc, trouble: Callable[[Kdc], None]
) -> None:
    trouble(running_kdc)

    daemon = here.start(KERBEROS_ONE_SHOT="true", KERBEROS_ONE_SHOT_DEADLINE="2s")

    assert 3 == daemon.wait_for_exit().code
    gave_up = daemon.find_events("sidecar_gave_up")[0]
    assert "one_shot_deadline" == gave_up["reason"]
    assert trouble == Kdc.hang or "kdc_unreachable" in gave_up["error"]
    assert gave_up["advice"]
    assert not here.ccache.exists()
    assert [] == here.leftovers()
