"""
Every fault of keytab, account and clock has its own name, at start and with a ticket there.
"""

import os
import shutil
import time
from collections.abc import Callable

import pytest

from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.daemon import SidecarProcess
from tests.support.kdc import Kdc
from tests.support.site import Site, assert_tells, failure
from tests.support.waiting import wait_until

Fault = Callable[[Site], object]


def truncate(site: Site) -> None:
    content = site.keytab.read_bytes()
    site.keytab.write_bytes(content[: len(content) // 3])


def make_stale(site: Site) -> None:
    """The KDC has newer keys than our keytab."""
    site.kdc.write_keytab(site.folder / "elsewhere", site.principal)


def name_another_principal(site: Site) -> None:
    site.keytab.unlink()
    other = site.kdc.add_principal(f"other-{site.principal.partition('@')[0]}")
    site.kdc.write_keytab(site.keytab, other)


def modify(flags: str) -> Fault:
    return lambda site: site.kdc.kadmin(f"modprinc {flags} {site.principal}")


def configure(spoil: Callable[[str], str]) -> Fault:
    return lambda site: site.config.write_text(spoil(site.config.read_text()))


FAULTS: dict[str, tuple[str, Fault]] = {
    "keytab missing": ("keytab_missing", lambda site: site.keytab.unlink()),
    "keytab's folder missing": ("keytab_missing", lambda site: shutil.rmtree(site.keytab.parent)),
    "keytab is a folder": (
        "keytab_unreadable",
        lambda site: (site.keytab.unlink(), site.keytab.mkdir()),
    ),
    "garbage": ("keytab_garbage", lambda site: site.keytab.write_bytes(b"not a keytab at all")),
    "base64": ("keytab_garbage", lambda site: site.keytab.write_bytes(b"BQIAAABIAAEADEVY")),
    "unknown version": (
        "keytab_garbage",
        lambda site: site.keytab.write_bytes(b"\x05\x03" + site.keytab.read_bytes()[2:]),
    ),
    "empty": ("keytab_empty", lambda site: site.keytab.write_bytes(b"")),
    "no entries": ("keytab_empty", lambda site: site.keytab.write_bytes(b"\x05\x02")),
    "truncated": ("keytab_truncated", truncate),
    "principal absent": ("principal_absent", name_another_principal),
    "stale kvno": ("keytab_stale", make_stale),
    "expired": ("principal_expired", modify("-expire yesterday")),
    "disabled": ("principal_disabled", modify("-allow_tix")),
    "deleted": (
        "principal_unknown",
        lambda site: site.kdc.kadmin(f"delprinc -force {site.principal}"),
    ),
    "krb5.conf broken": ("config_invalid", configure(lambda _: "[libdefaults\n")),
    "krb5.conf of no section": ("realm_unknown", configure(lambda _: "nonsense")),  # it is borne
    "krb5.conf without the realm": (
        "realm_unknown",
        configure(lambda text: text.partition("[realms]")[0]),
    ),
    "krb5.conf with other types": (
        "keytab_enctypes_unusable",
        configure(
            lambda text: text.replace(
                "[libdefaults]", "[libdefaults]\n  permitted_enctypes = camellia256-cts-cmac"
            )
        ),
    ),
}


@pytest.mark.parametrize(
    "name", ["keytab missing", "garbage", "stale kvno", "deleted", "krb5.conf broken"]
)
def test_fault_at_start_is_named_and_fixed_without_a_restart(here: Site, name: str) -> None:
    reason, fault = FAULTS[name]
    fault(here)
    daemon = here.start()

    failed = failure(daemon)

    assert_named(failed, daemon, here, reason, ready=False)
    assert not here.ccache.exists()
    fix(here)
    daemon.wait_until_ready(60)
    assert here.is_valid()
    assert [] == daemon.stray_lines


def test_each_fault_later_is_named_and_fixed_and_the_ticket_stays(here: Site) -> None:
    daemon = here.publish()
    for reason, fault in FAULTS.values():
        seen = len(daemon.events)
        fault(here)
        daemon.sighup()
        failed = daemon.wait_for_event("cycle_failed", 60, after=seen, reason=reason)
        before = here.ccache.read_bytes()

        assert_named(failed, daemon, here, reason, ready=True)
        assert reason == here.refresh(daemon)["reason"]
        assert before == here.ccache.read_bytes()
        fix(here)
        wait_until(lambda: daemon.get("/readyz").json()["reason"] is None, "fixed", 60)


def assert_named(
    failed: dict[str, object], daemon: SidecarProcess, site: Site, reason: str, ready: bool
) -> None:
    assert reason == failed["reason"], failed
    assert failed["advice"]
    assert any(word in str(failed["error"]) for word in (site.principal, str(site.keytab), "krb5"))
    assert_tells(daemon, reason, ready)


def fix(site: Site) -> None:
    """A krb5.conf and a principal in order, and a good keytab."""
    site.configure()
    if site.keytab.is_dir():
        site.keytab.rmdir()
    name = site.principal.partition("@")[0]
    if name not in site.kdc.kadmin("listprincs").replace("@", "\n").split("\n"):
        site.kdc.add_principal(name)
    site.kdc.kadmin(f"modprinc -expire never +allow_tix {site.principal}")
    fresh = site.kdc.write_keytab(site.folder / "fresh", site.principal)
    site.keytab.parent.mkdir(exist_ok=True)
    os.replace(fresh, site.keytab)


def test_a_keytab_that_may_not_be_read_is_found_and_named_with_the_user(here: Site) -> None:
    (here.keytab.parent / "krb5.conf").write_bytes(here.config.read_bytes())
    here.ccache.parent.chmod(0o777)
    program = here.as_user(50000)
    here.keytab.chmod(0o600)
    folder = str(here.keytab.parent)
    daemon = here.start(program=program, KERBEROS_KEYTAB_DIR=folder, KERBEROS_KEYTAB=None)

    failed = failure(daemon)

    assert "keytab_unreadable" == failed["reason"]
    assert str(here.keytab) in failed["error"]
    assert "50000" in failed["error"] + failed["advice"]
    assert_tells(daemon, "keytab_unreadable", ready=False)
    here.keytab.chmod(0o640)
    daemon.wait_until_ready(60)


def test_a_wrong_clock_is_measured_and_still_gets_a_ticket(here: Site, running_kdc: Kdc) -> None:
    """
    libkrb5 follows the KDC's clock (kdc_timesync); services that do not would refuse the ticket.
    """
    running_kdc.stop()
    running_kdc.start(clock_offset_seconds=600)

    daemon = here.publish()

    assert abs(here.sample(daemon, "kerberos_clock_offset_seconds") - 600) < 5
    assert here.is_valid()
    assert daemon.get("/readyz").status == 200


def test_readiness_ends_when_the_ticket_does_by_the_clock_of_the_kdc(
    make_site: MakeSite, running_kdc: Kdc
) -> None:
    """Ahead by ten minutes, the KDC writes an end that lies ten minutes too late for our clock."""
    site = make_site("8s")
    running_kdc.stop()
    running_kdc.start(clock_offset_seconds=600)
    daemon = site.publish()
    assert daemon.get("/readyz").status == 200
    running_kdc.stop()

    assert site.expiry() > time.time() + 500
    wait_until(lambda: daemon.get("/readyz").status == 503, "readiness ends in time", 60)
