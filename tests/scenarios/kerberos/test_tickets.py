"""Principals of all kinds; when a new ticket is acquired, and when a one-shot exits."""

import os
import stat
from cProfile import Profile
from functools import partial

import pytest

from kerberos_sidecar.cycle import KerberosSidecar
from kerberos_sidecar.metrics import KerberosMetrics
from kerberos_sidecar.settings import load_settings
from sidecar_runtime.fence import Fence
from tests import Facts
from tests.support.kerberos.kdc import run_client
from tests.support.kerberos.site import Site, several
from tests.support.machine.clocks import set_clock
from tests.support.waiting import wait_until

AES = "aes256-cts-hmac-sha1-96"


def calls_per_ticket(here: Site, principals: list[str]) -> float:
    """
    Return how many functions a cycle calls for each principal, while all are due.
    """
    entries: list[Facts] = [
        {"principal": one, "ccache": f"{here.ccache}-{one}"} for one in principals
    ]
    settings, _ = load_settings(
        {
            name: text
            for name, text in here.settings(**several(*entries)).items()
            if text
        }
    )
    sidecar = KerberosSidecar(settings, KerberosMetrics())
    profile = Profile()
    profile.runcall(sidecar.cycle, Fence())
    return sum(one.callcount for one in profile.getstats()) / len(principals)


def test_the_work_for_a_ticket_does_not_grow_with_the_number_of_principals(
    here: Site,
) -> None:
    """Calls are counted, because a busy machine changes the CPU time."""
    many = [here.kdc.add_principal(f"{number}-of-30") for number in range(30)]
    for one in many:
        here.kdc.write_keytab(here.keytab, one)
    calls_per_ticket(here, many[:1])  # the first one also imports modules

    few = calls_per_ticket(here, many[:6])

    assert calls_per_ticket(here, many) / few < 1.1


def test_each_principal_has_its_own_ccache_mode_and_schedule(here: Site) -> None:
    """As `KERBEROS_PRINCIPALS` lists them; what is beside the other's ccache stays."""
    second = here.kdc.add_principal(f"second-{here.name}", "8s")
    keytab = here.folder / "keytab" / "second.keytab"
    for _ in range(2):
        here.kdc.write_keytab(keytab, second)
    other = here.ccache.parent / "krb5cc.2"
    (other.parent / ".krb5cc.2.new").touch()
    daemon = here.publish(
        **several(
            {"principal": here.principal, "ccache": here.ccache},
            {"principal": second, "keytab": keytab, "ccache": other, "mode": "0600"},
        )
    )

    assert here.is_valid() and here.is_valid(other)
    assert second in run_client(["klist"], here.config, other).stdout
    assert ("0640", 0o600) == (here.mode(), stat.S_IMODE(other.stat().st_mode))
    first_inode = here.ccache.stat().st_ino
    daemon.wait_for_event("ticket_acquired", principal=second, cause="half_life")
    assert first_inode == here.ccache.stat().st_ino
    page = daemon.get("/").body
    assert here.principal in page and second in page
    assert [".krb5cc.2.new"] == here.leftovers(other.name)
    daemon.sighup()
    for principal in (here.principal, second):
        daemon.wait_for_event("ticket_acquired", principal=principal, cause="asked")
    # each gauge has its own fact of its own ccache
    ours = partial(here.sample, daemon)
    its = partial(here.sample, daemon, ccache=other, principal=second)
    assert here.expiry() == ours("kerberos_ticket_expiry_timestamp_seconds")
    assert ours("kerberos_ticket_expiry_timestamp_seconds") > its(
        "kerberos_ticket_expiry_timestamp_seconds"
    )
    assert [86_400, 8] == [of("kerberos_ticket_lifetime_seconds") for of in (ours, its)]
    assert [2, 3] == [of("kerberos_keytab_kvno") for of in (ours, its)]
    assert (
        2
        == ours("kerberos_acquired_tickets_total")
        < its("kerberos_acquired_tickets_total")
    )
    acquired = daemon.find_events("ticket_acquired", principal=here.principal)[-1]
    assert (
        acquired["duration_seconds"]
        == round(ours("kerberos_acquire_duration_seconds"), 3)
        > 0
    )
    revision = daemon.get("/readyz").json()["revision"]
    assert revision.startswith("until 2") and acquired["ends_at"] not in revision
    keytab.unlink()
    other.unlink()
    wait_until(lambda: its("kerberos_keytab_kvno") == 0, "no key is left")
    assert 0 == its("kerberos_ticket_expiry_timestamp_seconds")
    assert [2, 86_400] == [
        ours("kerberos_keytab_kvno"),
        ours("kerberos_ticket_lifetime_seconds"),
    ]
    told = daemon.status()["details"]
    assert {"principal", "keytab", "kvno", "ends_at"} <= told[str(here.ccache)].keys()
    assert {"last_error", "advice"} <= told[str(other)].keys()


