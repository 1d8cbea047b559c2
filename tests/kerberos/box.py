"""
Runs the cycles of a sidecar one by one, without its loop.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("gssapi", reason="gssapi is not compiled: make setup-test as root")

from kerberos_sidecar.cycle import Shared
from kerberos_sidecar.metrics import KerberosMetrics
from kerberos_sidecar.settings import load_settings
from kerberos_sidecar.sidecar import KerberosSidecar
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.http.endpoint import registry_of
from tests.kerberos.given import ccache, tgt
from tests.runtime.recording import Log
from tests.support.raising import raised

ANOTHERS = ccache(tgt(1 << 31, name="other"), name="other")


class Box:
    """A sidecar without its loop: the test starts each cycle."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.ccache = folder / "cc" / "ccache"
        self.ccache.parent.mkdir(exist_ok=True)
        given = {
            "KRB5_CONFIG": os.environ["KRB5_CONFIG"],
            "KERBEROS_KEYTAB_DIR": str(folder / "keytab"),
            "KERBEROS_CCACHE": str(self.ccache),
        }
        given = {name: value for name, value in {**given, **environ}.items() if value}
        settings, _ = load_settings(given)
        self.metrics = KerberosMetrics("1", "r")
        self.sidecar = KerberosSidecar(settings, self.metrics, Shared(backoff=lambda *_: 0.0))
        self._session = self.sidecar.begin()

    def cycle(self, fence: Fence | None = None) -> Outcome:
        return self._session.cycle(fence or Fence())

    def fails(self) -> SidecarError:
        return raised(SidecarError, self.cycle)

    def sample(self, name: str, ccache: Path | None = None) -> float | None:
        for metric in registry_of(self.metrics.families).collect():
            for sample in metric.samples:
                if sample.name == name and sample.labels["ccache"] == str(ccache or self.ccache):
                    return sample.value
        return None


Start = Callable[..., Box]


def causes(log: Log) -> list[str]:
    return [event["cause"] for event in log.events("ticket_acquired")]
