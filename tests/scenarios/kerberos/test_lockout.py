"""A stale keytab never locks the account, although the KDC enforces a lockout policy."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.conftest import Counts
from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.kerberos.kdc import Kdc
from tests.support.kerberos.kdc_proxy import KdcProxy
from tests.support.kerberos.site import Site, failure
from tests.support.waiting import wait_until

MOST_FAILURES = 5
# Seconds instead of half an hour: the policy can be shortened, the KDC's clock not sped up.
WINDOW_SECONDS = 3


@contextmanager
def policy(kdc: Kdc, site: Site) -> Iterator[None]:
    """Lock the account, until an administrator unlocks it, after five wrong keys in a window."""
    name = site.principal.partition("@")[0]
    limits = f"-maxfailure {MOST_FAILURES} -failurecountinterval {WINDOW_SECONDS}s"
    kdc.kadmin(f"addpol {limits} -lockoutduration 0 {name}")
    kdc.kadmin(f"modprinc -policy {name} +requires_preauth {site.principal}")
    yield
    kdc.kadmin(f"modprinc -clearpolicy {site.principal}")


def refusals(kdc: Kdc, site: Site) -> int:
    """Return how often the KDC refused a key."""
    log = (kdc.folder / "kdc.log").read_text(errors="replace")
    return log.count(f"PREAUTH_FAILED: {site.principal}")


def is_locked(kdc: Kdc, site: Site) -> bool:
    return f"LOCKED_OUT: {site.principal}" in (kdc.folder / "kdc.log").read_text()


def make_stale(site: Site) -> None:
    """Change the key; setting the first password again restores it."""
    site.kdc.kadmin(f"cpw -pw first {site.principal}")
    site.keytab.unlink()
    site.kdc.copy_keys(site.keytab, site.principal)
    site.kdc.kadmin(f"cpw -pw second {site.principal}")


def test_a_wrong_key_costs_one_failed_attempt_when_all_kdcs_are_slow(
    here: Site, running_kdc: Kdc
) -> None:
    """KDCs share their count: a wrong key sent to five of them would lock the account."""
    with policy(running_kdc, here), ExitStack() as stack:
        slow = [stack.enter_context(KdcProxy(running_kdc.port)) for _ in range(MOST_FAILURES)]
        for one in slow:
            one.behavior = "slow"
        here.configure(tuple(one.address for one in slow))
        make_stale(here)

        assert "keytab_stale" == failure(here.start(), timeout_seconds=60)["reason"]

        wait_until(lambda: all(one.relayed == one.requests for one in slow), "the KDC has them all")
        assert 1 == refusals(running_kdc, here)


@pytest.mark.timeout(1_200)
def test_a_day_of_restarts_with_a_stale_keytab_never_locks_the_account(
    make_site: MakeSite, running_kdc: Kdc, counts: Counts
) -> None:
    """
    At most two attempts fall into a window, however often the container restarts. A KDC that still
    counts the second pair when the third comes, one window later, would lock the account. A new
    keytab is tried immediately, and an old one is used again once the KDC accepts it again.
    """
    site, chance = make_site("1d"), random.Random(5)
    with policy(running_kdc, site):
        make_stale(site)
        settings = {"KERBEROS_LOCKOUT_WINDOW": f"{WINDOW_SECONDS}s"}
        ends_at = time.monotonic() + counts.lockout_windows * (WINDOW_SECONDS + 2)
        while time.monotonic() < ends_at:
            with site.sidecar(**settings) as daemon:
                failure(daemon)
                stops_at = time.monotonic() + chance.expovariate(1 / (3 * WINDOW_SECONDS))
                while time.monotonic() < min(stops_at, ends_at):
                    time.sleep(chance.random() * WINDOW_SECONDS / 2)
                    daemon.sighup()

        print(f"{refusals(running_kdc, site)} tries in {counts.lockout_windows} windows")
        assert not is_locked(running_kdc, site)

        daemon = site.start(**settings)
        failure(daemon)
        fresh = site.kdc.copy_keys(site.folder / "fresh", site.principal)
        stale = site.keytab.read_bytes()
        os.replace(fresh, site.keytab)
        daemon.wait_until_ready(60)
        after = len(daemon.events)
        site.keytab.write_bytes(stale)
        failure(daemon, after)
        site.kdc.kadmin(f"cpw -pw first {site.principal}")
        daemon.wait_for_event("ticket_acquired", 120, after=after)
        assert not is_locked(running_kdc, site)


def test_repeated_kinit_with_a_stale_keytab_locks_the_account(here: Site, running_kdc: Kdc) -> None:
    """The tests above would prove nothing if this policy did not lock the account."""
    with policy(running_kdc, here):
        make_stale(here)
        environment = {"PATH": os.environ["PATH"], "KRB5_CONFIG": str(here.config)}
        kinit = ["kinit", "-kt", str(here.keytab), "-c", str(here.folder / "cc"), here.principal]

        def try_it() -> bool:
            subprocess.run(kinit, env=environment, capture_output=True, check=False)
            return is_locked(running_kdc, here)

        wait_until(try_it, "it is locked")
        assert MOST_FAILURES == refusals(running_kdc, here)
