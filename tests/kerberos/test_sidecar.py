"""
What watches keytabs beside the cycles.
"""

import threading
from pathlib import Path

import pytest

pytest.importorskip("gssapi", reason="gssapi is not compiled: make setup-test as root")

from kerberos_sidecar.metrics import KerberosMetrics
from kerberos_sidecar.settings import load_settings
from kerberos_sidecar.sidecar import POLL_SECONDS, KerberosSidecar
from tests.kerberos.given import ccache, entry, keytab, tgt
from tests.runtime.recording import Log


@pytest.fixture
def woken(tmp_path: Path) -> threading.Semaphore:
    """How often a sidecar with a ccache and an empty folder of keytabs has asked for a cycle."""
    (tmp_path / "keytab").mkdir()
    (tmp_path / "cc").write_bytes(ccache(tgt(1_700_000_001)))
    settings, _ = load_settings(
        {"KERBEROS_KEYTAB_DIR": str(tmp_path / "keytab"), "KERBEROS_CCACHE": str(tmp_path / "cc")}
    )
    woken = threading.Semaphore(0)
    KerberosSidecar(settings, KerberosMetrics("1", "r")).watch(woken.release, 3600.0)
    assert not woken.acquire(timeout=0.1)
    return woken


def test_a_keytab_that_appears_asks_for_a_cycle_at_once(
    log: Log, woken: threading.Semaphore, tmp_path: Path
) -> None:
    (tmp_path / "keytab" / "k").write_bytes(keytab(entry()))

    assert woken.acquire(timeout=10)
    assert log.events("keytab_changed")


def test_a_ccache_that_is_lost_asks_for_a_cycle_once(
    log: Log, woken: threading.Semaphore, tmp_path: Path
) -> None:
    """Else it would wait until the failure of another principal is tried again."""
    (tmp_path / "cc").unlink()

    assert woken.acquire(timeout=10)
    assert not woken.acquire(timeout=0.1)


def test_what_the_kernel_does_not_tell_is_seen_at_the_next_look(tmp_path: Path) -> None:
    """As what another machine does on a network file system, or where no watch is left."""
    (tmp_path / "cc").write_bytes(ccache(tgt(1_700_000_001)))
    settings, _ = load_settings(
        {"KERBEROS_KEYTAB": "/nonexistent/k", "KERBEROS_CCACHE": str(tmp_path / "cc")}
    )
    woken = threading.Semaphore(0)
    KerberosSidecar(settings, KerberosMetrics("1", "r")).watch(woken.release, 3600.0)
    assert not woken.acquire(timeout=0.1)

    (tmp_path / "cc").unlink()

    assert woken.acquire(timeout=10)
    assert 10.0 == POLL_SECONDS
