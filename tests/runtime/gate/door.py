"""
A gate that runs a real program on a folder.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import (
    Check,
    Finding,
    Gate,
    GateMetrics,
    GateSettings,
    RevisionRefused,
    command_check,
    syntax_check,
)
from sidecar_runtime.http.endpoint import registry_of
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.settings import load
from tests.support.machine.clocks import Clock

PATIENCE_SECONDS = 30.0


class Door:
    """A gate for a folder, with its clock, metrics and fence."""

    def __init__(
        self, folder: Path, check: Check, timeout_seconds: float, variables: Sequence[str]
    ) -> None:
        self.folder = folder
        self.clock = Clock()
        self.metrics = Metrics("box", "1", "r")
        environ = {"X_HTTP_BIND": ":0", "X_GATE_ENV": " ".join(variables)}
        settings = replace(
            load(GateSettings, "X_", environ)[0], gate_timeout_seconds=timeout_seconds
        )
        self.gate = Gate(check, settings, GateMetrics(self.metrics), clock=self.clock)
        self.fence = Fence()

    def judge(self, revision: str = "r1", changed: Sequence[str] = ()) -> RevisionRefused | None:
        return self.gate.judge(revision, str(self.folder), changed, self.fence)

    def findings(self, changed: Sequence[str] = ()) -> list[Finding]:
        """Return the findings; empty if the folder is accepted."""
        refused = self.judge(changed=changed)
        return list(refused.findings) if refused else []

    def checks(self, result: str) -> float:
        labels = {"sidecar": "box", "result": result}
        return (
            registry_of(self.metrics.families).get_sample_value("sidecar_gate_checks_total", labels)
            or 0
        )

    @property
    def refused(self) -> float | None:
        return registry_of(self.metrics.families).get_sample_value(
            "sidecar_gate_refused", {"sidecar": "box"}
        )


Knock = Callable[..., Door]


@pytest.fixture
def knock(tmp_path: Path) -> Knock:
    """A factory of gates: with a shell script, or with the syntax check if `grammar` is given."""
    folder = tmp_path / "candidate"
    folder.mkdir()

    def make(script: str = "", timeout_seconds: float = PATIENCE_SECONDS, **changes: Any) -> Door:
        if "grammar" in changes:
            check = syntax_check(changes["grammar"])
        else:
            check = command_check(("sh", "-c", script))
        return Door(folder, check, timeout_seconds, changes.get("variables", ()))

    return make
