"""
The status as JSON, and the body of /readyz.
"""

import json

import pytest

from sidecar_runtime import DOCS
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.health import Health, Outcome, Readiness
from sidecar_runtime.http.status import readiness_facts, status
from tests.runtime.sidecars import ABOUT, READY, Sidecar
from tests.support.machine.clocks import Clock


@pytest.fixture
def health() -> Health:
    return Health(Clock())


def test_json_has_the_documented_keys(health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = SidecarError("access_denied", "may not", "allow it")
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.125)
    health.record(Outcome("changed", "r1", {"files": 3}), 0.125)
    monkeypatch.setattr("time.time", lambda: 1_700_000_010.5)
    health.record(Outcome("error", problem=problem), 0.5)
    health.expect_cycle(12.34, 0)

    facts = json.loads(json.dumps(status(ABOUT, health, READY)))

    assert {
        "sidecar": "box-sync",
        "version": "1.2.3",
        "pod": {"name": "box-0", "namespace": "airflow", "node": ""},
        "alive": True,
        "ready": True,
        "problem": None,
        "shortfall": None,
        "revision": "r1",
        "published_at": "2023-11-14T22:13:20.000+00:00",
        "source": "box://source",
        "target": "/target",
        "consecutive_failures": 1,
        "next_cycle_in_seconds": 12.3,
        "last_error": {
            "reason": "access_denied",
            "error": "may not",
            "advice": "allow it",
            "docs": f"{DOCS}/../sidecars/box-sync/README.md#failures",
            "since": "2023-11-14T22:13:30.500+00:00",
            "at": "2023-11-14T22:13:30.500+00:00",
        },
        "cycles": [
            {
                "started_at": "2023-11-14T22:13:30.000+00:00",
                "duration_seconds": 0.5,
                "result": "error",
                "reason": "access_denied",
            },
            {
                "started_at": "2023-11-14T22:13:20.000+00:00",
                "duration_seconds": 0.125,
                "result": "changed",
                "reason": None,
                "files": 3,
            },
        ],
        "details": {},
        "settings": {"INTERVAL": "5s"},
    } == facts


@pytest.mark.parametrize("problem", ["damaged", ""])
def test_readiness_has_the_problem_and_the_last_error(health: Health, problem: str) -> None:
    error = SidecarError("throttled", "slow down", "Ask less.")
    health.record(Outcome("error", problem=error), 0)

    sidecar = Sidecar(Readiness(not problem, "r1", problem=problem))

    facts = readiness_facts(ABOUT, health, sidecar)

    assert (not problem, problem or None) == (facts["ready"], facts["problem"])
    said = tuple(facts[name] for name in ("reason", "error", "advice"))
    assert ("throttled", "slow down", "Ask less.") == said


def test_an_invalid_time_is_not_shown(health: Health) -> None:
    """It is the time of a file, which another process may have set."""
    sidecar = Sidecar(Readiness(True, "r1", 1e15), {})

    assert status(ABOUT, health, sidecar)["published_at"] is None
