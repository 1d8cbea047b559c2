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
from tests.kerberos.given import entry, keytab
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