@pytest.mark.parametrize(
    ("name", "enctypes", "kvno"),
    [
        ("host/web.example.test", ["aes256-cts-hmac-sha384-192"], 300),
        ("sha2", ["aes128-cts-hmac-sha256-128"], 256),
        (r"airflow\@corp.example", ["arcfour-hmac"], 0),
        ("mixed", ["arcfour-hmac", AES], 255),
    ],
)
def test_acquires_tickets_of_other_names_types_and_versions(
    here: Site, name: str, enctypes: list[str], kvno: int
) -> None:
    """
    A host; AES-SHA2; an enterprise name; versions that need more than one byte, and
    none.
    """
    principal = here.kdc.add_principal(name)
    keytab = here.folder / "keytab" / "odd.keytab"
    types = " ".join(f"{one}:normal" for one in enctypes)
    here.kdc.kadmin(f'ktadd -k {keytab} -e "{types}" "{principal}"')
    here.kdc.kadmin(f'modprinc -kvno {kvno} "{principal}"')
    keytab.unlink()
    here.kdc.kadmin(f'ktadd -norandkey -k {keytab} "{principal}"')

    assert kvno == here.sample(
        here.publish(KERBEROS_PRINCIPAL=principal, KERBEROS_KEYTAB=str(keytab)),
        "kerberos_keytab_kvno",
        principal=principal.replace("\\", "\\\\"),
    )
    assert principal in run_client(["klist"], here.config, here.ccache).stdout


def test_a_keytab_swapped_for_an_equal_one_costs_no_request(here: Site) -> None:
    """
    Some agents write a Secret's files again and again; the kubelet swaps a link,
    `..data`.
    """
    versions = [here.keytab.parent / f"..{number}" for number in range(2)]
    for folder in versions:
        folder.mkdir()
        (folder / "airflow.keytab").write_bytes(here.keytab.read_bytes())
    swapped = 0
    link = here.keytab.parent / "..data"
    link.symlink_to(versions[0])
    here.keytab.unlink()
    here.keytab.symlink_to("..data/airflow.keytab")
    daemon = here.publish(KERBEROS_PRINCIPAL=None)
    told = daemon.status()
    next_ticket = told["details"][str(here.ccache)]["next_ticket_in_seconds"]
    assert told["next_cycle_within_seconds"] < next_ticket, (
        "cycles are a heartbeat, too"
    )

    def swap() -> bool:
        nonlocal swapped
        swapped += 1
        link.with_name("..new").symlink_to(versions[swapped % 2])
        os.replace(link.with_name("..new"), link)
        return swapped > 120

    wait_until(swap, "it was swapped often", 60, step_seconds=0.05)
    assert 1 == len(daemon.find_events("ticket_acquired"))
    keytab = versions[1 - swapped % 2] / "airflow.keytab"
    keytab.unlink()
    here.kdc.write_keytab(keytab, other := here.kdc.add_principal("rotated"))
    swap()

    # before the next heartbeat, which would notice it as well
    daemon.wait_for_event(
        "ticket_acquired", 20, cause="keytab_changed", principal=other
    )
    wait_until(
        lambda: here.principal not in daemon.get("/metrics").body,
        "only the new one counts",
    )
    assert here.sample(daemon, "kerberos_acquired_tickets_total", principal=other)
    # a cycle mostly sees these before the next look, and counts its ticket first
    for name in ("third", "fourth", "fifth"):
        principal = here.kdc.add_principal(name)
        keytab.unlink()
        here.kdc.write_keytab(keytab, principal)
        daemon.wait_for_event(
            "cycle_finished", after=daemon.events.index(here.refresh(daemon))
        )
        assert here.sample(
            daemon, "kerberos_acquired_tickets_total", principal=principal
        )


@pytest.mark.parametrize("step", ["+5h", "-5h"])
def test_a_clock_that_is_set_by_hours_brings_a_new_ticket(
    here: Site, step: str
) -> None:
    """
    Consumers add the KDC's offset in the ccache to the node's clock. The child that
    asks inherits HOME, where libfaketime looks for this file, but no other variable.
    """
    file = here.folder / "home-0" / ".faketimerc"
    file.parent.mkdir()
    clock = set_clock(file, "+0h")
    daemon = here.publish(**clock)

    set_clock(file, step)
    acquired = daemon.wait_for_event("ticket_acquired", 60, cause="clock_set")

    assert 200 == daemon.get("/readyz").status, acquired
    assert (
        0 == run_client(["klist", "-s"], here.config, here.ccache, **clock).returncode
    )
