"""Principals of all kinds, several in one sidecar, and two that contest one ccache."""

import json
import stat
from pathlib import Path

import pytest

from tests.support.kerberos.kdc import Kdc, run_client
from tests.support.kerberos.site import Site
from tests.support.waiting import wait_until

AES = "aes256-cts-hmac-sha1-96"


def listed(*entries: dict[str, str]) -> dict[str, str | None]:
    """Return the settings of one sidecar for several principals."""
    none = dict.fromkeys(("KERBEROS_PRINCIPAL", "KERBEROS_KEYTAB", "KERBEROS_CCACHE"))
    return {"KERBEROS_PRINCIPALS": json.dumps(entries), **none}


def test_each_principal_has_its_own_ccache_mode_and_schedule(here: Site) -> None:
    second = here.kdc.add_principal(f"second-{here.principal.partition('@')[0]}", "8s")
    keytab = here.kdc.write_keytab(here.folder / "keytab" / "second.keytab", second)
    other = here.ccache.parent / "second"
    first = {"principal": here.principal, "keytab": str(here.keytab), "ccache": str(here.ccache)}
    more = {"principal": second, "keytab": str(keytab), "ccache": str(other), "mode": "0600"}
    daemon = here.publish(**listed(first, more))

    assert here.is_valid() and here.is_valid(other)
    assert second in run_client(["klist"], here.config, other).stdout
    assert ("0640", 0o600) == (here.mode(), stat.S_IMODE(other.stat().st_mode))
    first_inode, inode = here.ccache.stat().st_ino, other.stat().st_ino
    wait_until(lambda: other.stat().st_ino != inode, "the shorter ticket is replaced")
    assert first_inode == here.ccache.stat().st_ino
    page = daemon.get("/").body
    assert here.principal in page and second in page
    name = "kerberos_ticket_expiry_timestamp_seconds"
    assert here.sample(daemon, name) > here.sample(daemon, name, other, second)
    assert ["second"] == here.leftovers()


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
    """A host; AES-SHA2; an enterprise name; versions that need more than one byte, and none."""
    principal, keytab = here.kdc.add_principal(name), here.folder / "keytab" / "odd.keytab"
    types = " ".join(f"{one}:normal" for one in enctypes)
    here.kdc.kadmin(f'ktadd -k {keytab} -e "{types}" "{principal}"')
    here.kdc.kadmin(f'modprinc -kvno {kvno} "{principal}"')
    keytab.unlink()
    here.kdc.kadmin(f'ktadd -norandkey -k {keytab} "{principal}"')

    daemon = here.publish(KERBEROS_PRINCIPAL=principal, KERBEROS_KEYTAB=str(keytab))
    label = principal.replace("\\", "\\\\")

    assert kvno == here.sample(daemon, "kerberos_keytab_kvno", principal=label)
    assert principal in run_client(["klist"], here.config, here.ccache).stdout
    assert len(enctypes) == run_client(["klist", "-k", str(keytab)], here.config).stdout.count("@E")


def test_principals_of_two_realms_and_a_ticket_for_a_service_of_the_other(
    here: Site, tmp_path: Path
) -> None:
    """One keytab for both realms, which trust each other."""
    with Kdc(tmp_path / "kdc", "OTHER.TEST") as other:
        for kdc in (here.kdc, other):
            kdc.kadmin(f"addprinc -pw trust krbtgt/{other.realm}@{here.kdc.realm}")
        service, away = other.add_principal("HTTP/there"), other.add_principal("airflow")
        other.copy_keys(here.keytab, away)
        realms = f"[realms]\n  {other.realm} = {{\n    kdc = {other.address}\n  }}\n"
        here.config.write_text(here.config.read_text() + realms)
        there = here.ccache.parent / "away"
        first = {"principal": here.principal, "ccache": str(here.ccache)}
        both = listed(first, {"principal": away, "ccache": str(there)})

        here.publish(**both | {"KERBEROS_KEYTAB": str(here.keytab)})

        for ccache, owner in ((here.ccache, here.principal), (there, away)):
            assert f"principal: {owner}" in run_client(["klist"], here.config, ccache).stdout
            done = run_client(["kvno", service], here.config, ccache)
            assert 0 == done.returncode, done.stderr


def test_a_ccache_contested_by_two_principals_stays_with_its_first_owner(here: Site) -> None:
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
