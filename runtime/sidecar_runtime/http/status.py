"""
The status page: its facts as JSON, and the same for people, as HTML without scripts.

All content may be hostile (object keys, commit messages), so all of it is escaped. The
page loads nothing: its one style sheet is inline, and allowed by its hash.
"""

import base64
import hashlib
import html
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from sidecar_runtime import DOCS
from sidecar_runtime.errors import printable
from sidecar_runtime.health import CALM, About, Health, Names, Outcome, Sidecar

STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;"
    "color:CanvasText;background:Canvas}"
    "h1{font-size:1.4rem;margin:0 0 .75rem}h2{font-size:1rem;margin:2rem 0 .25rem}"
    "table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;vertical-align:top;overflow-wrap:anywhere;"
    "padding:.25rem .75rem .25rem 0;border-bottom:1px solid light-dark(#d8dee4,#30363d)}"
    "th{font-weight:600}th:has(+td){width:12rem}"
    ".trouble{border-left:4px solid light-dark(#a40e26,#ff7b72);margin-bottom:1rem;"
    "background:light-dark(#fff5f5,#2b1113)}.trouble th,.trouble td{padding-left:.75rem;border:0}"
    "span{display:inline-block;font-size:1rem;padding:0 .6rem;border:1px solid;border-radius:1rem}"
    ".good{color:light-dark(#116329,#56d364)}.bad{color:light-dark(#a40e26,#ff7b72)}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'"
# A URL and nothing else, such as that of a CI run.
_ADDRESS = re.compile(r"https?://[\w.:-]+(/[\w./?&=%~+:@#-]*)?", re.ASCII)


def status(about: About, health: Health, sidecar: Sidecar) -> dict[str, Any]:
    """
    Return the answer of /status, ready for JSON: that of /readyz, and more.
    """
    return {
        **about._asdict(),
        **readiness_facts(health, sidecar),
        "published_at": _iso(sidecar.readiness().published_at),
        "consecutive_failures": health.standing.failures,
        "docs": f"{DOCS}sidecars/{quote(about.sidecar)}/README.md#failures",
        "next_cycle_within_seconds": round(health.next_cycle_within_seconds, 1),
        "cycles": [_cycle(*cycle) for cycle in health.cycles],
        "details": sidecar.details(),
    }


def readiness_facts(health: Health, sidecar: Sidecar) -> dict[str, Any]:
    """
    Return the answer of /readyz, ready for JSON.
    """
    readiness = sidecar.readiness()
    told = health.told(readiness)
    error = told.why
    published_at = readiness.published_at
    now = time.time()
    # What has begun is awaited no more.
    is_ahead = (told.until or 0.0) > now
    return {
        "ready": readiness.ready,
        "alive": health.is_alive,
        "revision": readiness.revision or None,
        "published_seconds_ago": published_at and round(now - published_at, 1),
        "problem": readiness.problem and readiness.problem.message,
        "shortfall": readiness.shortfall or None,
        "result": health.cycles[0].outcome.result if health.cycles else None,
        "reason": error and error.reason,
        "error": error and error.message,
        "advice": error and (error.advice or None),
        "since": _iso(told.since),
        "until": _iso(told.until) if is_ahead else None,
    }


def _iso(moment: float | None) -> str | None:
    # Another process may have set the time of a file to anything.
    with suppress(ValueError, OverflowError, OSError):
        if moment is not None:
            return datetime.fromtimestamp(moment, UTC).isoformat(
                timespec="milliseconds"
            )
    return None


def _cycle(started_at: float, seconds: float, outcome: Outcome) -> dict[str, Any]:
    return {
        "started_at": _iso(started_at),
        "duration_seconds": round(seconds, 3),
        "result": outcome.result,
        "reason": outcome.reason or None,
        **outcome.counts,
    }


# --- for people


