"""A stale keytab never locks the account, although the KDC enforces a lockout policy."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import Counts
from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.kerberos.kdc import Kdc
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


@pytest.mark.timeout(1_200)
def test_a_day_of_restarts_with_a_stale_keytab_never_locks_the_account(
    make_site: MakeSite, running_kdc: Kdc, counts: Counts
) -> None:
    """
    The same key is tried once in a window, however often the container restarts; a KDC that counts
    over two windows would lock the account. SIGHUP tries it once more. A new keytab is tried
    immediately, and an old one is used again once the KDC accepts it again.
    """
    site, chance = make_site("1d"), random.Random(5)
    with policy(running_kdc, site):
        make_stale(site)
        settings = {"KERBEROS_LOCKOUT_WINDOW": f"{WINDOW_SECONDS}s"}
        began = time.monotonic()
        ends_at = began + counts.lockout_windows * (WINDOW_SECONDS + 2)
        while time.monotonic() < ends_at:
            with site.sidecar(**settings) as daemon:
                failure(daemon)
                stops_at = time.monotonic() + chance.expovariate(1 / (2 * WINDOW_SECONDS))
                time.sleep(max(0.0, min(stops_at, ends_at) - time.monotonic()))
        passed_seconds = time.monotonic() - began

        tried = refusals(running_kdc, site)
        least_seconds = (tried - 1) * WINDOW_SECONDS
        assert tried
        assert least_seconds <= passed_seconds
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


def test_sighup_and_a_check_do_not_add_up_to_a_lockout(here: Site, running_kdc: Kdc) -> None:
    """SIGHUP tries a refused key once more; `check` and a restart do not."""
    with policy(running_kdc, here):
        make_stale(here)
        with here.sidecar() as daemon:
            assert "keytab_stale" == failure(daemon)["reason"]
            assert 1 == refusals(running_kdc, here)
            daemon.sighup()
            wait_until(lambda: 2 == refusals(running_kdc, here), "SIGHUP tries it once more")
        with here.sidecar() as daemon:
            assert "is not tried again before" in failure(daemon)["error"]
        checked = here.start("check")

        assert 3 == checked.wait_for_exit(60).code
        assert "keytab_stale" in checked.log()
        assert 2 == refusals(running_kdc, here)


def test_a_refusal_that_cannot_be_noted_on_the_volume_counts_as_well(
    here: Site, running_kdc: Kdc
) -> None:
    """As in a folder with another uid's note and the sticky bit: the process remembers it."""
    (here.ccache.parent / f".{here.ccache.name}.refused").mkdir()
    with policy(running_kdc, here):
        make_stale(here)
        daemon = here.start()
        failure(daemon)
        time.sleep(4)  # four tries, were it retried with backoff

        assert 1 == refusals(running_kdc, here)
        daemon.sighup()
        wait_until(lambda: 2 == refusals(running_kdc, here), "SIGHUP tries it once more")


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
