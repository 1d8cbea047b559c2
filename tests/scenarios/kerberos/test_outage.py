"""The KDC is down or hangs: the last ticket stays, and the reason is reported."""

import os
import time
from collections.abc import Callable

import pytest

from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.kerberos.kdc import Kdc
from tests.support.kerberos.kdc_proxy import KdcProxy
from tests.support.kerberos.site import Site, assert_tells, failure
from tests.support.waiting import wait_until


def test_waits_for_a_kdc_that_is_down_and_keeps_the_ticket_in_a_later_outage(
    here: Site, running_kdc: Kdc
) -> None:
    running_kdc.stop()
    daemon = here.start()

    failed = failure(daemon)

    assert "kdc_unreachable" == failed["reason"]
    assert here.kdc.realm in failed["error"]
    assert failed["advice"]
    assert_tells(daemon, "kdc_unreachable", ready=False)
    assert not here.ccache.exists()
    running_kdc.start()
    daemon.wait_until_ready(60)
    assert here.is_valid()
    before = here.ccache.read_bytes()
    running_kdc.stop()

    failed = here.refresh(daemon)

    assert "kdc_unreachable" == failed["reason"]
    assert before == here.ccache.read_bytes()
    assert_tells(daemon, "kdc_unreachable", ready=True)
    running_kdc.start()
    wait_until(lambda: daemon.get("/readyz").json()["reason"] is None, "no reason is left", 60)
    assert before != here.ccache.read_bytes()
    assert [] == here.leftovers()


def test_is_ready_until_the_ticket_expires_and_again_when_the_kdc_is_back(
    make_site: MakeSite, running_kdc: Kdc
) -> None:
    site = make_site("6s")
    daemon = site.publish()
    expiry = site.expiry()
    running_kdc.stop()

    while time.time() < expiry:
        status = daemon.get("/readyz").status
        assert 200 == status or time.time() >= expiry
        time.sleep(0.1)
    wait_until(lambda: daemon.get("/readyz").status == 503, "/readyz reports the expiry")

    assert time.time() >= int(expiry)
    wait_until(lambda: not site.is_valid(), "klist reports the expiry")
    assert daemon.get("/healthz").status == 200
    assert daemon.get("/readyz").json()["reason"] == "kdc_unreachable"
    running_kdc.start()
    daemon.wait_until_ready()
    assert site.is_valid()


def test_the_remaining_life_of_the_ticket_limits_the_backoff_after_many_failures(
    make_site: MakeSite, running_kdc: Kdc
) -> None:
    site = make_site("1m")
    daemon = site.publish()
    expiry = site.expiry()
    running_kdc.stop()
    for _ in range(8):
        asked_at = time.time()
        failed = site.refresh(daemon)
        assert "kdc_unreachable" == failed["reason"]
        assert failed["retry_in_seconds"] < (expiry - asked_at) / 3
    running_kdc.start()

    wait_until(lambda: site.expiry() > expiry, "a new ticket")


def test_a_one_shot_succeeds_with_a_valid_ticket_while_the_kdc_is_down(
    here: Site, running_kdc: Kdc
) -> None:
    """An init container must not block its pod when another pod keeps the ccache fresh."""
    here.publish().kill()
    before = here.ccache.read_bytes()
    running_kdc.stop()

    daemon = here.start(KERBEROS_ONE_SHOT="true")

    assert 0 == daemon.wait_for_exit().code
    (kept,) = daemon.find_events("ticket_kept")
    assert ("kdc_unreachable", "warning") == (kept["reason"], kept["level"])
    assert before == here.ccache.read_bytes()


AWAY: dict[str, Callable[[Site, Kdc], object]] = {
    "kdc_unreachable": lambda site, kdc: kdc.stop(),
    "keytab_missing": lambda site, kdc: site.keytab.unlink(),
    "config_missing": lambda site, kdc: site.config.unlink(),
    "keytab_stale": lambda site, kdc: kdc.kadmin(f"cpw -randkey {site.principal}"),
}


@pytest.mark.parametrize("reason", AWAY)
def test_a_restart_stays_ready_if_the_system_refused_the_folders_group(
    here: Site, running_kdc: Kdc, reason: str
) -> None:
    """As in an emptyDir without fsGroup, or on an EFS access point, which maps ids."""
    here.ccache.parent.chmod(0o777)
    user = here.as_user(1001, 1001)
    daemon = here.publish(program=user)
    assert 1001 == here.ccache.stat().st_gid != here.ccache.parent.stat().st_gid
    daemon.kill()
    AWAY[reason](here, running_kdc)

    for _ in range(3):  # the third start asks no KDC for keys that it refused twice
        with here.sidecar(program=user) as daemon:
            failure(daemon)
            assert_tells(daemon, reason, ready=True)
    if reason == "kdc_unreachable":
        daemon = here.start(program=user, KERBEROS_ONE_SHOT="true")
        assert 0 == daemon.wait_for_exit().code
        assert 1 == len(daemon.find_events("ticket_kept"))
    check = here.start("check", program=user)
    check.wait_for_exit()
    assert f"ok    {'':14} it is valid until" in check.log()


@pytest.mark.parametrize("spoil", ["another's", "closed", "none"])
def test_a_one_shot_fails_without_a_kdc_when_no_usable_ticket_exists(
    here: Site, running_kdc: Kdc, spoil: str
) -> None:
    here.publish().kill()
    principal = here.principal
    if spoil == "another's":
        principal = here.kdc.add_principal("another")
        here.kdc.write_keytab(here.keytab, principal)
    elif spoil == "closed":
        here.ccache.chmod(0o600)
    else:
        here.ccache.unlink()
    running_kdc.stop()

    daemon = here.start(
        KERBEROS_ONE_SHOT="true", KERBEROS_ONE_SHOT_DEADLINE="2s", KERBEROS_PRINCIPAL=principal
    )

    assert 3 == daemon.wait_for_exit().code


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_answers_probes_and_exits_cleanly_on_sigterm_while_the_kdc_hangs(
    here: Site, proxy: KdcProxy, transport: str
) -> None:
    here.configure(proxy.address, udp_preference_limit="1" if transport == "tcp" else "1465")
    daemon = here.publish()
    before, seen = here.ccache.read_bytes(), proxy.requests
    proxy.behavior = "silent"
    daemon.sighup()
    wait_until(lambda: proxy.requests > seen, "a request hangs")

    health = {daemon.get("/healthz").status for _ in range(20)}
    ended = daemon.terminate()

    assert ({200}, 0) == (health, ended.code)
    assert [] == daemon.find_events("cycle_failed"), "the request no longer hangs"
    assert before == here.ccache.read_bytes()
    assert [] == here.leftovers()
    assert [] == os.listdir(here.folder / "tmp")


def test_ends_a_request_at_its_deadline_and_recovers_when_the_kdc_answers(
    here: Site, running_kdc: Kdc
) -> None:
    daemon = here.publish(KERBEROS_TIMEOUT="2s")
    before = here.ccache.read_bytes()
    running_kdc.hang()
    for _ in range(2):
        after = len(daemon.events)
        daemon.sighup()
        failed = failure(daemon, after)
        assert ("kdc_hung", True) == (failed["reason"], bool(failed["advice"]))
    assert_tells(daemon, "kdc_hung", ready=True)
    assert before == here.ccache.read_bytes()
    assert [] == here.leftovers()

    running_kdc.resume()

    wait_until(lambda: daemon.get("/readyz").json()["reason"] is None, "no reason is left")
    assert before != here.ccache.read_bytes()
    assert daemon.get("/healthz").status == 200
