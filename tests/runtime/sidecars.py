"""
A sidecar with fixed facts, for the tests that show them.
"""

from sidecar_runtime.health import Readiness
from sidecar_runtime.http.status import About
from tests.runtime.recording import Script

ABOUT = About(
    "box-sync",
    "1.2.3",
    "box://source",
    "/target",
    pod={"name": "box-0", "namespace": "airflow", "node": ""},
    settings={"INTERVAL": "5s"},
)


class Sidecar(Script):
    """A sidecar that returns the given readiness and details."""

    def __init__(self, readiness: Readiness, details: dict[str, object] | None = None) -> None:
        super().__init__()
        self._readiness = readiness
        self._details = details or {}

    def readiness(self) -> Readiness:
        return self._readiness

    def details(self) -> dict[str, object]:
        return self._details


READY = Sidecar(Readiness(True, "r1", 1_700_000_000.0))
