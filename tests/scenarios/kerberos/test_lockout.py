"""
A stale keytab never locks the account, although the KDC enforces a lockout policy.
"""

import os
from functools import partial

import pytest

from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.kerberos.formats import ccache, entry, tgt
from tests.support.kerberos.kdc_proxy import KdcProxy
from tests.support.kerberos.site import Site, failure, several, with_ccaches
from tests.support.waiting import wait_until

MOST_FAILURES = 5
# Seconds instead of half an hour: the policy can be shortened, the KDC's clock not sped
# up.
WINDOW_SECONDS = 2


def limit_failures(site: Site) -> None:
    """
    Lock the account, until an administrator unlocks it, after five wrong keys in a
    window.
    """
    kdc = site.kdc
    limits = f"-maxfailure {MOST_FAILURES} -failurecountinterval {WINDOW_SECONDS}s"
    kdc.kadmin(f"addpol {limits} -lockoutduration 0 {site.name}")
    kdc.kadmin(f"modprinc -policy {site.name} +requires_preauth {site.principal}")


def refusals(site: Site, how: str = "PREAUTH_FAILED") -> int:
    """Return how often the KDC refused a key."""
    return (
        (site.kdc.folder / "kdc.log")
        .read_text(errors="replace")
        .count(f"{how}: {site.principal}")
    )


def make_stale(site: Site) -> None:
    """Change the key; setting the first password again restores it."""
    site.kdc.kadmin(f"cpw -pw first {site.principal}")
    site.keytab.unlink()
    site.kdc.copy_keys(site.keytab, site.principal)
    site.kdc.kadmin(f"cpw -pw second {site.principal}")


def test_a_refused_key_is_tried_again_after_each_window_and_used_once_accepted(
    here: Site,
) -> None:
    """
    Each process of a container that restarts waits for the rest of a window. A KDC that
    counts over two windows, or still counts a failure that is as old as its window,
    would lock the account.
    """
    settings = {"KERBEROS_LOCKOUT_WINDOW": f"{WINDOW_SECONDS}s"}
    least_seconds = WINDOW_SECONDS + 1  # a KDC's clock has whole seconds
    limit_failures(here)
    make_stale(here)
    for count in range(1, MOST_FAILURES + 2):
        with here.sidecar(**settings) as daemon:
            failed = failure(daemon)
            while "is not tried again before" in failed["error"]:
                failed = failure(daemon, after=daemon.events.index(failed) + 1)
        assert "keytab_stale" == failed["reason"], failed
        assert count == refusals(here)
        assert failed["retry_in_seconds"] > least_seconds, failed
    assert 0 == refusals(here, "LOCKED_OUT")
    here.kdc.kadmin(f"cpw -pw first {here.principal}")

    here.start(**settings).wait_for_event("ticket_acquired", 120)
    assert [] == here.leftovers(), "the KDC counts from 0"


def add_silent_primary(site: Site, proxy: KdcProxy) -> None:
    """libkrb5 asks it after each refusal, before it reports one."""
    proxy.behavior = "silent"
    site.config.write_text(
        site.config.read_text().replace(
            "    kdc", f"    primary_kdc = {proxy.address}\n    kdc"
        )
    )


@pytest.mark.parametrize("noted", ["on the volume", "behind a silent primary"])
def test_sighup_and_a_check_do_not_add_up_to_a_lockout(
    here: Site, proxy: KdcProxy, noted: str
) -> None:
    """
    SIGHUP tries a refused key once more; `check` and another uid's restart do not.
    libkrb5 may be killed at its deadline.
    """
    settings = {"KERBEROS_TIMEOUT": "3s", "KERBEROS_LOCKOUT_WINDOW": "1800"}
    if noted == "behind a silent primary":
        add_silent_primary(here, proxy)
    limit_failures(here)
    make_stale(here)
    here.ccache.parent.chmod(0o2770)
    with here.sidecar(program=here.as_user(50_000), **settings) as daemon:
        assert "keytab_stale" == failure(daemon)["reason"]
        failed = here.refresh(daemon)
        assert "keytab_stale" == failed["reason"], "SIGHUP tries it once more"
        assert daemon.get("/readyz").json()["until"], "and not before"
        # and almost a thirtieth: some of it has passed
        least_seconds = int(settings["KERBEROS_LOCKOUT_WINDOW"]) * 1.02
        assert failed["retry_in_seconds"] > least_seconds
        shown = daemon.status()["details"][str(here.ccache)]
        assert shown["next_ticket_in_seconds"] > least_seconds, shown
        assert 2 == refusals(here)
        assert 2 == len(daemon.find_events("cycle_failed"))
    with here.sidecar(program=here.as_user(60_000), **settings) as daemon:
        assert "is not tried again before" in failure(daemon)["error"]
        checked = here.start("check", **settings)

        assert 3 == checked.wait_for_exit(60).code
        assert "FAIL  KDC            keytab_stale: " in checked.log()
        assert 2 == refusals(here)
        fresh = here.kdc.copy_keys(here.folder / "fresh", here.principal)
        fresh.chmod(0o644)
        os.replace(fresh, here.keytab)
        daemon.wait_for_event("ticket_acquired")


