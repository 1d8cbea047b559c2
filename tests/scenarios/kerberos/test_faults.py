"""Each fault of keytab, account or clock has its own reason; the ticket stays."""

import os
import re
import shutil
import signal
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import Plant
from tests.scenarios.kerberos.conftest import MakeSite
from tests.scenarios.kerberos.test_secrets import child_of
from tests.support.kerberos.formats import entry, keytab
from tests.support.kerberos.kdc import Kdc
from tests.support.kerberos.site import Site, assert_tells, failure, several
from tests.support.waiting import wait_until

Fault = Callable[[Site], object]


def be(kind: Plant) -> Fault:
    """As KERBEROS_KEYTAB names a folder, or the kubelet makes one for a subPath."""
    return lambda site: (site.keytab.unlink(), kind(site.keytab))


def change_keytab(change: Callable[[bytes], bytes]) -> Fault:
    return lambda site: site.keytab.write_bytes(change(site.keytab.read_bytes()))


def name_another_principal(site: Site) -> None:
    site.keytab.unlink()
    site.kdc.write_keytab(
        site.keytab, site.kdc.add_principal(f"other-{site.name}")
    ).chmod(0o644)


def keep_one_forbidden_key(site: Site) -> None:
    site.keytab.write_bytes(keytab(entry(site.name, site.kdc.realm, enctype=17)))
    site.configure(permitted_enctypes="aes256-cts")
    site.kdc.kadmin(f"modprinc +requires_preauth {site.principal}")


def modify(flags: str) -> Fault:
    return lambda site: site.kdc.kadmin(f"modprinc {flags} {site.principal}")


def configure(old: str, new: str) -> Fault:
    return lambda site: site.config.write_text(
        site.config.read_text().replace(old, new)
    )


def make_a_pipe(site: Site) -> None:
    site.config.unlink()
    os.mkfifo(site.config)


def include_a_pipe(site: Site) -> None:
    """As on a volume that hangs, libkrb5 never reads it to its end."""
    pipe = site.folder / "pipe"
    os.mkfifo(pipe)
    site.config.write_text(f"include {pipe}\n{site.config.read_text()}")


def krbtgt(site: Site) -> str:
    return f"krbtgt/{site.kdc.realm}@{site.kdc.realm}"


def set_the_kdcs_clock(offset_seconds: int, **libdefaults: str) -> Fault:
    """Let libkrb5 compare the clocks; it usually adopts the KDC's."""

    def fault(site: Site) -> None:
        site.kdc.stop()
        site.kdc.start(offset_seconds)
        site.kdc.kadmin(f"modprinc -maxlife 60s {site.principal}")
        site.configure(kdc_timesync="0", **libdefaults)

    return fault


