"""
What watches keytabs beside the cycles.
"""

import threading
from pathlib import Path

import pytest

pytest.importorskip("gssapi", reason="gssapi is not compiled: make setup as root")

from kerberos_sidecar import sidecar as module
from kerberos_sidecar.metrics import KerberosMetrics
from kerberos_sidecar.settings import load_settings
from kerberos_sidecar.sidecar import KerberosSidecar
from tests.kerberos.given import ccache, entry, keytab, tgt
from tests.runtime.recording import Log


def test_a_keytab_that_appears_asks_for_a_cycle_at_once(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.01)
    (tmp_path / "keytab").mkdir()
    settings, _ = load_settings(
        {"KERBEROS_KEYTAB_DIR": str(tmp_path / "keytab"), "KERBEROS_CCACHE": str(tmp_path / "cc")}
    )
    woken = threading.Event()
    KerberosSidecar(settings, KerberosMetrics("1", "r")).watch(woken.set)
    assert not woken.wait(0.1)

    (tmp_path / "keytab" / "k").write_bytes(keytab(entry()))

    assert woken.wait(10)
    assert log.events("keytab_changed")


def test_a_ccache_that_is_lost_asks_for_a_cycle_once(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Else it would wait until the failure of another principal is tried again.
    """
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.01)
    (tmp_path / "keytab").mkdir()
    path = tmp_path / "cc"
    path.write_bytes(ccache(tgt(1_700_000_001)))
    settings, _ = load_settings(
        {"KERBEROS_KEYTAB_DIR": str(tmp_path / "keytab"), "KERBEROS_CCACHE": str(path)}
    )
    woken = threading.Semaphore(0)
    KerberosSidecar(settings, KerberosMetrics("1", "r")).watch(woken.release)
    assert not woken.acquire(timeout=0.1)

    path.unlink()

    assert woken.acquire(timeout=10)
    assert not woken.acquire(timeout=0.1)
