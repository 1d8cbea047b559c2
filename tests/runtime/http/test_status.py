"""
The status as JSON, and the body of /readyz.
"""

import json

import pytest

from sidecar_runtime import DOCS
from sidecar_runtime.health import Health, LastError, PastCycle, Readiness
from sidecar_runtime.http.status import readiness_body, status
from sidecar_runtime.identity import identity
from tests.runtime.sidecars import ABOUT, READY, Sidecar


@pytest.fixture
def health() -> Health:
    return Health()


def test_json_has_the_documented_keys(health: Health) -> None:
    health.record(PastCycle(1_700_000_000.0, 0.1234567, "changed", "", {"files": 3}), None)
    health.record(
        PastCycle(1_700_000_010.0, 0.5, "error", "access_denied", {}),
        LastError("access_denied", "may not", "allow it", 1_700_000_010.5),
    )
    health.expect_cycle(12.34)

    facts = json.loads(json.dumps(status(ABOUT, health, READY)))

    next_cycle = facts.pop("next_cycle_in_seconds")
    assert next_cycle == pytest.approx(12.3, abs=0.3)
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
        "last_error": {
            "reason": "access_denied",
            "error": "may not",
            "advice": "allow it",
            "docs": f"{DOCS}/reference/reasons.md#box-sync-access_denied",
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
                "duration_seconds": 0.123,
                "result": "changed",
                "reason": None,
                "files": 3,
            },
        ],
        "details": {},
        "settings": {"INTERVAL": "5s"},
    } == facts


def test_json_before_the_first_cycle(health: Health) -> None:
    facts = status(ABOUT, health, Sidecar(Readiness(False, problem="no cycle yet")))

    assert (False, "no cycle yet") == (facts["ready"], facts["problem"])
    assert (None, None, None) == (facts["revision"], facts["published_at"], facts["last_error"])
    assert (None, []) == (facts["next_cycle_in_seconds"], facts["cycles"])


@pytest.mark.parametrize("is_ready", [True, False])
def test_readiness_has_revision_and_age(health: Health, is_ready: bool) -> None:
    sidecar = Sidecar(Readiness(is_ready, "r1", 1_000.0, "" if is_ready else "2 files missing"))

    ready, body = readiness_body(ABOUT, health, sidecar)
    facts = json.loads(body)

    assert ready is is_ready
    assert facts.pop("published_seconds_ago") > 1_000_000
    assert {
        "ready": is_ready,
        "revision": "r1",
        "shortfall": None,
        "problem": None if is_ready else "2 files missing",
        "reason": None,
        "error": None if is_ready else "2 files missing",
        "advice": None,
        "identity": identity("box-sync", "box://source"),
    } == facts


@pytest.mark.parametrize("problem", ["damaged", ""])
def test_readiness_has_the_problem_and_the_last_error(health: Health, problem: str) -> None:
    error = LastError("throttled", "slow down", "Ask less.", 0)
    health.record(PastCycle(0, 0, "error", "throttled", {}), error)

    sidecar = Sidecar(Readiness(not problem, "r1", problem=problem))

    ready, body = readiness_body(ABOUT, health, sidecar)

    facts = json.loads(body)
    assert (not problem, problem or None) == (ready, facts["problem"])
    said = tuple(facts[name] for name in ("reason", "error", "advice"))
    assert ("throttled", "slow down", "Ask less.") == said


def test_readiness_contains_an_identity_instead_of_source_and_target(health: Health) -> None:
    _, body = readiness_body(ABOUT, health, READY)

    assert ABOUT.source not in body.decode() and ABOUT.target not in body.decode()
    one, *others = [(ABOUT.sidecar, ABOUT.source), ("other", ABOUT.source), (ABOUT.sidecar, "x")]
    assert identity(*one) not in [identity(*other) for other in others]


def test_an_invalid_time_is_not_shown(health: Health) -> None:
    """It is the time of a file, which another process may have set."""
    sidecar = Sidecar(Readiness(True, "r1", 1e15), {})

    assert status(ABOUT, health, sidecar)["published_at"] is None
