"""
Several sidecars on one ccache, and sidecars that are killed.
"""

import random
import time

import pytest

from tests.conftest import Counts
from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.site import KERBEROS_SIDECAR, Site
from tests.support.users import as_user
from tests.support.waiting import wait_until


def test_two_sidecars_with_different_uids_both_write(make_site: MakeSite) -> None:
    """
    Into a folder of their group, as `fsGroup` makes it: one renames over the other's file.
    """
    site = make_site("1d")
    site.ccache.parent.chmod(0o2770)
    site.keytab.chmod(0o640)
    site.config.chmod(0o644)
    (site.folder / "tmp").chmod(0o777)
    daemons = [
        site.start(program=as_user(site.folder / "bin", KERBEROS_SIDECAR, uid, 0), INTERVAL="1s")
        for uid in (50000, 60000)
    ]
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


def test_a_second_sidecar_leaves_the_temporary_files_of_the_first_alone(here: Site) -> None:
    """
    Sweeping at start must not take away what a living sidecar is about to rename.
    """
    writer = here.publish(INTERVAL="1s", KERBEROS_JITTER="0")

    for _ in range(4):
        here.publish().kill()

    wait_until(
        lambda: len(writer.find_events("cycle_finished", result="changed")) >= 5, "it writes on"
    )
    assert [] == writer.find_events("cycle_failed")


@pytest.mark.timeout(3_600)
def test_sigkill_at_any_moment_leaves_a_valid_ccache(here: Site, counts: Counts) -> None:
    """
    SIGHUPs keep it publishing, so that the kills fall into every step of a cycle.
    """
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
