"""
The facts of the status page as JSON; :mod:`sidecar_runtime.http.page` renders them as HTML.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from sidecar_runtime import DOCS
from sidecar_runtime.health import Health, PastCycle
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
    readiness = sidecar.readiness()
    error = health.last_error
    return {
        **about._asdict(),
        "alive": health.is_alive,
        "ready": readiness.ready,
        "problem": readiness.problem or None,
        "shortfall": readiness.shortfall or None,
        "revision": readiness.revision or None,
        "published_at": _iso(readiness.published_at),
        "consecutive_failures": health.consecutive_failures,
        "last_error": error
        and {
            "reason": error.reason,
            "error": error.message,
            "advice": error.advice,
            "docs": f"{DOCS}/reference/reasons.md#{quote(f'{about.sidecar}-{error.reason}')}",
            "since": _iso(health.failing_since),
            "at": _iso(error.at),
        },
        "next_cycle_in_seconds": _rounded(health.next_cycle_in_seconds),
        "cycles": [_cycle(cycle) for cycle in health.past_cycles()],
        "details": sidecar.details(),
    }


def readiness_facts(about: About, health: Health, sidecar: Sidecar) -> dict[str, Any]:
    """
    Return the answer of /readyz, ready for JSON.
    """
    readiness = sidecar.readiness()
    error = health.last_error
    published = readiness.published_at
    return {
        "ready": readiness.ready,
        "revision": readiness.revision or None,
        "shortfall": readiness.shortfall or None,
        "published_seconds_ago": _rounded(time.time() - published) if published else None,
        "problem": readiness.problem or None,
        "reason": error.reason if error else None,
        "error": error.message if error else readiness.problem or None,
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
    if moment is None:
        return None
    try:
        return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):  # another process may have set any file time
        return None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _cycle(cycle: PastCycle) -> dict[str, Any]:
    return {
        "started_at": _iso(cycle.started_at),
        "duration_seconds": round(cycle.duration_seconds, 3),
        "result": cycle.result,
        "reason": cycle.reason or None,
        **cycle.counts,
    }