def test_neither_a_burst_of_sighups_nor_a_neighbor_ends_the_wait_of_a_refused_key(
    here: Site,
) -> None:
    """
    The neighbor can write the folder of the ccache: it puts a folder of its own in
    place of the note, another ccache and a damaged one. SIGHUP tries the key once more.
    """
    note = here.ccache.parent / f".{here.ccache.name}.refused"
    expiry = partial(here.sample, name="kerberos_ticket_expiry_timestamp_seconds")
    limit_failures(here)
    make_stale(here)
    here.ccache.parent.chmod(0o777)
    daemon = here.start(program=here.as_user(50_000), KERBEROS_LOCKOUT_WINDOW="1800")
    failure(daemon)
    note.unlink()
    (note / "of root").mkdir(parents=True)
    here.ccache.write_bytes(ccache(tgt(1)))
    wait_until(lambda: expiry(daemon) == 1, "the other ccache is seen")
    here.ccache.write_bytes(b"\5\4")
    wait_until(lambda: expiry(daemon) == 0, "the damaged ccache is seen")

    errors = [here.refresh(daemon)["error"] for _ in range(MOST_FAILURES)]

    assert 2 == refusals(here), errors
    assert "is not tried again before" in errors[-1], errors
    assert 1 + MOST_FAILURES == len(daemon.find_events("cycle_failed"))


def test_a_remembered_refusal_is_no_further_failure(make_site: MakeSite) -> None:
    """While the ticket of another principal is replaced every few seconds."""
    site = make_site("8s")
    stale = site.kdc.add_principal(f"stale-{site.name}")
    keytab = site.kdc.write_keytab(site.folder / "keytab" / "stale", stale)
    site.kdc.kadmin(f"modprinc +requires_preauth {stale}")
    site.kdc.kadmin(f"cpw -randkey {stale}")
    daemon = site.start(
        **several(
            {"principal": site.principal, "ccache": site.ccache},
            {"principal": stale, "keytab": keytab, "ccache": f"{site.ccache}-stale"},
        ),
        KERBEROS_MAX_FAILURES="2",
    )

    wait_until(
        lambda: 3 <= len(daemon.find_events("ticket_acquired")), "it goes on", 60
    )

    assert 1 == len(daemon.find_events("cycle_failed")), daemon.log()


def test_a_refusal_outlives_a_kill_and_counts_for_each_ccache_of_the_principal(
    here: Site, proxy: KdcProxy
) -> None:
    """
    The process ends after the KDC has answered, but before libkrb5 has. The keytab has
    thousands of old keys, whose memory is no longer than that of one.
    """
    add_silent_primary(here, proxy)
    note = here.ccache.parent / f".{here.ccache.name}.refused"
    settings = with_ccaches(here, [here.ccache, here.ccache.parent / "second"])
    limit_failures(here)
    make_stale(here)
    here.keytab.write_bytes(
        here.keytab.read_bytes()
        + b"".join(
            entry(here.name, here.kdc.realm, kvno=1, key=number.to_bytes(32))
            for number in range(8_000)
        )
    )
    with here.sidecar(**settings):
        wait_until(note.exists, "the refusal is noted")
    with here.sidecar(**settings) as daemon:
        assert 2 == failure(daemon)["error"].count("is not tried again before")

    assert 1 == refusals(here)