# Reason, fault, and what the error quotes of krb5.conf or of the KDC's answer.
Row = tuple[str, Fault, list[str]]
KEYTABS: list[Row] = [
    ("keytab_missing", lambda site: site.keytab.unlink(), []),
    ("keytab_missing", lambda site: shutil.rmtree(site.keytab.parent), []),
    ("keytab_unreadable", lambda site: site.keytab.chmod(0o600), ["as uid 50000"]),
    ("keytab_missing", be(Path.mkdir), ["not a regular file"]),
    ("keytab_missing", be(os.mkfifo), ["not a regular file"]),
    ("keytab_empty", lambda site: site.keytab.write_bytes(keytab()), []),
    ("keytab_truncated", change_keytab(lambda content: content[:-20]), ["after"]),
    ("keytab_garbage", change_keytab(b64encode), ["is not a keytab"]),
    ("principal_absent", name_another_principal, []),
    (
        "realm_absent",
        lambda site: site.keytab.write_bytes(keytab(entry(site.name, "OTHER.TEST"))),
        ["@OTHER.TEST"],
    ),
]
ACCOUNTS: list[Row] = [
    (
        "keytab_stale",
        lambda site: site.kdc.kadmin(f"cpw -randkey {site.principal}"),
        [],
    ),
    ("password_expired", modify("-pwexpire yesterday"), []),
    ("principal_expired", modify("-expire yesterday"), []),
    ("principal_disabled", modify("-allow_tix"), []),
    (
        "principal_unknown",
        lambda site: site.kdc.kadmin(f"delprinc -force {site.principal}"),
        [],
    ),
    ("preauth_unsupported", modify("+requires_hwauth"), ["it offers PA-"]),
]
CLOCKS: list[Row] = [
    (
        "kdc_refused",
        lambda site: site.kdc.kadmin(f"modprinc -allow_tix {krbtgt(site)}"),
        ["the KDC refused"],
    ),
    ("clock_skew", set_the_kdcs_clock(600), []),
    (
        "ticket_unusable",
        set_the_kdcs_clock(-600, clockskew="3600"),
        ["contains a ticket that expired 5"],
    ),
]
CONFIGS: list[Row] = [
    ("config_missing", lambda site: site.config.unlink(), []),
    ("config_missing", make_a_pipe, []),
    ("request_unsent", include_a_pipe, []),
    (
        "config_invalid",
        configure("[libdefaults]", "[libdefaults"),
        ["line 1: [libd"],
    ),
    ("realm_unknown", configure("  EXAMPLE.TEST = {", "  OTHER.TEST = {"), []),
    ("config_invalid", configure("\n  }", "  # note\n  }"), ["  # note"]),
    (
        "config_invalid",
        configure("    kdc = ", "    kdc = http://"),
        [": kdc = http://127.0.0.1:"],
    ),
    # without krb5-k5tls
    ("kdc_unreachable", configure("kdc = ", "kdc = https://"), [": kdc = https://"]),
    (
        "config_invalid",
        configure("[realms]", "  ticket_lifetime = 1 fortnight\n[realms]"),
        ["line 7: ticket_lifetime = 1 fortnight"],
    ),
    (
        "config_invalid",
        configure("[libdefaults]", "module /x:y\n[libdefaults]"),
        ["line 1: module /x:y"],
    ),
    (
        "keytab_enctypes_unusable",
        keep_one_forbidden_key,
        ["aes128-cts-hmac-sha1-96", ": permitted_enctypes = aes256-cts"],
    ),
]


@pytest.mark.parametrize(
    "faults",
    [KEYTABS, ACCOUNTS, CLOCKS, CONFIGS],
    ids=["keytab", "account", "kdc", "krb5.conf"],
)
def test_keeps_the_ticket_during_each_later_fault_and_recovers(
    here: Site, faults: list[Row]
) -> None:
    here.ccache.parent.chmod(0o777)
    daemon = here.publish(program=here.as_user(50000), KERBEROS_TIMEOUT="8s")
    for reason, fault, quoted in faults:
        seen = len(daemon.events)
        fault(here)
        daemon.sighup()
        failed = daemon.wait_for_event("cycle_failed", 30, after=seen, reason=reason)
        before = here.ccache.read_bytes()

        assert_tells(daemon, reason, ready=True)
        about = (here.principal, str(here.keytab), "krb5", "clocks")
        assert any(word in failed["error"] for word in about), failed
        assert [] == [text for text in quoted if text not in failed["error"]]
        assert before == here.ccache.read_bytes()
        fix(here)
        daemon.sighup()
        wait_until(
            lambda: daemon.get("/readyz").json()["reason"] is None, "it recovers", 60
        )


def fix(site: Site) -> None:
    """Restore a valid krb5.conf, principal, keytab and KDC."""
    site.configure()
    site.kdc.kadmin(f"modprinc +allow_tix {krbtgt(site)}")
    if site.kdc.clock_offset_seconds:
        site.kdc.stop()
        site.kdc.start()
    if site.keytab.is_dir():
        site.keytab.rmdir()
    if site.principal not in site.kdc.kadmin("listprincs").split("\n"):
        site.kdc.add_principal(site.name)
    never = (
        "-expire never -pwexpire never -maxlife 1d "
        "+allow_tix -requires_hwauth -requires_preauth"
    )
    site.kdc.kadmin(f"modprinc {never} {site.principal}")
    fresh = site.kdc.write_keytab(site.folder / "fresh", site.principal)
    site.keytab.parent.mkdir(exist_ok=True)
    fresh.chmod(0o640)
    os.replace(fresh, site.keytab)


