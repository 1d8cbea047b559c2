"""
A full, closed or hanging volume, foreign files, and damage by consumers.
"""

import os
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from tests import Facts, Plant
from tests.support.kerberos.formats import SABOTAGE, entry, keytab
from tests.support.kerberos.kdc_proxy import KdcProxy
from tests.support.kerberos.site import Site, assert_tells, failure, with_ccaches
from tests.support.machine.plants import state_of
from tests.support.machine.volumes import disk, fill_up, mount, small_volume
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


@contextmanager
def frozen(volume: Path) -> Iterator[None]:
    """Let each write to a volume wait, as a file server that is away does."""
    subprocess.run(["fsfreeze", "--freeze", volume], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", volume], check=True)


def test_a_volume_that_hangs_ends_the_cycle_and_neither_probes_nor_the_ticket(
    here: Site,
) -> None:
    with disk(here.folder) as volume:
        ccache = volume / "cc"
        daemon = here.start(KERBEROS_CCACHE=str(ccache), KERBEROS_TIMEOUT="2s")
        daemon.wait_until_ready()
        after = len(daemon.events)
        with frozen(volume):
            daemon.sighup()

            failed = daemon.wait_for_event(
                "cycle_failed", after=after, reason="cycle_timeout"
            )
            assert (
                f"Z it waits for {ccache}, {here.keytab} or krb5.conf"
                in failed["error"]
            ), failed
            assert_tells(daemon, "cycle_timeout", ready=True)
            assert here.is_valid(ccache)
        daemon.sighup()
        daemon.wait_for_event("ticket_acquired", after=after)
        daemon.terminate()


# Raises from each call that removes what is at the path.
REMOVES_NOTHING = """
def refuse(event, arguments):
    assert event not in ("os.rmdir", "os.remove") or "/." in arguments[0]

import sys
sys.addaudithook(refuse)
"""


@pytest.mark.parametrize(
    ("name", "mode", "reason", "said"),
    [
        ("cc", 0o755, "ccache_denied", "as uid 50000"),
        ("cc", 0o1777, "ccache_denied", "as uid 50000"),
        ("nowhere/cc", 0o777, "ccache_missing", "No such file"),
    ],
)
def test_a_path_where_the_ccache_cannot_be_replaced_is_named_without_a_request(
    here: Site, name: str, mode: int, reason: str, said: str
) -> None:
    """
    In a sticky folder, as `/tmp`, only the owner of a file can replace it. Whether the
    system permits that is asked without a write.
    """
    (here.folder / "sitecustomize.py").write_text(REMOVES_NOTHING)
    folder = here.ccache.parent
    there = folder / name
    (folder / "cc").write_bytes(b"\5\4 of root")
    folder.chmod(mode)
    asked = here.kdc.requests()
    daemon = here.start(
        program=here.as_user(50000),
        KERBEROS_CCACHE=str(there),
        PYTHONPATH=str(here.folder),
    )

    failed = failure(daemon)

    assert reason == failed["reason"], failed
    assert str(there) in failed["error"] and said in failed["error"], failed
    assert_tells(daemon, reason, ready=False)
    assert (asked, []) == (here.kdc.requests(), here.leftovers("cc"))
    if mode == 0o1777:
        os.chown(there, 50000, 0)
        daemon.sighup()
        daemon.wait_until_ready()


def test_a_volume_that_keeps_no_mode_is_named(here: Site) -> None:
    """As CIFS, which has one mode for all files."""
    (here.folder / "sitecustomize.py").write_text(
        "import os; os.fchmod = lambda file, mode: None"
    )

    failed = failure(here.start(PYTHONPATH=str(here.folder)))

    assert "ccache_failed" == failed["reason"], failed
    assert "gives all files mode 0600: mount it with" in failed["error"], failed


def test_a_file_that_is_mounted_at_the_path_is_named_without_a_request(
    here: Site,
) -> None:
    """Also if a name in the table of mounts is not UTF-8."""
    odd = here.folder / os.fsdecode(b"odd \xff")
    for path in (odd, here.ccache):
        path.touch()
        assert mount("--bind", str(path), str(path))
    asked = here.kdc.requests()

    failed = failure(here.start())

    assert "ccache_foreign" == failed["reason"], failed
    assert f"{here.ccache} is a mount" in failed["error"], failed
    assert (asked, []) == (here.kdc.requests(), here.leftovers())
    subprocess.run(["umount", "--lazy", here.ccache, odd], check=True)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def make_folder(path: Path) -> None:
    path.mkdir()
    (path / "a").write_bytes(b"of somebody")


def of_root(path: Path) -> None:
    path.write_bytes(keytab(entry()))
    path.chmod(0o600)


def link_to(name: str) -> Plant:
    """Link to another file of the folder, which exists or not."""
    return lambda path: path.symlink_to(name)


KEYTAB = keytab(entry())
FOREIGN: dict[str, tuple[Plant, str]] = {
    "keytab": (lambda path: path.write_bytes(KEYTAB), "is a keytab"),
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
ALWAYS = ("keytab", "folder")
"""What is not overwritten either after it has taken the place of our ccache."""


def contents(folder: Path) -> Facts:
    """Return what is in a folder, except what the sidecar stages there."""
    return {
        name: state
        for name, state in state_of(folder).items()
        if not name.startswith(".")
    }


def one_ccache_each(here: Site, kinds: Iterable[str]) -> dict[str, Path]:
    return {kind: here.ccache.parent / f"cc {kind}" for kind in kinds}


def unnamed(text: str, ccaches: dict[str, Path]) -> list[str]:
    """Return the kinds whose ccache and content a text does not name."""
    return [
        kind
        for kind, path in ccaches.items()
        if f"{path} is" not in text or FOREIGN[kind][1] not in text
    ]


def test_never_overwrites_what_is_not_a_ccache(here: Site) -> None:
    folder = here.ccache.parent
    (folder / "canary").write_bytes(KEYTAB)
    here.publish().terminate()
    here.ccache.rename(folder / "valid")
    folder.chmod(0o777)
    ccaches = one_ccache_each(here, FOREIGN)
    for kind, path in ccaches.items():
        FOREIGN[kind][0](path)
    program = here.as_user(50000)
    settings = with_ccaches(here, ccaches.values())
    before = contents(folder)
    asked = here.kdc.requests()
    daemon = here.start(program=program, **settings)

    failed = failure(daemon)
    checked = here.start("check", program=program, **settings)

    assert "ccache_foreign" == failed["reason"], failed
    assert [] == unnamed(failed["error"], ccaches), failed
    assert_tells(daemon, "ccache_foreign", ready=False)
    assert daemon.get("/readyz").json()["published_seconds_ago"] is None
    assert 3 == checked.wait_for_exit().code
    assert [] == unnamed(checked.log(), ccaches), checked.log()
    assert before == contents(folder)
    assert asked == here.kdc.requests()
    for path in ccaches.values():
        path.rename(path.with_name(f"away {path.name}"))
    # Nothing is lost: `touch` and a killed `kinit` leave such files.
    for kind, content in {"text": b"", "pipe": b"\5\4", "folder": b"\5\3\0\0"}.items():
        ccaches[kind].write_bytes(content)
    daemon.sighup()
    daemon.wait_until_ready()
    assert all(is_restored(here, path) for path in ccaches.values())
    # What cannot be made again is not overwritten after a publish either.
    ours = {kind: ccaches[kind] for kind in ALWAYS}
    for kind, path in ours.items():
        FOREIGN[kind][0](folder / "new")
        path.unlink()
        (folder / "new").rename(path)
    planted = {path: state_of(path) for path in ours.values()}
    after = len(daemon.events)
    daemon.sighup()

    failed = failure(daemon, after)

    assert [] == unnamed(failed["error"], ours), failed
    assert planted == {path: state_of(path) for path in ours.values()}


def test_a_keytab_that_comes_during_the_request_is_not_overwritten(
    here: Site, proxy: KdcProxy
) -> None:
    here.configure(proxy.address)
    proxy.behavior = "silent"
    daemon = here.start()
    wait_until(lambda: proxy.requests, "the KDC is asked")
    here.ccache.write_bytes(KEYTAB)
    proxy.behavior = "relay"

    assert "ccache_foreign" == failure(daemon)["reason"]
    assert KEYTAB == here.ccache.read_bytes()


def test_restores_the_ccache_whatever_a_consumer_replaces_it_with(here: Site) -> None:
    ccaches = one_ccache_each(here, SABOTAGE)
    daemon = here.publish(**with_ccaches(here, ccaches.values()))
    for kind, path in ccaches.items():
        path.unlink()
        with suppress(FileExistsError):  # the sidecar was faster
            SABOTAGE[kind](path)

    for path in ccaches.values():
        # before the next heartbeat, which would notice it as well
        wait_until(partial(is_restored, here, path), "it is restored", 30)
    daemon.wait_until_ready()
    assert {"start", "missing", "damaged"} == {
        event["cause"] for event in daemon.find_events("ticket_acquired")
    }


def is_restored(here: Site, path: Path) -> bool:
    """Whether it is a valid ccache; klist would wait for the other end of a pipe."""
    return path.is_file() and not path.is_symlink() and here.is_valid(path)
