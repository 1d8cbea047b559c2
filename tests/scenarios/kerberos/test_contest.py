"""
Two sidecars on one ccache: neither floods the KDC, and one says what it waits for.
"""

import pytest

from tests.support.kerberos.site import Site
from tests.support.waiting import wait_until


def test_a_ccache_contested_by_two_principals_is_named_and_not_fought_over(
    here: Site,
) -> None:
    other = here.kdc.add_principal(f"other-{here.principal.partition('@')[0]}")
    keytab = here.kdc.write_keytab(here.folder / "other" / "other.keytab", other)
    first = here.publish()
    second = here.start(KERBEROS_KEYTAB=str(keytab), KERBEROS_PRINCIPAL=other)

    contested = first.wait_for_event("cycle_failed", reason="ccache_contested")
    taken = second.wait_for_event("ccache_taken")

    assert here.principal in contested["error"] and other in contested["error"]
    assert 30 < contested["retry_in_seconds"] <= 60
    assert (here.principal, other) == (taken["owner"], taken["principal"])
    assert "ccache_contested" == here.refresh(first)["reason"]
    tickets = [len(daemon.find_events("ticket_acquired")) for daemon in (first, second)]
    assert [1, 1] == tickets
    assert [503, 200] == [daemon.get("/readyz").status for daemon in (first, second)]
    second.kill()
    here.ccache.unlink()
    first.wait_for_event("ticket_acquired", 30, cause="missing")  # within its minute


@pytest.mark.parametrize(
    ("users", "mode"),
    [(((1001, 1001), (1001, 1002)), "0640"), (((1001, 1001), (1002, 1001)), "0600")],
    ids=["groups", "uids"],
)
def test_two_sidecars_that_cannot_share_a_folder_do_not_flood_the_kdc(
    here: Site, users: tuple[tuple[int, int], ...], mode: str
) -> None:
    """
    Such as two pods on one volume: each needs a file that the other's consumers cannot
    read.
    """
    here.ccache.parent.chmod(0o777)
    daemons = [
        here.start(program=here.as_user(*user), KERBEROS_CCACHE_MODE=mode)
        for user in users
    ]

    wait_until(
        lambda: any(one.find_events("cycle_failed") for one in daemons), "one gives way"
    )
    loser = next(one for one in daemons if one.find_events("cycle_failed"))
    for _ in range(3):
        failed = here.refresh(loser)

        # What the second one cannot read before it has published may be no ccache.
        said = {
            "ccache_contested": ("belongs to uid 100", "runAsGroup"),
            "ccache_foreign": ("of uid 100", "KERBEROS_CCACHE"),
        }[failed["reason"]]
        assert said[0] in failed["error"] and said[1] in failed["advice"], failed
        assert mode == "0600" or "ccache_contested" == failed["reason"], failed
    tickets = sum(len(one.find_events("ticket_acquired")) for one in daemons)
    assert tickets <= 2, "at the start, once each"
