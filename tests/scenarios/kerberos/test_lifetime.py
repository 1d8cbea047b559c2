"""
When a new ticket is acquired: half of its life, INTERVAL, SIGHUP; and a one-shot's end.
"""

import subprocess
import time

from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.kdc import run_client
from tests.support.pipes import unread_pipe
from tests.support.site import SERVICE, Site
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

    wait_until(renewed, "the second ticket", 30)

    assert site.ccache.stat().st_ctime - first >= 3
    assert "half_life" == daemon.wait_for_event("ticket_acquired", cause="half_life")["cause"]
    assert 0 == invalid
    assert daemon.get("/readyz").status == 200


def test_a_log_that_nobody_reads_costs_no_ticket(make_site: MakeSite) -> None:
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
                wait_until(lambda: site.ccache.stat().st_ctime > before, "another one", 30)  # noqa: B023
                assert site.is_valid()
            began = time.monotonic()
            process.terminate()
            code = process.wait(15)
            seconds = time.monotonic() - began
        finally:
            process.kill()

    assert 0 == code
    assert seconds < 3


def test_the_published_ccache_is_a_plain_one_that_only_the_group_may_read(here: Site) -> None:
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