def page(facts: Mapping[str, Any]) -> bytes:
    """
    Return the facts of :func:`status` as an HTML page without scripts.

    It starts with the on-call questions: what is wrong, since when, what to do, what is
    published.
    """
    name = _text(facts["sidecar"])
    pod = [text for text in facts["pod"].values() if text]
    bad = [f"not {word}" for word in ("alive", "ready") if not facts[word]]
    is_calm = facts["ready"] and facts["reason"] in CALM
    if facts["consecutive_failures"]:
        bad.append("failing")
    elif facts["reason"] and not is_calm:
        bad.append(_text(facts["reason"]))
    good = f"ready, {facts['reason']}" if is_calm else "ready"
    state = [*bad, "shortfall" if facts["shortfall"] else good][0]
    marks = [
        f"<span class=good>{word}</span>" for word in ("ready", "alive") if facts[word]
    ]
    marks += [f"<span class=bad>{word}</span>" for word in bad]
    shown = {
        "now": _iso(time.time()),
        "published": [facts["revision"], facts["published_at"]],
        "source": facts["source"],
        "target": facts["target"],
        "pod": " · ".join(pod),
        "next cycle within (s)": facts["next_cycle_within_seconds"],
        "version": facts["version"],
    }
    trouble = {
        "not ready": facts["problem"],
        "shortfall": facts["shortfall"],
        "not alive": None if facts["alive"] else "Restart the container.",
    }
    if is_calm:
        shown |= _told("waiting", facts)
    elif facts["reason"]:
        trouble |= _told("what is wrong", facts)
    sections = {
        "Details": _table(facts["details"]),
        "Last cycles": _history(facts["cycles"]),
        "Settings that differ from the defaults": _table(Names(facts["settings"])),
    }
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        "<meta http-equiv=refresh content=30>",
        f"<title>{' · '.join([state, name, *map(_text, pod[:1])])}</title>",
        f"<style>{STYLE}</style><main><h1>{name} {' '.join(marks)}</h1>",
        _table(trouble, "trouble"),
        _table(shown),
        *(f"<h2>{title}</h2>{table}" for title, table in sections.items() if table),
        f"<h2>Documentation</h2>{_cell(f'{DOCS}docs/README.md')}</main></html>\n",
    ]
    return "".join(parts).encode()


def _told(name: str, facts: Mapping[str, Any]) -> dict[str, object]:
    failures = facts["consecutive_failures"]
    repeated = f"{failures} failures in a row" if failures > 1 else ""
    again = "tries again at" if facts["result"] == "failed" else "waits until"
    return {
        name: f"{facts['reason']}: {facts['error']}",
        "since": [facts["since"], repeated],
        again: facts["until"],
        "what to do": [facts["advice"], facts["docs"]],
    }


def _table(facts: Mapping[str, Any], kind: str = "facts") -> str:
    """
    Return a table of the non-empty facts, one row each; an empty text if all are empty.
    """
    rows = "".join(f"<tr><th>{name}<td>{cell}" for name, cell in _pairs(facts) if cell)
    return rows and f"<table class={kind}>{rows}</table>"


def _pairs(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """
    Yield names and values as HTML for display.
    """
    for key, value in facts.items():
        # A sidecar's other keys, such as paths, stay as they are.
        is_ours = key.isidentifier() and not isinstance(facts, Names)
        yield _text(key.replace("_", " ") if is_ours else key), _cell(value)


def _text(value: object) -> str:
    """
    Return text with markup and invisible characters escaped.
    """
    return html.escape(printable(str(value)))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return "<br>".join(f"{name}: {cell}" for name, cell in _pairs(value))
    if isinstance(value, list | tuple):
        return "<br>".join(filter(None, map(_cell, value)))
    if isinstance(value, str) and _ADDRESS.fullmatch(value):
        return f"<a href='{_text(value)}' rel=noreferrer>{_text(value)}</a>"
    return _text(value)


def _history(cycles: list[dict[str, Any]]) -> str:
    rows = "<tr><th>started<th>seconds<th>result<th>details"
    for cycle in cycles:
        (_, started), (_, seconds), (_, result), *more = cycle.items()
        details = [
            f"{name}: {cell}"
            for name, cell in _pairs(dict(more))
            if cell not in ("", "0")
        ]
        mark = " class=bad" if result in ("failed", "partial") else ""
        rows += f"<tr><td>{_cell(started)}<td>{seconds}<td{mark}>{_text(result)}"
        rows += f"<td>{', '.join(details)}"
    return f"<table>{rows}</table>"
