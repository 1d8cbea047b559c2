"""
A full or closed volume, damage by consumers, two sidecars on one ccache, and kills.
"""

import os
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.kerberos.formats import SABOTAGE, entry, keytab
from tests.support.kerberos.kdc_proxy import KdcProxy
from tests.support.kerberos.site import Site, assert_tells, failure
from tests.support.machine.plants import state_of
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
    [("closed", 0o755), ("sticky", 0o1777), ("mount", 0o777)],
)
def test_a_path_where_the_ccache_cannot_be_replaced_is_named_without_a_request(
    here: Site, why: str, mode: int
) -> None:
    """
    In a sticky folder, as `/tmp`, only the owner of a file can replace it.
    """
    there, is_mount = here.ccache, why == "mount"
    there.write_bytes(b"of root")
    assert not is_mount or mount("--bind", "/proc/version", str(there))
    there.parent.chmod(mode)
    program, asked = here.as_user(50000), here.kdc.requests()
    daemon = here.start(program=program)

    failed = failure(daemon)
    checked = here.start("check", program=program)

    reason = "ccache_foreign" if is_mount else "ccache_denied"
    said = "is a mount" if is_mount else "as uid 50000"
    assert reason == failed["reason"]
    assert f"{there} {said}" in failed["error"]
    assert "KERBEROS_CCACHE" in failed["advice"]
    assert (3, True) == (checked.wait_for_exit().code, reason in checked.log())
    assert (asked, []) == (here.kdc.requests(), here.leftovers())
    assert not is_mount or subprocess.run(["umount", there]).returncode == 0
    there.parent.chmod(0o777)
    there.unlink()
    daemon.wait_until_ready(60)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def make_folder(path: Path) -> None:
    path.mkdir()
    (path / "a").write_bytes(b"of somebody")


def of_root(path: Path) -> None:
    path.write_bytes(keytab(entry()))
    path.chmod(0o600)


def link_to(name: str) -> Callable[[Path], object]:
    """Link to another file of the folder, which exists or not."""
    return lambda path: path.symlink_to(name)


KEYTAB = keytab(entry())
FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "keytab": (lambda path: path.write_bytes(KEYTAB), "is a keytab"),
    "old keytab": (lambda path: path.write_bytes(b"\5\1" + KEYTAB[2:]), "is a keytab"),
    "unreadable keytab": (of_root, "cannot be read"),
    "text": (lambda path: path.write_text("[libdefaults]\n"), "not a ccache"),
    "folder": (make_folder, "is a folder"),
    "pipe": (os.mkfifo, "pipe"),
    "socket": (make_socket, "socket"),
    "link to a keytab": (link_to("canary"), "symbolic link"),
    "link to a ccache": (link_to("valid"), "symbolic link"),
    "dangling link": (link_to("new"), "symbolic link"),
}
"""What is at the ccache's path before the first publish, and how it is named."""
ALWAYS = ("keytab", "old keytab", "folder")
"""What is not overwritten either after it has taken the place of our ccache."""


def contents(folder: Path) -> dict[str, object]:
    """Return what is in a folder, except what the sidecar stages there."""
    found = state_of(folder)
    return {name: state for name, state in found.items() if not name.startswith(".")}


@pytest.mark.parametrize("kind", FOREIGN)
def test_never_overwrites_what_is_not_a_ccache(here: Site, kind: str) -> None:
    plant, named = FOREIGN[kind]
    folder = here.ccache.parent
    (folder / "canary").write_bytes(KEYTAB)
    here.publish().terminate()
    here.ccache.rename(folder / "valid")
    folder.chmod(0o777)
    plant(here.ccache)
    program = here.as_user(50000)
    before, asked = contents(folder), here.kdc.requests()
    daemon = here.start(program=program)

    failed = failure(daemon)
    checked = here.start("check", program=program)

    assert "ccache_foreign" == failed["reason"], failed
    assert str(here.ccache) in failed["error"] and named in failed["error"], failed
    assert "KERBEROS_CCACHE" in failed["advice"]
    assert_tells(daemon, "ccache_foreign", ready=False)
    assert 3 == checked.wait_for_exit().code
    assert "ccache_foreign" in checked.log() and named in checked.log(), checked.log()
    assert before == contents(folder)
    assert asked == here.kdc.requests()
    here.ccache.rename(folder / "put away")
    daemon.wait_until_ready()
    assert is_plain(here.ccache) and here.is_valid()


@pytest.mark.parametrize("kind", ALWAYS)
def test_what_cannot_be_made_again_is_not_overwritten_after_a_publish_either(
    here: Site, kind: str
) -> None:
    daemon = here.publish()
    folder = here.ccache.parent
    (folder / "new").mkdir()
    plant, named = FOREIGN[kind]
    plant(folder / "new" / here.ccache.name)
    seen = len(daemon.events)
    # at once, or the sidecar would be faster
    here.ccache.unlink()
    (folder / "new" / here.ccache.name).rename(here.ccache)
    before = contents(folder)

    failed = daemon.wait_for_event("cycle_failed", after=seen)

    assert "ccache_foreign" == failed["reason"] and named in failed["error"], failed
    daemon.sighup()
    daemon.wait_for_event("cycle_failed", after=daemon.events.index(failed) + 1)
    assert_tells(daemon, "ccache_foreign", ready=False)
    assert before == contents(folder)
    here.ccache.rename(folder / "put away")
    daemon.wait_until_ready()


def test_a_keytab_that_comes_during_the_request_is_not_overwritten(
    make_site: MakeSite, proxy: KdcProxy
) -> None:
    here = make_site("1d")
    here.configure(proxy.address)
    proxy.behavior = "silent"
    daemon = here.start()
    wait_until(lambda: proxy.requests, "the KDC is asked")
    here.ccache.write_bytes(KEYTAB)
    proxy.behavior = "relay"

    assert "ccache_foreign" == failure(daemon)["reason"]
    assert KEYTAB == here.ccache.read_bytes()


@pytest.mark.parametrize("content", [b"", b"\5\4", b"\5\3\0\0"], ids=repr)
def test_replaces_an_empty_file_and_a_damaged_ccache_at_the_start(
    here: Site, content: bytes
) -> None:
    """Nothing is lost: `touch` and a killed `kinit` leave such files."""
    here.ccache.write_bytes(content)

    here.publish()

    assert here.is_valid()


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
    contested = [event for event in failed if event["reason"] == "ccache_contested"]
    refused = [event for event in failed if event not in contested]
    assert all("belongs to uid 100" in event["error"] for event in contested), failed
    assert all("runAsGroup" in event["advice"] for event in contested), failed
    # What the second one cannot read before it has published may be no ccache.
    assert mode == "0600" or not refused
    assert all("of uid 100" in event["error"] for event in refused), failed
    assert {"ccache_foreign"} >= {event["reason"] for event in refused}
    tickets = sum(len(one.find_events("ticket_acquired")) for one in daemons)
    assert tickets <= 4, "at the start, and once more each"
    taken = sum(len(one.find_events("ccache_taken")) for one in daemons)
    assert bool(contested) <= taken <= 2
