"""
Compare measured figures with the budgets, which were set before implementation, and summarize them.

Each benchmark writes the table of its own sidecar. The summary is computed from all tables on the
page, so it is correct after each benchmark, in any order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.pages.report import PAGE, seconds, table, write_part

HEADER = ["what", "budget", "measured", "used", ""]
MET, MISSED, NOT_MEASURED = "met", "**missed**", "**not measured**"


@dataclass(frozen=True)
class Outcome:
    """
    A figure with a budget.

    Args:
        promise: The subject; the summary has one line for all figures of a promise.
        what: The name of the figure within the promise.
        budget, measured: Formatted for the page.
        used: The measured value as a part of the budget, more than 1 = missed; None = not measured.
        because: The reason, if the budget is missed or the figure is not measured.
    """

    promise: str
    what: str
    budget: str
    measured: str
    used: float | None
    because: str = ""

    @property
    def verdict(self) -> str:
        if self.used is None:
            return NOT_MEASURED
        return MET if self.used <= 1 else MISSED


def at_most_seconds(
    promise: str, what: str, most: float, measured: float, because: str = ""
) -> Outcome:
    """
    Return the outcome of a duration.
    """
    budget = f"≤ {seconds(most)}"
    return Outcome(promise, what, budget, seconds(measured), measured / most, because)


def at_most(
    promise: str, what: str, most: float, measured: float | None, unit: str, because: str = ""
) -> Outcome:
    """
    Return the outcome of a size.

    Args:
        unit: The unit of both numbers.
        measured: None = not measured.
    """
    if measured is None:
        return Outcome(promise, what, f"≤ {most:g} {unit}", "", None, because)
    shown = f"{measured:.1f} {unit}"
    return Outcome(promise, what, f"≤ {most:g} {unit}", shown, measured / most, because)


def at_most_part(
    promise: str, what: str, most: float, measured: float, because: str = ""
) -> Outcome:
    """
    Return the outcome of a ratio to a peer.
    """
    return Outcome(promise, what, f"≤ {_part(most)}", _part(measured), measured / most, because)


def none_of(
    promise: str, what: str, failed: int, of: int, least: int, because: str = ""
) -> Outcome:
    """
    Return the outcome of a failure that must never occur.

    Args:
        failed: The number of failures.
        of: The number of tries.
        least: The required number of tries; with fewer, the outcome is "not measured".
    """
    used = math.inf if failed else 0.0 if of >= least else None
    too_few = "" if of >= least else f"Only {of:,} of {least:,} were tried."
    return Outcome(
        promise, what, f"0 of {least:,}", f"{failed:,} of {of:,}", used, because or too_few
    )


def _part(ratio: float) -> str:
    if ratio < 1 / 100:
        return f"1/{1 / ratio:,.0f}"
    return f"1/{1 / ratio:.3g}" if ratio < 1 / 2 else f"{ratio:.2g}"


def budgets_text(outcomes: Iterable[Outcome]) -> str:
    """
    Return the table, and below it each figure that misses its budget, with the reason.
    """
    rows, missed = [], []
    for one in outcomes:
        what = f"{one.promise}: {one.what}"
        rows.append([what, one.budget, one.measured, _percent(one.used), one.verdict])
        if one.verdict != MET:
            found = one.measured or "no figure"
            said = f"- {one.verdict.strip('*')}: {one.promise}, {one.what}: {found}, "
            missed.append(f"{said}budget {one.budget}. {one.because}".rstrip() + "\n")
    return f"{table(HEADER, rows)}\n{''.join(missed) or 'All budgets are met.'}"


def _percent(used: float | None) -> str:
    """
    Return a part of a budget in percent, with a decimal close to 100 %.
    """
    if not used or math.isinf(used):
        return ""
    return f"{used:.1%}" if 0.995 < used < 1.005 else f"{used:.0%}"


def write_budgets(sidecar: str, outcomes: Iterable[Outcome], page: Path = PAGE) -> None:
    """
    Rewrite the table of a sidecar, and the summary.
    """
    write_part(f"{sidecar} budgets", budgets_text(outcomes), page)
    write_part("summary", summary(page.read_text()), page)


def summary(page: str) -> str:
    """
    Return a table with one line for each promise on a page, and the list of missed budgets.
    """
    parts = re.findall(r"<!-- bench:(\S+) budgets -->\n(.*?)<!-- end -->", page, re.DOTALL)
    rows, missed = [], []
    verdicts = [MET, MISSED, NOT_MEASURED]
    counts = dict.fromkeys(verdicts, 0)
    for sidecar, text in parts:
        for promise, figures in _promises(text):
            worst = max(figures, key=lambda row: (verdicts.index(row[-1]), _used(row)))
            for row in figures:
                counts[row[-1]] += 1
            what, budget, measured, used, verdict = worst
            nearest = f"{what}: {measured or 'no figure'}, budget {budget}"
            nearest += f" ({used} of it)" if used else ""
            rows.append([f"**{sidecar}**, {promise}", nearest, f"{len(figures)}", verdict])
        missed += [
            line.replace("- ", f"- **{sidecar}**, ", 1)
            for line in text.splitlines()
            if line.startswith("- ")
        ]
    kinds = ["met", "missed", "not measured"]
    said = ", ".join(
        f"{counts[verdict]} {kind}" for verdict, kind in zip(verdicts, kinds, strict=True)
    )
    header = ["budget, set before implementation", "figure closest to its budget", "figures", ""]
    listed = "\n".join(missed)
    return (
        f"{sum(counts.values())} figures have a budget: {said}.\n\n{table(header, rows)}\n{listed}"
    )


def _promises(text: str) -> Iterator[tuple[str, Sequence[list[str]]]]:
    """
    Yield each promise of a table with its rows, without the promise in their first column.
    """
    found: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" |")]
        if line.startswith("|") and len(cells) == len(HEADER) and ": " in cells[0]:
            promise, _, cells[0] = cells[0].partition(": ")
            found.setdefault(promise, []).append(cells)
    yield from found.items()


def _used(row: Sequence[str]) -> float:
    return float(row[3].rstrip("%") or 0)
