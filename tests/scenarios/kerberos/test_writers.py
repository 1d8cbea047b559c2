"""Two sidecars on one ccache, and a sidecar that is killed."""

import random
import time

import pytest

from tests.conftest import Counts
from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.kerberos.site import Site
from tests.support.waiting import wait_until


def test_two_sidecars_with_different_uids_write_one_ccache(make_site: MakeSite) -> None:
    """In a folder of their group, as `fsGroup` sets it, each renames over the other's file."""
    site = make_site("1d")
    site.ccache.parent.chmod(0o2770)
    daemons = [site.start(program=site.as_user(uid), INTERVAL="1s") for uid in (50000, 60000)]
    owners, invalid = set(), 0

    def both_wrote() -> bool:
        nonlocal invalid
        owners.add(site.ccache.stat().st_uid)
        invalid += not site.is_valid()
        return owners >= {50000, 60000} and all(
            len(daemon.find_events("cycle_finished", result="changed")) >= 4 for daemon in daemons
        )

    for daemon in daemons:
        daemon.wait_until_synced()
    wait_until(both_wrote, "both wrote")

    assert 0 == invalid
    assert [[], []] == [daemon.find_events("cycle_failed") for daemon in daemons]
    assert [200, 200] == [daemon.get("/readyz").status for daemon in daemons]
    for daemon in daemons:
        daemon.terminate()
    assert [] == site.leftovers()


@pytest.mark.parametrize(
    ("users", "mode"),
    [(((1001, 1001), (1001, 1002)), "0640"), (((1001, 1001), (1002, 1001)), "0600")],
    ids=["groups", "uids"],
)
def test_two_sidecars_that_cannot_share_a_folder_do_not_flood_the_kdc(
    here: Site, users: tuple[tuple[int, int], ...], mode: str
) -> None:
    """Such as two pods on one volume: each needs a file that the other's consumers cannot read."""
    here.ccache.parent.chmod(0o777)
    daemons = [here.start(program=here.as_user(*user), KERBEROS_CCACHE_MODE=mode) for user in users]

    wait_until(lambda: any(one.find_events("cycle_failed") for one in daemons), "one gives way")
    time.sleep(3)

    failed = [event for one in daemons for event in one.find_events("cycle_failed")]
    assert {"ccache_contested"} == {event["reason"] for event in failed}
    assert "belongs to uid 100" in failed[0]["error"]
    assert "runAsGroup" in failed[0]["advice"]
    tickets = sum(len(one.find_events("ticket_acquired")) for one in daemons)
    assert tickets <= 4, "at the start, and once more each"
    taken = sum(len(one.find_events("ccache_taken")) for one in daemons)
    assert 1 <= taken <= 2


@pytest.mark.timeout(3_600)
def test_sigkill_at_any_moment_leaves_a_valid_ccache(here: Site, counts: Counts) -> None:
    """SIGHUPs make it publish continually, so that the kills hit every step of a cycle."""
    chance = random.Random(11)
    replaced = set()
    daemon = here.sidecar()
    for _ in range(counts.kills):
        with daemon:
            if chance.random() < 0.2:
                time.sleep(chance.random() * 0.6)  # somewhere in the start
            else:
                daemon.wait_until_synced()
                for _ in range(chance.randint(1, 3)):
                    daemon.sighup()
                    time.sleep(chance.random() * 0.012)
        if here.ccache.exists():
            assert here.is_valid(), here.ccache.read_bytes()
            replaced.add(here.ccache.stat().st_ctime_ns)

    here.publish().terminate()

    assert here.is_valid()
    assert [] == here.leftovers()
    assert [] == list((here.folder / "tmp").iterdir())
    assert len(replaced) > counts.kills // 3
