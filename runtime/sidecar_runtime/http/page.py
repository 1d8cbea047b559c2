"""
The status page for people: HTML without scripts.

Everything that is shown may be hostile (object keys, commit messages), so all of it is escaped,
and the page loads nothing: its one style sheet is inline and allowed by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from sidecar_runtime.printable import printable
from sidecar_runtime.sidecar import Names

STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;"
    "color:#1b1f24;background:#fff}"
    "h1{font-size:1.4rem}h2{font-size:1rem;margin-top:2rem}"
    "table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid #d8dee4;"
    "vertical-align:top;overflow-wrap:anywhere}"
    "th{font-weight:600;width:12rem}"
    ".cycles th{width:auto}.cycles :not(td:last-child){overflow-wrap:normal}"
    ".trouble{border-left:4px solid #a40e26;margin-bottom:1rem;background:#fff5f5}"
    ".trouble th,.trouble td{padding-left:.75rem;border:0}"
    "span{display:inline-block;font-size:1rem;padding:0 .6rem;border:1px solid;border-radius:1rem}"
    ".good{color:#116329}.bad{color:#a40e26}h1 .bad{color:#fff;background:#a40e26}"
    "@media(max-width:40rem){.cycles{font-size:.8rem}table:not(.cycles) tr{display:grid}"
    "table:not(.cycles) th{border:0;padding-bottom:0}}"
    "@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}"
    "th,td{border-color:#30363d}.good{color:#56d364}.bad{color:#ff7b72}h1 .bad{color:#fff}"
    ".trouble{border-color:#ff7b72;background:#2b1113}}"
)
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?(?:\+00:00|Z)")
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'"


def page(facts: Mapping[str, Any]) -> bytes:
    """
    Return the facts of :func:`status` as an HTML page without scripts.

    First what the person on call asks: what is wrong, since when, what to do, what is published.
    """
    name, failures = _text(facts["sidecar"]), facts["consecutive_failures"]
    marks = [
        _mark(facts["ready"], "ready" if facts["ready"] else "not ready"),
        _mark(facts["alive"], "alive" if facts["alive"] else "not alive"),
    ]
    if facts["last_error"]:
        marks.append(_mark(False, "failing" if failures else _result(facts)))
    shown = {
        "published": [facts["revision"], facts["published_at"]],
        "source": facts["source"],
        "target": facts["target"],
        "next cycle": _next_cycle(facts["next_cycle_in_seconds"]),
        "version": facts["version"],
    }
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<title>{name}</title><style>{STYLE}</style>",
        f"<main><h1>{name} {' '.join(marks)}</h1>",
        _table(_trouble(facts), "trouble"),
        _table(shown),
    ]
    if facts["details"]:
        parts += ["<h2>Details</h2>", _table(facts["details"])]
    parts += ["<h2>Last cycles</h2>", _history(facts["cycles"]), "</main></html>\n"]
    return "".join(parts).encode()


def _trouble(facts: Mapping[str, Any]) -> dict[str, object]:
    trouble: dict[str, object] = {"not ready": facts["problem"], "partial": facts["shortfall"]}
    if not facts["alive"]:
        trouble["not alive"] = "No cycle has finished in time: a restart would help."
    if error := facts["last_error"]:
        failures = facts["consecutive_failures"]
        trouble |= {
            "what is wrong": f"{error['reason']}: {error['error']}",
            "since": [error["since"], f"{failures} failures in a row" if failures > 1 else None],
            "what to do": error["advice"],
        }
    return trouble


def _result(facts: Mapping[str, Any]) -> str:
    """
    Return what the last cycle ended with, such as refused.
    """
    return str(facts["cycles"][0]["result"]) if facts["cycles"] else "failing"


def _mark(is_good: bool, words: str) -> str:
    return f"<span class={'good' if is_good else 'bad'}>{words}</span>"


def _table(facts: Mapping[str, Any], kind: str = "facts") -> str:
    """
    Return what is not empty, one row each; nothing where all is.
    """
    cells = {key: _cell(value) for key, value in facts.items()}
    rows = "".join(f"<tr><th>{_name(key)}<td>{cell}" for key, cell in cells.items() if cell)
    return rows and f"<table class={kind}>{rows}</table>"


def _name(key: object) -> str:
    """
    Return a name of ours as words; what else a sidecar goes by (a path) stays as it is.
    """
    name = str(key)
    return _text(name.replace("_", " ") if name.isidentifier() else name)


def _text(value: object) -> str:
    """
    Return text that is neither markup nor invisible.
    """
    return html.escape(printable(str(value)))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Names):
        return "<br>".join(f"{_text(k)}: {_cell(v)}" for k, v in value.items())
    if isinstance(value, Mapping):
        return "<br>".join(f"{_name(k)}: {_cell(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return "<br>".join(cell for cell in map(_cell, value) if cell)
    if isinstance(value, str) and (moment := _TIME.fullmatch(value)):
        with suppress(ValueError):  # any text may look like a time without being one
            away = _distance(datetime.fromisoformat(value).timestamp() - time.time())
            return f"<time datetime='{value}'>{moment[1]} {moment[2]} UTC</time>, {away}"
    return _text(value)


def _next_cycle(seconds: float | None) -> str | None:
    return None if seconds is None else _distance(seconds)


def _distance(seconds: float) -> str:
    """
    Return how far off a moment is, in the largest unit of which there are two.
    """
    amount, unit = abs(round(seconds)), "seconds"
    for larger, size in (("minutes", 60), ("hours", 60), ("days", 24)):
        if amount < 2 * size:
            break
        amount, unit = amount // size, larger
    if amount < 2:
        return "now"
    return f"in {amount} {unit}" if seconds > 0 else f"{amount} {unit} ago"


def _history(cycles: list[dict[str, Any]]) -> str:
    rows = ["<table class=cycles><tr><th>started<th>seconds<th>result<th>what"]
    for cycle in cycles:
        counts = [
            f"{_name(key)}: {_text(value)}"
            for key, value in cycle.items()
            if value and key not in ("started_at", "duration_seconds", "result", "reason")
        ]
        mark = " class=bad" if cycle["reason"] else ""
        rows.append(
            f"<tr><td>{_cell(cycle['started_at'])}<td>{cycle['duration_seconds']}"
            f"<td{mark}>{_text(cycle['result'])}"
            f"<td>{_text(cycle['reason'] or '') or ', '.join(counts)}"
        )
    return "".join(rows) + "</table>"
