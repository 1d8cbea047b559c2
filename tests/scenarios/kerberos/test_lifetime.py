"""When a new ticket is acquired, and when a one-shot exits."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.kerberos.kdc import Kdc, run_client
from tests.support.kerberos.site import SERVICE, Site
from tests.support.machine.clocks import libfaketime
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
    """Some agents write a Secret's files again and again; the kubelet swaps a link, `..data`."""
    versions = [here.keytab.parent / f"..{number}" for number in range(2)]
    for folder in versions:
        folder.mkdir()
        (folder / "airflow.keytab").write_bytes(here.keytab.read_bytes())
    swapped, link = 0, here.keytab.parent / "..data"
    link.symlink_to(versions[0])
    here.keytab.unlink()
    here.keytab.symlink_to("..data/airflow.keytab")
    daemon = here.publish()

    def swap() -> bool:
        nonlocal swapped
        swapped += 1
        link.with_name("..new").symlink_to(versions[swapped % 2])
        os.replace(link.with_name("..new"), link)
        return swapped > 200

    wait_until(swap, "it was swapped often", 60, step_seconds=0.05)
    assert 1 == len(daemon.find_events("ticket_acquired"))
    here.kdc.write_keytab(versions[1 - swapped % 2] / "airflow.keytab", here.principal)
    swap()

    daemon.wait_for_event("ticket_acquired", 60, cause="keytab_changed")


@pytest.mark.parametrize("step", ["+5h", "-5h"])
def test_a_clock_that_is_set_by_hours_brings_a_new_ticket(here: Site, step: str) -> None:
    """Consumers add the KDC's offset in the ccache to the node's clock."""
    file = here.folder / "clock"
    file.write_text("+0s")
    clock = {
        "LD_PRELOAD": str(libfaketime()),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    daemon = here.publish(**clock)

    file.write_text(step)
    acquired = daemon.wait_for_event("ticket_acquired", 60, cause="clock_set")

    assert 200 == daemon.get("/readyz").status, acquired
    assert 0 == run_client(["klist", "-s"], here.config, here.ccache, **clock).returncode


def test_publishes_a_plain_ccache_that_only_owner_and_group_can_read(here: Site) -> None:
    service = here.kdc.add_principal(f"{SERVICE}{here.principal.partition('@')[0]}")
    keytab = here.kdc.write_keytab(here.folder / "service.keytab", service)
    daemon = here.publish(INTERVAL=None, AIRFLOW__KERBEROS__REINIT_FREQUENCY="600")

    listing = run_client(["klist", "-C", "-f"], here.config, here.ccache).stdout
    assert "0640" == here.mode()
    assert f"Default principal: {here.principal}" in listing
    assert "refresh_time" not in listing
    assert [] == here.leftovers()
    done = run_client(["kvno", "-k", str(keytab), service], here.config, here.ccache)
    assert (0, True) == (done.returncode, "keytab entry valid" in done.stdout), done.stderr
    shown = daemon.status()["settings"]
    assert "600" == shown["AIRFLOW__KERBEROS__REINIT_FREQUENCY"]
    assert "INTERVAL" not in shown


def test_many_tickets_leak_no_descriptor_or_thread(here: Site) -> None:
    daemon = here.publish()
    here.refresh(daemon)

    def counted() -> list[int]:
        return [len(list(Path(f"/proc/{daemon.pid}/{kind}").iterdir())) for kind in ("fd", "task")]

    before = counted()
    for _ in range(20):
        here.refresh(daemon)

    wait_until(lambda: counted() <= before, f"no more than {before} descriptors and threads")


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
    assert [] == here.leftovers()
    assert not here.ccache.exists()
