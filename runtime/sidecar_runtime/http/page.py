"""
The status page for people: HTML without scripts.

All content may be hostile (object keys, commit messages), so all of it is escaped. The page loads
nothing: its one style sheet is inline and allowed by its hash, and its icon is a data URL.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sidecar_runtime import DOCS
from sidecar_runtime.printable import printable
from sidecar_runtime.sidecar import Names

REFRESH_SECONDS = 30
STYLE = (
    ":root{color-scheme:light dark;--text:#1b1f24;--quiet:#59636e;--line:#d8dee4;--page:#fff;"
    "--good:#116329;--bad:#a40e26;--trouble:#fff5f5;--link:#0550ae;"
    "--unchanged:#4ac26b;--changed:#218bff;--partial:#d4a72c;--error:#cf222e}"
    "@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--quiet:#9198a1;--line:#30363d;"
    "--page:#0d1117;--good:#56d364;--bad:#ff7b72;--trouble:#2b1113;--link:#58a6ff;"
    "--unchanged:#238636;--changed:#388bfd;--partial:#bb8009;--error:#da3633}}"
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;"
    "color:var(--text);background:var(--page)}"
    "h1{font-size:1.4rem;margin:0 0 .75rem}h2{font-size:1rem;margin:2rem 0 .25rem}"
    "p{color:var(--quiet);margin:0 0 1rem;overflow-wrap:anywhere}a{color:var(--link)}"
    "table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid var(--line);"
    "vertical-align:top;overflow-wrap:anywhere}"
    "th{font-weight:600;width:12rem}"
    ".cycles th{width:auto}.cycles :not(td:last-child){overflow-wrap:normal}"
    ".settings th{width:20rem;font-weight:400}"
    ".trouble{border-left:4px solid var(--bad);margin-bottom:1rem;background:var(--trouble)}"
    ".trouble th,.trouble td{padding-left:.75rem;border:0}"
    "span{display:inline-block;font-size:1rem;padding:0 .6rem;border:1px solid;border-radius:1rem}"
    ".good{color:var(--good)}.bad{color:var(--bad)}h1 .bad{color:#fff;background:#a40e26}"
    "svg{display:block;width:100%;height:1.5rem;margin-top:1.5rem}"
    "rect{fill:var(--line)}.unchanged{fill:var(--unchanged)}.changed{fill:var(--changed)}"
    ".partial{fill:var(--partial)}.error{fill:var(--error)}"
    "@media(max-width:40rem){.cycles{font-size:.8rem}.cycles :nth-child(2){display:none}"
    "table:not(.cycles) tr{display:grid}"
    "table:not(.cycles) th{border:0;padding-bottom:0;width:auto}}"
)
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?(?:\+00:00|Z)")
# A URL and nothing else, such as that of a CI run.
_ADDRESS = re.compile(r"https?://[\w.:-]+(/[\w./?&=%~+:@#-]*)?", re.ASCII)
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = f"default-src 'none'; img-src data:; style-src 'sha256-{_STYLE_HASH}'"
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns=%22http://www.w3.org/2000/svg%22 viewBox=%220 0 8 8%22%3E"
    "%3Ccircle cx=%224%22 cy=%224%22 r=%224%22 fill=%22%23{color}%22/%3E%3C/svg%3E"
)
_COLORS = {"good": "2da44e", "trouble": "d4a72c", "bad": "cf222e"}
_WORDS = {
    "unchanged": "no change",
    "changed": "changes published",
    "partial": "newest revision not published completely",
    "error": "failures",
}


class _Markup(str):
    """
    HTML markup of this module, in which all foreign text is already escaped.
    """

    __slots__ = ()


def page(facts: Mapping[str, Any]) -> bytes:
    """
    Return the facts of :func:`status` as an HTML page without scripts.

    It starts with the on-call questions: what is wrong, since when, what to do, what is published.
    """
    name = _text(facts["sidecar"])
    pod = [str(text) for text in facts["pod"].values() if text]
    words, color = _state(facts)
    marks = [
        _mark(facts["ready"], "ready" if facts["ready"] else "not ready"),
        _mark(facts["alive"], "alive" if facts["alive"] else "not alive"),
    ]
    if facts["last_error"]:
        marks.append(_mark(False, _trouble_word(facts)))
    shown = {
        "published": [facts["revision"], facts["published_at"]],
        "source": facts["source"],
        "target": facts["target"],
        "pod": " · ".join(pod),
        "next_cycle_in_seconds": facts["next_cycle_in_seconds"],
        "version": facts["version"],
    }
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<meta http-equiv=refresh content={REFRESH_SECONDS}>",
        f"<link rel=icon href='{_ICON.format(color=_COLORS[color])}'>",
        f"<title>{' · '.join([words, name, *map(_text, pod[:1])])}</title>",
        f"<style>{STYLE}</style>",
        f"<main><h1>{name} {' '.join(marks)}</h1>",
        _table(_trouble(facts), "trouble"),
        _table(shown),
    ]
    if facts["details"]:
        parts += ["<h2>Details</h2>", _table(facts["details"])]
    parts += ["<h2>Last cycles</h2>", _history(facts["cycles"])]
    if facts["settings"]:
        parts += ["<h2>Settings that differ from the defaults</h2>"]
        parts += [_table(Names(facts["settings"]), "settings")]
    parts.append(f"<h2>{_link(f'{DOCS}/README.md', 'Documentation')}</h2></main></html>\n")
    return "".join(parts).encode()


def _state(facts: Mapping[str, Any]) -> tuple[str, str]:
    """
    Return the state in one or two words, and its color.
    """
    if not facts["alive"]:
        return "not alive", "bad"
    if not facts["ready"]:
        return "not ready", "bad"
    if facts["last_error"]:
        return _trouble_word(facts), "bad" if facts["consecutive_failures"] else "trouble"
    return ("shortfall", "trouble") if facts["shortfall"] else ("ready", "good")


def _trouble(facts: Mapping[str, Any]) -> dict[str, object]:
    trouble: dict[str, object] = {"not ready": facts["problem"], "shortfall": facts["shortfall"]}
    if not facts["alive"]:
        trouble["not alive"] = "No cycle has finished in time. Restart the container."
    if error := facts["last_error"]:
        failures = facts["consecutive_failures"]
        trouble |= {
            "what is wrong": _Markup(
                f"{_link(error['docs'], error['reason'])}: {_text(error['error'])}"
            ),
            "since": [error["since"], f"{failures} failures in a row" if failures > 1 else None],
            "what to do": error["advice"],
        }
    return trouble


def _trouble_word(facts: Mapping[str, Any]) -> str:
    """
    Return ``failing``, or the result of the last cycle if that did not fail, such as ``refused``.
    """
    if facts["consecutive_failures"] or not facts["cycles"]:
        return "failing"
    return _text(facts["cycles"][0]["result"])


def _mark(is_good: bool, words: str) -> str:
    return f"<span class={'good' if is_good else 'bad'}>{words}</span>"


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
        if isinstance(facts, Names):
            yield _text(key), _cell(value)
        elif isinstance(value, float | int) and key.endswith("_in_seconds"):
            yield _name(key.removesuffix("_in_seconds")), _distance(value)
        else:
            yield _name(key), _cell(value)


def _name(key: object) -> str:
    """
    Return an identifier as words; any other key of a sidecar (a path) stays as it is.
    """
    name = str(key)
    return _text(name.replace("_", " ") if name.isidentifier() else name)


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
        return "<br>".join(cell for cell in map(_cell, value) if cell)
    if isinstance(value, _Markup):
        return value
    if isinstance(value, str) and _ADDRESS.fullmatch(value):
        return _link(value, value)
    return _TIME.sub(_moment, _text(value))


def _moment(found: re.Match[str]) -> str:
    try:
        away = _distance(datetime.fromisoformat(found[0]).timestamp() - time.time())
    except ValueError:  # any text may look like a time
        return found[0]
    return f"<time datetime='{found[0]}'>{found[1]} {found[2]} UTC</time>, {away}"


def _link(address: str, text: str) -> str:
    return f"<a href='{_text(address)}' rel=noreferrer>{_text(text)}</a>"


def _distance(seconds: float) -> str:
    """
    Return the distance of a moment from now, in the largest unit that yields at least 2.
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
    rows = ["<table class=cycles><tr><th>started<th>seconds<th>result<th>details"]
    for cycle in cycles:
        counts = [
            f"{_name(key)}: {_text(value)}"
            for key, value in cycle.items()
            if value and key not in ("started_at", "duration_seconds", "result", "reason")
        ]
        mark = " class=bad" if cycle["reason"] else ""
        reason = _text(cycle["reason"] or "").replace("_", "_<wbr>")
        rows.append(
            f"<tr><td>{_cell(cycle['started_at'])}<td>{cycle['duration_seconds']}"
            f"<td{mark}>{_text(cycle['result'])}"
            f"<td>{', '.join(filter(None, [reason, *counts]))}"
        )
    return "".join(rows) + "</table>"
