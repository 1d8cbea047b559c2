"""Each fault of keytab, account or clock has its own reason, before and after a ticket."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.daemon import SidecarProcess
from tests.support.kerberos.formats import entry, keytab
from tests.support.kerberos.kdc import Kdc
from tests.support.kerberos.site import Site, assert_tells, failure
from tests.support.waiting import wait_until

Fault = Callable[[Site], object]


def truncate(site: Site) -> None:
    content = site.keytab.read_bytes()
    site.keytab.write_bytes(content[: len(content) // 3])


def make_stale(site: Site) -> None:
    """Let the KDC create newer keys than those in the keytab."""
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
    "krb5.conf of no section": ("realm_unknown", configure(lambda _: "nonsense")),  # still parses
    "krb5.conf without the realm": (
        "realm_unknown",
        configure(lambda text: text.partition("[realms]")[0]),
    ),
    "krb5.conf with a comment behind a kdc": (
        "config_invalid",
        configure(lambda text: text.replace("\n  }", "  # note\n  }")),
    ),
    "krb5.conf with a URL as a kdc": (
        "config_invalid",
        configure(lambda text: text.replace("kdc = ", "kdc = http://")),
    ),
    "krb5.conf with an invalid duration": (
        "config_invalid",
        configure(
            lambda text: text.replace("[realms]", "  ticket_lifetime = 1 fortnight\n[realms]")
        ),
    ),
    "hardware token demanded": ("preauth_unsupported", modify("+requires_hwauth")),
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
def test_reports_a_fault_at_start_and_recovers_without_a_restart(here: Site, name: str) -> None:
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


def test_keeps_the_ticket_during_each_later_fault_and_recovers(here: Site) -> None:
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
        wait_until(lambda: daemon.get("/readyz").json()["reason"] is None, "it recovers", 60)


def assert_named(
    failed: dict[str, object], daemon: SidecarProcess, site: Site, reason: str, ready: bool
) -> None:
    assert reason == failed["reason"], failed
    assert failed["advice"]
    assert any(word in str(failed["error"]) for word in (site.principal, str(site.keytab), "krb5"))
    assert_tells(daemon, reason, ready)


def fix(site: Site) -> None:
    """Restore a valid krb5.conf, principal and keytab."""
    site.configure()
    if site.keytab.is_dir():
        site.keytab.rmdir()
    name = site.principal.partition("@")[0]
    if name not in site.kdc.kadmin("listprincs").replace("@", "\n").split("\n"):
        site.kdc.add_principal(name)
    site.kdc.kadmin(f"modprinc -expire never +allow_tix -requires_hwauth {site.principal}")
    fresh = site.kdc.write_keytab(site.folder / "fresh", site.principal)
    site.keytab.parent.mkdir(exist_ok=True)
    os.replace(fresh, site.keytab)


def test_reports_an_unreadable_keytab_with_the_uid_that_cannot_read_it(here: Site) -> None:
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


QUOTED = {
    "krb5.conf with a comment behind a kdc": "  # note",
    "krb5.conf with a URL as a kdc": ": kdc = http://127.0.0.1:",
    "krb5.conf with an invalid duration": ": ticket_lifetime = 1 fortnight",
    "krb5.conf broken": "line 1: cannot parse [libdefaults",
    "hardware token demanded": "it offers PA-",
}


@pytest.mark.parametrize("name", QUOTED)
def test_quotes_what_cannot_work_with_its_line_as_check_does(here: Site, name: str) -> None:
    reason, fault = FAULTS[name]
    fault(here)

    failed = failure(here.start())
    checked = here.start("check")

    assert reason == failed["reason"]
    assert QUOTED[name] in failed["error"]
    assert 3 == checked.wait_for_exit(60).code
    assert reason in checked.log() and QUOTED[name] in checked.log()


def test_a_trace_to_stderr_hides_no_reason(here: Site) -> None:
    """Nobody can read a pipe to its end that one writes to oneself."""
    make_stale(here)

    failed = failure(here.start(KRB5_TRACE="/dev/stderr", KERBEROS_TIMEOUT="5s"))

    assert "keytab_stale" == failed["reason"]


def test_names_a_keytab_that_krb5_conf_forbids_without_asking_a_kdc(here: Site) -> None:
    name, _, realm = here.principal.partition("@")
    here.keytab.write_bytes(keytab(entry(name, realm, enctype=17)))
    here.configure(permitted_enctypes="aes256-cts")
    asked = here.kdc.requests()

    failed = failure(here.start())
    checked = here.start("check")

    assert "keytab_enctypes_unusable" == failed["reason"]
    assert "aes128-cts-hmac-sha1-96" in failed["error"]
    assert "permitted_enctypes = aes256-cts" in failed["error"]
    assert 3 == checked.wait_for_exit(60).code
    assert asked == here.kdc.requests()


def test_a_node_without_processes_is_named_and_waited_for(here: Site) -> None:
    """The kernel limits the processes of each user, and no process of root."""
    here.ccache.parent.chmod(0o777)
    daemon = here.start(program=here.as_user(50000))
    daemon.wait_until_ready(60)
    limit(daemon, "1:")

    failed = here.refresh(daemon)

    assert "process_limit" == failed["reason"]
    after = len(daemon.events)
    again = failure(daemon, after)
    assert (2, "warning") == (again["consecutive_failures"], again["level"])
    assert_tells(daemon, "process_limit", ready=True)
    assert [] == daemon.stray_lines
    limit(daemon, "4096:")
    wait_until(lambda: daemon.get("/readyz").json()["reason"] is None, "it recovers", 60)


def limit(daemon: SidecarProcess, processes: str) -> None:
    user = ["setpriv", "--reuid=50000", "--regid=0", "--clear-groups"]
    command = [*user, "prlimit", f"--pid={daemon.pid}", f"--nproc={processes}"]
    subprocess.run(command, check=True)


@pytest.mark.parametrize("ahead_seconds", [600])
def test_measures_the_clock_offset_and_acquires_a_ticket(
    here: Site, running_kdc: Kdc, ahead_seconds: int
) -> None:
    """libkrb5 adopts the KDC's clock (kdc_timesync); other services would reject the ticket."""
    running_kdc.stop()
    running_kdc.start(clock_offset_seconds=ahead_seconds)

    daemon = here.publish()

    offset_seconds = here.sample(daemon, "kerberos_clock_offset_seconds")
    assert abs(offset_seconds - ahead_seconds) < ahead_seconds / 2
    assert here.is_valid()
    assert daemon.get("/readyz").status == 200


@pytest.mark.parametrize("ahead_seconds", [600])
def test_readiness_ends_when_the_ticket_expires_by_the_kdcs_clock(
    make_site: MakeSite, running_kdc: Kdc, ahead_seconds: int
) -> None:
    """The KDC's clock is ten minutes ahead, and so is the end time that it writes."""
    site = make_site("8s")
    running_kdc.stop()
    running_kdc.start(clock_offset_seconds=ahead_seconds)
    daemon = site.publish()
    assert daemon.get("/readyz").status == 200
    running_kdc.stop()

    assert site.expiry() > time.time() + ahead_seconds / 2
    wait_until(lambda: daemon.get("/readyz").status == 503, "readiness ends at the expiry", 60)
