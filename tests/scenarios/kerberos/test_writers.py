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
    wait_until(both_wrote, "both wrote", 30)

    assert 0 == invalid
    assert [[], []] == [daemon.find_events("cycle_failed") for daemon in daemons]
    assert [200, 200] == [daemon.get("/readyz").status for daemon in daemons]
    for daemon in daemons:
        daemon.terminate()
    assert [] == site.leftovers()


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
