"""
Several principals, one sidecar: a ccache for each, and none stops another.
"""

import json
import stat

import pytest

from tests.support.kdc import run_client
from tests.support.site import Site, failure
from tests.support.waiting import wait_until


@pytest.fixture
def second(here: Site) -> str:
    """
    Another principal with a keytab of its own.
    """
    principal = here.kdc.add_principal(f"second-{here.principal.partition('@')[0]}", "16s")
    here.kdc.write_keytab(here.folder / "keytab" / "second.keytab", principal)
    return principal


def both(here: Site, second: str) -> dict[str, str | None]:
    """
    The settings of a sidecar for both.
    """
    entries = [
        {
            "principal": here.principal,
            "keytab": str(here.keytab),
            "ccache": str(here.ccache),
        },
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
    wait_until(lambda: other.stat().st_ino != inode, "the short one is taken anew", 15)
    assert first_inode == here.ccache.stat().st_ino
    page = daemon.get("/").body
    assert here.principal in page and second in page
    name = "kerberos_ticket_expiry_timestamp_seconds"
    assert here.sample(daemon, name) > here.sample(daemon, name, other, second)
    assert ["second"] == here.leftovers()


def test_one_that_fails_does_not_stop_the_other(here: Site, second: str) -> None:
    (here.folder / "keytab" / "second.keytab").unlink()
    daemon = here.start(**both(here, second))

    failed = failure(daemon)

    assert "keytab_missing" == failed["reason"]
    assert second in failed["error"] or "second.keytab" in failed["error"]
    assert here.is_valid()
    readiness = daemon.get("/readyz")
    assert 503 == readiness.status
    here.kdc.write_keytab(here.folder / "keytab" / "second.keytab", second)
    daemon.wait_until_ready()


@pytest.mark.parametrize(
    "value",
    [
        "nonsense",
        "{}",
        "[]",
        '[{"principal": "a"}]',
        '[{"principal": "a", "keytab": "/k", "ccache": "/c", "mdoe": "0600"}]',
        '[{"principal": "a", "keytab": "/k", "ccache": "/c", "mode": "999"}]',
        '[{"principal": "a", "ccache": "/c"}, {"principal": "b", "ccache": "/c"}]',
    ],
)
def test_a_list_that_cannot_be_meant_is_refused(here: Site, value: str) -> None:
    settings = dict.fromkeys(("KERBEROS_PRINCIPAL", "KERBEROS_KEYTAB", "KERBEROS_CCACHE"))
    daemon = here.start(KERBEROS_PRINCIPALS=value, **settings)

    assert 2 == daemon.wait_for_exit().code
    assert "KERBEROS_PRINCIPALS" == daemon.find_events("setting_rejected")[0]["setting"]


def test_a_list_and_a_single_principal_exclude_each_other(here: Site, second: str) -> None:
    daemon = here.start(**both(here, second) | {"KERBEROS_PRINCIPAL": here.principal})

    assert 2 == daemon.wait_for_exit().code
