"""Several principals in one sidecar, and two principals that contest one ccache."""

import json
import stat

import pytest

from tests.support.kerberos.kdc import run_client
from tests.support.kerberos.site import Site
from tests.support.waiting import wait_until


@pytest.fixture
def second(here: Site) -> str:
    principal = here.kdc.add_principal(f"second-{here.principal.partition('@')[0]}", "8s")
    here.kdc.write_keytab(here.folder / "keytab" / "second.keytab", principal)
    return principal


def both(here: Site, second: str) -> dict[str, str | None]:
    """Return the settings of one sidecar for both principals."""
    entries = [
        {"principal": here.principal, "keytab": str(here.keytab), "ccache": str(here.ccache)},
        {
            "principal": second,
            "keytab": str(here.folder / "keytab" / "second.keytab"),
            "ccache": str(here.ccache.parent / "second"),
            "mode": "0600",
        },
    ]
    return {
        "KERBEROS_PRINCIPALS": json.dumps(entries),
        "KERBEROS_PRINCIPAL": None,
        "KERBEROS_KEYTAB": None,
        "KERBEROS_CCACHE": None,
    }


def test_each_principal_has_its_own_ccache_mode_and_schedule(here: Site, second: str) -> None:
    daemon = here.publish(**both(here, second))
    other = here.ccache.parent / "second"

    assert here.is_valid() and here.is_valid(other)
    assert second in run_client(["klist"], here.config, other).stdout
    assert "0640" == here.mode()
    assert 0o600 == stat.S_IMODE(other.stat().st_mode)
    first_inode, inode = here.ccache.stat().st_ino, other.stat().st_ino
    wait_until(lambda: other.stat().st_ino != inode, "the shorter ticket is replaced")
    assert first_inode == here.ccache.stat().st_ino
    page = daemon.get("/").body
    assert here.principal in page and second in page
    name = "kerberos_ticket_expiry_timestamp_seconds"
    assert here.sample(daemon, name) > here.sample(daemon, name, other, second)
    assert ["second"] == here.leftovers()


@pytest.mark.parametrize(
    ("name", "enctype", "kvno"),
    [
        ("host/web.example.test", "aes256-cts-hmac-sha384-192", 300),
        (r"airflow\@corp.example", "arcfour-hmac", 0),
    ],
)
def test_acquires_tickets_of_other_names_types_and_versions(
    here: Site, name: str, enctype: str, kvno: int
) -> None:
    """A host; an enterprise name; a version that needs more than one byte, and none."""
    principal, keytab = here.kdc.add_principal(name), here.folder / "keytab" / "odd.keytab"
    here.kdc.kadmin(f'ktadd -k {keytab} -e {enctype}:normal "{principal}"')
    here.kdc.kadmin(f'modprinc -kvno {kvno} "{principal}"')
    keytab.unlink()
    here.kdc.kadmin(f'ktadd -norandkey -k {keytab} "{principal}"')

    daemon = here.publish(KERBEROS_PRINCIPAL=principal, KERBEROS_KEYTAB=str(keytab))
    label = principal.replace("\\", "\\\\")

    assert kvno == here.sample(daemon, "kerberos_keytab_kvno", principal=label)
    assert principal in run_client(["klist"], here.config, here.ccache).stdout


def test_a_ccache_contested_by_two_principals_stays_with_its_first_owner(
    here: Site,
) -> None:
    other = here.kdc.add_principal(f"other-{here.principal.partition('@')[0]}")
    keytab = here.kdc.write_keytab(here.folder / "other" / "other.keytab", other)
    first = here.publish()
    second = here.start(KERBEROS_KEYTAB=str(keytab), KERBEROS_PRINCIPAL=other)

    contested = second.wait_for_event("cycle_failed", reason="ccache_contested")
    taken = first.wait_for_event("ccache_taken")
    first.wait_for_event("ticket_acquired", cause="taken")

    assert here.principal in contested["error"] and other in contested["error"]
    assert (other, here.principal) == (taken["owner"], taken["principal"])
    tickets = [len(daemon.find_events("ticket_acquired")) for daemon in (first, second)]
    assert [2, 1] == tickets
    assert [200, 503] == [daemon.get("/readyz").status for daemon in (first, second)]
