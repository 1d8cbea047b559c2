"""
Readiness of the ccaches on the volume, and the watch for changed ccaches and keytabs.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("gssapi", reason="gssapi is not compiled: make setup-test as root")

from kerberos_sidecar.formats.ccache import read_ticket
from kerberos_sidecar.metrics import KerberosMetrics
from kerberos_sidecar.plan import Acquired
from kerberos_sidecar.settings import load_settings
from kerberos_sidecar.sidecar import PAUSE_SECONDS, KerberosSidecar
from kerberos_sidecar.slot import Slot
from tests.kerberos.box import Box, Start
from tests.kerberos.given import SABOTAGE, ccache, entry, keytab, tgt
from tests.runtime.recording import Log
from tests.support.kerberos.kdc import REALM

POLL = 3600.0
LATER = 4_000_000_000


@pytest.fixture
def sidecar(tmp_path: Path) -> KerberosSidecar:
    """A sidecar with a published ccache and an empty keytab folder."""
    (tmp_path / "keytab").mkdir()
    (tmp_path / "cc").write_bytes(ccache(tgt(LATER)))
    settings, _ = load_settings(
        {"KERBEROS_KEYTAB_DIR": str(tmp_path / "keytab"), "KERBEROS_CCACHE": str(tmp_path / "cc")}
    )
    sidecar = KerberosSidecar(settings, KerberosMetrics("1", "r"))
    (slot,) = sidecar._slots
    ticket = read_ticket((tmp_path / "cc").read_bytes())
    at = time.monotonic()
    slot.last = Acquired(ticket, at, slot.source.stamp(), POLL, "interval", time.time() - at)
    return sidecar


@pytest.fixture
def woken(sidecar: KerberosSidecar) -> threading.Semaphore:
    """The number of cycles that the sidecar has requested."""
    woken = threading.Semaphore(0)
    sidecar.watch(woken.release, POLL)
    assert not woken.acquire(timeout=0.1)
    return woken


def test_a_new_keytab_triggers_a_cycle_immediately(
    log: Log, woken: threading.Semaphore, tmp_path: Path
) -> None:
    (tmp_path / "keytab" / "k").write_bytes(keytab(entry()))

    assert woken.acquire(timeout=10)
    assert log.events("keytab_changed")


def test_a_keytab_that_changes_before_the_thread_has_begun_is_reported(
    log: Log, sidecar: KerberosSidecar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, woken = threading.Thread.start, threading.Semaphore(0)

    def start_late(thread: threading.Thread) -> None:
        (tmp_path / "keytab" / "k").write_bytes(keytab(entry()))
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    sidecar.watch(woken.release, POLL)

    assert woken.acquire(timeout=10)
    assert log.events("keytab_changed")


@pytest.mark.parametrize("kind", SABOTAGE)
def test_a_lost_or_damaged_ccache_triggers_a_cycle_immediately(
    woken: threading.Semaphore, tmp_path: Path, kind: str
) -> None:
    """Only inotify can have reported it, because the next check is an hour away."""
    (tmp_path / "cc").unlink()
    SABOTAGE[kind](tmp_path / "cc")

    assert woken.acquire(timeout=10)


def test_a_ccache_lost_before_the_first_check_triggers_a_cycle(
    sidecar: KerberosSidecar, tmp_path: Path
) -> None:
    """The ccache was published and lost between two checks, so no check sees a difference."""
    (tmp_path / "cc").unlink()
    woken = threading.Semaphore(0)
    sidecar.watch(woken.release, POLL)

    assert woken.acquire(timeout=10)


def lose_ccache(slot: Slot) -> None:
    """inotify reports changes in the folder, but not that the folder itself is renamed."""
    folder = Path(slot.entry.ccache).parent
    folder.rename(folder.with_name("gone"))


def set_clock(slot: Slot) -> None:
    assert slot.last is not None
    slot.last = replace(slot.last, zero_at=slot.last.zero_at - 600)


@pytest.mark.parametrize("change", [lose_ccache, set_clock])
def test_the_next_check_notices_changes_that_inotify_misses(
    sidecar: KerberosSidecar, change: Callable[[Slot], None]
) -> None:
    """As on a network file system, when all inotify watches are in use, or of the clock."""
    woken = threading.Semaphore(0)
    sidecar.watch(woken.release, poll_seconds=1.0)
    assert not woken.acquire(timeout=2 * PAUSE_SECONDS)  # the first check is over

    change(sidecar._slots[0])

    assert woken.acquire(timeout=10)


def test_is_ready_after_a_restart_before_any_cycle(start: Start, box: Box) -> None:
    box.cycle()
    published_at = box.ccache.stat().st_mtime

    ready = start().sidecar.readiness()

    assert (True, published_at, "") == (ready.ready, ready.published_at, ready.problem)
    assert ready.revision.startswith("until 20")


@pytest.mark.parametrize("mode", [0o2700, 0o701], ids=oct)
def test_warns_about_a_folder_that_the_group_cannot_enter_but_stays_ready(
    box: Box, log: Log, start: Start, mode: int
) -> None:
    """Airflow may run with our uid, or enter the folder with the rights of others."""
    box.ccache.parent.chmod(mode)
    closed = start()

    closed.cycle()

    assert closed.sidecar.readiness().ready
    warning = (
        f"{box.ccache} is in {box.ccache.parent} (mode {mode:04o}), which its group cannot enter"
    )
    details = closed.sidecar.details()[str(box.ccache)]
    assert isinstance(details, dict)
    assert warning == details["warning"]
    closed.sidecar.watch(lambda: None)
    assert [str(box.ccache)] == [event["ccache"] for event in log.events("folder_closed")]


def test_no_warning_if_all_readers_can_enter_the_folder(box: Box, log: Log, start: Start) -> None:
    for folder_mode, mode in ((0o2750, "0640"), (0o700, "0600")):
        box.ccache.parent.chmod(folder_mode)
        start(KERBEROS_CCACHE_MODE=mode).sidecar.watch(lambda: None)

    assert [] == log.events("folder_closed")


@pytest.mark.parametrize(
    ("principal", "owner", "problem"),
    [
        ("", "airflow", "cannot be verified"),
        ("airflow", "airflow", "cannot be verified"),
        (f"airflow@{REALM}", "airflow", ""),
        (f"airflow@{REALM}", "other", "belongs to other"),
    ],
)
def test_is_ready_without_a_keytab_only_for_the_named_principals_ticket(
    start: Start, tmp_path: Path, keytab: Path, principal: str, owner: str, problem: str
) -> None:
    box = start(KERBEROS_PRINCIPAL=principal)
    box.ccache.write_bytes(ccache(tgt(1 << 31, name=owner, realm=REALM), name=owner, realm=REALM))
    keytab.unlink()

    ready = start(KERBEROS_PRINCIPAL=principal).sidecar.readiness()

    assert (not problem, True) == (ready.ready, problem in ready.problem)


def test_readiness_takes_the_principal_from_the_keytab_before_any_cycle(start: Start) -> None:
    box = start()
    box.ccache.write_bytes(
        ccache(tgt(1 << 31, name="other", realm=REALM), name="other", realm=REALM)
    )

    assert f"belongs to other@{REALM}, not to airflow@{REALM}" in box.sidecar.readiness().problem


def test_warns_if_keytab_and_ccache_are_in_one_folder(
    start: Start, tmp_path: Path, keytab: Path, log: Log
) -> None:
    (tmp_path / "link").symlink_to(keytab.parent)
    same = [f"{keytab.parent}/ccache", f"{tmp_path}/link/ccache"]
    for path in (*same, f"{tmp_path}/elsewhere"):
        start(KERBEROS_CCACHE=path).sidecar.watch(lambda: None)

    assert same == [event["ccache"] for event in log.events("keytab_exposed")]
