"""
A full or closed volume, damage by consumers, two sidecars on one ccache, and kills.
"""

import random
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.support.kerberos.formats import SABOTAGE
from tests.support.kerberos.site import Site, assert_tells, failure
from tests.support.machine.volumes import fill_up, mount, small_volume
from tests.support.waiting import wait_until


def test_keeps_the_last_ccache_when_the_volume_is_full_or_turns_read_only(
    here: Site,
) -> None:
    folder = here.ccache.parent
    folder.rmdir()
    with small_volume(folder, "64k"):
        daemon = here.publish()
        before = here.ccache.read_bytes()
        fill_up(folder / "filler")

        failed = here.refresh(daemon)

        assert "ccache_full" == failed["reason"]
        assert str(folder) in failed["error"]
        assert before == here.ccache.read_bytes()
        assert here.is_valid()
        assert_tells(daemon, "ccache_full", ready=True)
        assert [] == here.leftovers("filler")
        (folder / "filler").unlink()
        wait_until(
            lambda: daemon.get("/readyz").json()["reason"] is None, "it is cleared", 20
        )
        assert before != (before := here.ccache.read_bytes())

        assert mount("-o", "remount,ro", str(folder))
        assert "ccache_denied" == here.refresh(daemon)["reason"]
        assert before == here.ccache.read_bytes()
        assert_tells(daemon, "ccache_denied", ready=True)


@pytest.mark.parametrize(
    ("why", "mode"),
    [("closed", 0o755), ("sticky", 0o1777), ("folder", 0o777), ("mount", 0o777)],
)
def test_a_path_where_the_ccache_cannot_be_replaced_is_named_without_a_request(
    here: Site, why: str, mode: int
) -> None:
    """
    In a sticky folder, as `/tmp`, only the owner of a file can replace it. A folder
    stays.
    """
    there, is_mount = here.ccache, why == "mount"
    there.mkdir() if why == "folder" else there.write_bytes(b"of root")
    assert not is_mount or mount("--bind", "/proc/version", str(there))
    there.parent.chmod(mode)
    program, asked = here.as_user(50000), here.kdc.requests()
    daemon = here.start(program=program)

    failed = failure(daemon)
    checked = here.start("check", program=program)

    reason = "ccache_denied" if mode != 0o777 else "ccache_failed"
    assert reason == failed["reason"]
    assert f"{there} as uid 50000" in failed["error"]
    assert "KERBEROS_CCACHE" in failed["advice"]
    assert (3, True) == (checked.wait_for_exit().code, reason in checked.log())
    assert (asked, []) == (here.kdc.requests(), here.leftovers())
    assert not is_mount or subprocess.run(["umount", there]).returncode == 0
    there.parent.chmod(0o777)
    there.rmdir() if why == "folder" else there.unlink()
    daemon.wait_until_ready(60)


def is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def test_restores_the_ccache_whatever_a_consumer_replaces_it_with(here: Site) -> None:
    daemon = here.publish()
    for sabotage in SABOTAGE.values():

        def replace(sabotage: Callable[[Path], object] = sabotage) -> bool:
            here.ccache.unlink()
            with suppress(FileExistsError):  # the sidecar was faster
                sabotage(here.ccache)
                return True
            return False

        wait_until(replace, "it is replaced")

        # klist would wait for the other end of a pipe.
        wait_until(lambda: is_plain(here.ccache) and here.is_valid(), "it is restored")
        wait_until(lambda: daemon.get("/readyz").status == 200, "it is ready")


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
    time.sleep(3)

    failed = [event for one in daemons for event in one.find_events("cycle_failed")]
    assert {"ccache_contested"} == {event["reason"] for event in failed}
    assert "belongs to uid 100" in failed[0]["error"]
    assert "runAsGroup" in failed[0]["advice"]
    tickets = sum(len(one.find_events("ticket_acquired")) for one in daemons)
    assert tickets <= 4, "at the start, and once more each"
    assert 1 <= sum(len(one.find_events("ccache_taken")) for one in daemons) <= 2


@pytest.mark.timeout(3_600)
def test_sigkill_at_any_moment_leaves_a_valid_ccache(
    here: Site, counts: Counts
) -> None:
    """
    SIGHUPs make it publish continually, so that the kills hit every step of a cycle.
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
