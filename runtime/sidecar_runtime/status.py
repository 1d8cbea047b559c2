"""
The status page: the same facts as JSON and for people.

Everything that is shown may be hostile (object keys, commit authors), so all of it is escaped,
and the page loads nothing: its one style sheet is inline and allowed by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sidecar_runtime.health import Health, PastCycle
from sidecar_runtime.sidecar import Sidecar

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;"
    "color:#1b1f24;background:#fff}"
    "h1{font-size:1.3rem}h2{font-size:1rem;margin-top:2rem}"
    "table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid #d8dee4;"
    "vertical-align:top}td{overflow-wrap:anywhere}"
    "th{font-weight:600;width:12rem}"
    ".cycles th{width:auto}.cycles td:not(:last-child){overflow-wrap:normal}"
    "@media(max-width:40rem){th{width:7rem}}"
    ".good{color:#116329}.bad{color:#a40e26}"
    "p.error{border-left:4px solid #a40e26;padding:.25rem .75rem;background:#fff5f5}"
    "@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}"
    "th,td{border-color:#30363d}.good{color:#56d364}.bad{color:#ff7b72}"
    "p.error{background:#2b1113}}"
)
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?\+00:00")
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'"


@dataclass(frozen=True, slots=True)
class About:
    """
    What this process is: image name, version, and in words where from and where to.
    """

    sidecar: str
    version: str
    source: str
    target: str


def status(about: About, health: Health, sidecar: Sidecar) -> dict[str, Any]:
    """
    Return what /status answers, ready for JSON.
    """
    readiness = sidecar.readiness()
    error = health.last_error
    return {
        "sidecar": about.sidecar,
        "version": about.version,
        "alive": health.is_alive,
        "ready": readiness.ready,
        "problem": readiness.problem or None,
        "revision": readiness.revision or None,
        "published_at": _iso(readiness.published_at),
        "source": about.source,
        "target": about.target,
        "consecutive_failures": health.consecutive_failures,
        "last_error": error
        and {
            "reason": error.reason,
            "error": error.message,
            "advice": error.advice,
            "at": _iso(error.at),
        },
        "next_cycle_in_seconds": _rounded(health.next_cycle_in_seconds),
        "cycles": [_cycle(cycle) for cycle in health.past_cycles()],
        "details": sidecar.details(),
    }


def readiness_body(health: Health, sidecar: Sidecar) -> tuple[bool, bytes]:
    """
    Return whether the sidecar is ready, and what /readyz says of it.
    """
    readiness = sidecar.readiness()
    error = health.last_error
    published = readiness.published_at
    body = {
        "ready": readiness.ready,
        "revision": readiness.revision or None,
        "published_seconds_ago": _rounded(time.time() - published) if published else None,
        "reason": error.reason if error else None,
        "error": error.message if error else readiness.problem or None,
    }
    return readiness.ready, json.dumps(body).encode() + b"\n"


def page(facts: Mapping[str, Any]) -> bytes:
    """
    Return the facts of :func:`status` as an HTML page without scripts.
    """
    title = html.escape(str(facts["sidecar"]))
    error = facts["last_error"]
    shown = {
        key: facts[key]
        for key in ("source", "target", "revision", "published_at", "problem")
        if facts[key] is not None
    }
    if (seconds := facts["next_cycle_in_seconds"]) is not None:
        shown["next cycle"] = f"in {timedelta(seconds=round(seconds))}"
    shown["failures in a row"] = facts["consecutive_failures"]
    shown["version"] = facts["version"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<title>{title}</title><style>{STYLE}</style>",
        f"<h1>{title} {_mark(facts['ready'], 'ready')} {_mark(facts['alive'], 'alive')}</h1>",
    ]
    if error:
        advice = f"<br>{html.escape(error['advice'])}" if error["advice"] else ""
        parts.append(
            f"<p class=error><b>{html.escape(error['reason'])}</b> {html.escape(error['error'])}"
            f"{advice}<br>{_cell(error['at'])}</p>"
        )
    parts.append(_table(shown))
    if facts["details"]:
        parts += ["<h2>Details</h2>", _table(facts["details"])]
    parts += ["<h2>Last cycles</h2>", _history(facts["cycles"]), "</html>\n"]
    return "".join(parts).encode(errors="replace")


def _iso(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


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


def _mark(is_good: bool, word: str) -> str:
    return f"<span class={'good' if is_good else 'bad'}>{'' if is_good else 'not '}{word}</span>"


def _table(facts: Mapping[str, Any]) -> str:
    rows = (
        f"<tr><th>{html.escape(_name(str(key)))}<td>{_cell(value)}" for key, value in facts.items()
    )
    return f"<table>{''.join(rows)}</table>"


def _name(key: str) -> str:
    """
    Return a name of ours as words; what else a sidecar goes by (a path) stays as it is.
    """
    return key.replace("_", " ") if key.isidentifier() else key


def _cell(value: object) -> str:
    if isinstance(value, Mapping):
        return "<br>".join(f"{html.escape(_name(str(k)))}: {_cell(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return "<br>".join(_cell(item) for item in value)
    if isinstance(value, str) and (moment := _TIME.fullmatch(value)):
        return f"<time datetime='{value}'>{moment[1]} {moment[2]} UTC</time>"
    return html.escape(str(value))


def _history(cycles: list[dict[str, Any]]) -> str:
    rows = ["<table class=cycles><tr><th>started<th>seconds<th>result<th>what"]
    for cycle in cycles:
        counts = {
            key.replace("_", " "): value
            for key, value in cycle.items()
            if value and key not in ("started_at", "duration_seconds", "result", "reason")
        }
        what = cycle["reason"] or ", ".join(f"{key}: {value}" for key, value in counts.items())
        mark = " class=bad" if cycle["reason"] else ""
        rows.append(
            f"<tr><td>{_cell(cycle['started_at'])}<td>{cycle['duration_seconds']}"
            f"<td{mark}>{html.escape(cycle['result'])}<td>{html.escape(what)}"
        )
    return "".join(rows) + "</table>"
