"""
Two sidecars on one ccache: neither floods the KDC, and one says what it waits for.
"""

from tests.support.kerberos.site import Site
from tests.support.waiting import wait_until


def test_a_ccache_contested_by_two_principals_is_named_and_not_fought_over(
    here: Site,
) -> None:
    other = here.kdc.add_principal(f"other-{here.name}")
    keytab = here.kdc.write_keytab(here.folder / "other" / "other.keytab", other)
    first = here.publish()
    second = here.start(KERBEROS_KEYTAB=str(keytab), KERBEROS_PRINCIPAL=other)

    contested = first.wait_for_event("cycle_failed", reason="ccache_contested")
    second.wait_for_event("ccache_taken", owner=here.principal, principal=other)

    assert here.principal in contested["error"] and other in contested["error"]
    assert "ccache_contested" == here.refresh(first)["reason"]
    assert [1, 1] == [
        len(daemon.find_events("ticket_acquired")) for daemon in (first, second)
    ]
    assert [503, 200] == [daemon.get("/readyz").status for daemon in (first, second)]
    second.kill()
    here.ccache.unlink()
    first.wait_for_event("ticket_acquired", 30, cause="missing")  # within its minute


def test_two_sidecars_that_cannot_share_a_folder_do_not_flood_the_kdc(
    here: Site,
) -> None:
    """
    Such as two pods on one volume: each needs a file that the other's consumers cannot
    read.
    """
    here.ccache.parent.chmod(0o777)
    daemons = [here.start(program=here.as_user(1001, group)) for group in (1001, 1002)]

    losers = wait_until(
        lambda: [one for one in daemons if one.find_events("cycle_failed")],
        "one gives way",
    )
    for _ in range(3):
        failed = here.refresh(losers[0])

        assert "ccache_contested" == failed["reason"], failed
        assert "belongs to uid 1001 with group 100" in failed["error"], failed
        assert "runAsGroup" in failed["advice"], failed
    assert sum(len(one.find_events("ticket_acquired")) for one in daemons) <= 2, (
        "at the start, once each"
    )