def test_an_exception_that_nobody_expected_is_a_bug_with_its_traceback(
    here: Site,
) -> None:
    (here.folder / "sitecustomize.py").write_text(
        "import random, socket; random.random = socket.getfqdn = None"
    )
    daemon = here.start(PYTHONPATH=str(here.folder))

    failed = failure(daemon)
    crashed = here.start(PYTHONPATH=str(here.folder), KERBEROS_PRINCIPAL="a/_HOST@R")

    assert "bug" == failed["reason"], failed
    assert "TypeError: 'NoneType'" in str(failed["exception"]), failed
    assert_tells(daemon, "bug", ready=True)
    assert 1 == crashed.wait_for_exit().code, crashed.log()
    (event,) = crashed.find_events("sidecar_crashed")
    assert "TypeError: 'NoneType'" in str(event["exception"]), event


@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGKILL, "memory_limit"), (signal.SIGTERM, "krb5_failed")],
)
def test_the_end_of_the_process_that_asks_is_named(
    here: Site, running_kdc: Kdc, number: signal.Signals, reason: str
) -> None:
    """Only the kernel kills it: the container has too little memory."""
    running_kdc.hang()
    daemon = here.start()
    os.kill(int(wait_until(lambda: child_of(daemon), "a child asks")), number)

    failed = failure(daemon)

    assert reason == failed["reason"], failed
    assert f"ended with signal {number}: " in failed["error"], failed
    assert_tells(daemon, reason, ready=False)


def test_check_goes_on_after_each_fault_and_publishes_nothing(here: Site) -> None:
    """No KDC is asked for whom a fault is known, and the others all the same."""
    asked = here.kdc.requests()
    faults = (
        {"ccache": f"{here.ccache}-1", "keytab": here.folder / "absent"},
        {"ccache": here.folder / "nowhere" / "2"},
        {"ccache": here.ccache},
    )
    settings = several(*({"principal": here.principal, **one} for one in faults))

    checked = here.start("check", **settings)

    assert 3 == checked.wait_for_exit().code
    said = checked.log()
    faults_named = re.findall(r"FAIL +\S+ +(\w+): ", said)
    assert ["keytab_missing", "ccache_missing"] == faults_named, said
    assert 2 == said.count(f"ok    keytab         {here.keytab}: "), said
    assert "issued a ticket, valid until" in said, said
    assert asked + 1 == here.kdc.requests()
    here.config.unlink()
    checked = here.start("check", **settings)
    assert 3 == checked.wait_for_exit().code
    for reason in ("config_missing", *faults_named):
        assert reason in checked.log(), checked.log()
    assert [] == os.listdir(here.ccache.parent)


def test_readiness_ends_when_the_ticket_expires_by_the_kdcs_clock(
    make_site: MakeSite, running_kdc: Kdc
) -> None:
    """
    libkrb5 adopts the KDC's clock, which is ten minutes ahead, and so is the end of
    tickets.
    """
    site = make_site("8s")
    ahead_seconds = 600
    running_kdc.stop()
    running_kdc.start(clock_offset_seconds=ahead_seconds)

    daemon = site.publish()

    assert (
        abs(site.sample(daemon, "kerberos_clock_offset_seconds") - ahead_seconds)
        < ahead_seconds / 2
    )
    assert site.is_valid()
    assert daemon.get("/readyz").status == 200
    assert site.expiry() > time.time() + ahead_seconds / 2
    running_kdc.stop()
    wait_until(
        lambda: daemon.get("/readyz").status == 503, "readiness ends at the expiry", 60
    )
