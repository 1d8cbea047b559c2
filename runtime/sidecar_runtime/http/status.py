"""
The facts of the status page as JSON; :mod:`sidecar_runtime.http.page` renders them as HTML.
"""

import hashlib
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from sidecar_runtime import DOCS
from sidecar_runtime.health import Health, Outcome
from sidecar_runtime.sidecar import Sidecar


class About(NamedTuple):
    """
    The identity of this process: image name, version, and a description of source and target.

    Args:
        pod: As in :func:`sidecar_runtime.app.find_pod`.
        settings: The settings that differ from the defaults, as written.
    """

    sidecar: str
    version: str
    source: str
    target: str
    pod: Mapping[str, str] = {}
    settings: Mapping[str, str] = {}


def status(about: About, health: Health, sidecar: Sidecar) -> dict[str, Any]:
    """
    Return the answer of /status, ready for JSON.
    """
    ready, revision, published_at, problem, shortfall = sidecar.readiness()
    error = health.last_error
    readme = f"{DOCS}/../sidecars/{quote(about.sidecar)}/README.md"
    return {
        **about._asdict(),
        "alive": health.is_alive,
        "ready": ready,
        "problem": problem or None,
        "shortfall": shortfall or None,
        "revision": revision or None,
        "published_at": _iso(published_at),
        "consecutive_failures": health.consecutive_failures,
        "last_error": error
        and error.log_fields()
        | {
            "docs": f"{readme}#failures",
            "since": _iso(health.failing_since),
            "at": _iso(health.last_error_at),
        },
        "next_cycle_in_seconds": _rounded(health.next_cycle_in_seconds),
        "cycles": [_cycle(*cycle) for cycle in health.past_cycles()],
        "details": sidecar.details(),
    }


def readiness_facts(about: About, health: Health, sidecar: Sidecar) -> dict[str, Any]:
    """
    Return the answer of /readyz, ready for JSON.
    """
    ready, revision, published_at, problem, shortfall = sidecar.readiness()
    error = health.last_error
    return {
        "ready": ready,
        "revision": revision or None,
        "shortfall": shortfall or None,
        "published_seconds_ago": _rounded(published_at and time.time() - published_at),
        "problem": problem or None,
        "reason": error.reason if error else None,
        "error": error.message if error else problem or None,
        "advice": (error.advice or None) if error else None,
        "identity": identity(about.sidecar, about.source),
    }


def identity(sidecar: str, source: str) -> str:
    """
    Return a digest by which a ``check`` recognizes the daemon of its source, for /readyz, which
    anyone may read.
    """
    return hashlib.sha256(f"{sidecar} {source}".encode(errors="replace")).hexdigest()[:16]


def _iso(moment: float | None) -> str | None:
    # Another process may have set the time of a file to anything.
    with suppress(ValueError, OverflowError, OSError):
        if moment is not None:
            return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _cycle(started_at: float, seconds: float, outcome: Outcome) -> dict[str, Any]:
    return {
        "started_at": _iso(started_at),
        "duration_seconds": round(seconds, 3),
        "result": outcome.result,
        "reason": outcome.problem.reason if outcome.problem else None,
        **outcome.counts,
    }
