"""
Several principals, one sidecar: a ccache for each, and none stops another.
"""

import json
import stat

import pytest

from tests.support.kdc import run_client
from tests.support.site import Site
from tests.support.waiting import wait_until


@pytest.fixture
def second(here: Site) -> str:
    principal = here.kdc.add_principal(f"second-{here.principal.partition('@')[0]}", "8s")
    here.kdc.write_keytab(here.folder / "keytab" / "second.keytab", principal)
    return principal


def both(here: Site, second: str) -> dict[str, str | None]:
    """The settings of a sidecar for both."""
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


def test_each_principal_has_its_ccache_mode_and_pace(here: Site, second: str) -> None:
    daemon = here.publish(**both(here, second))
    other = here.ccache.parent / "second"

    assert here.is_valid() and here.is_valid(other)
    assert second in run_client(["klist"], here.config, other).stdout
    assert "0640" == here.mode()
    assert 0o600 == stat.S_IMODE(other.stat().st_mode)
    first_inode, inode = here.ccache.stat().st_ino, other.stat().st_ino
    wait_until(lambda: other.stat().st_ino != inode, "the short one is replaced", 15)
    assert first_inode == here.ccache.stat().st_ino
    page = daemon.get("/").body
    assert here.principal in page and second in page
    name = "kerberos_ticket_expiry_timestamp_seconds"
    assert here.sample(daemon, name) > here.sample(daemon, name, other, second)
    assert ["second"] == here.leftovers()
