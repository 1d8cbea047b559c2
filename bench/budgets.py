"""
What was promised before it was built, beside what is measured; and the summary of all sidecars.

Each benchmark writes the table of its own sidecar. The summary is made of the tables on the page,
so it is right after each of them, whichever ran last.
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
    One figure that has a budget.

    Args:
        promise: What it is about; the summary has one line for all figures of a promise.
        what: Which of its figures.
        budget, measured: As people read them.
        used: The measured part of the budget, more than 1 = missed; None = not measured.
        because: Why it is missed, or not measured, when it is.
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
        unit: Of both numbers.
        measured: None = it could not be.
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
    Return the outcome of something that must not happen.

    Args:
        failed: How often it did.
        of: In how many tries.
        least: As many tries were promised; with fewer it is not measured.
    """
    used = math.inf if failed else 0.0 if of >= least else None
    too_few = "" if of >= least else f"only {of:,} of {least:,} were tried"
    return Outcome(
        promise, what, f"0 of {least:,}", f"{failed:,} of {of:,}", used, because or too_few
    )


def _part(ratio: float) -> str:
    if ratio < 1 / 100:
        return f"1/{1 / ratio:,.0f}"
    return f"1/{1 / ratio:.3g}" if ratio < 1 / 2 else f"{ratio:.2g}"


def budgets_text(outcomes: Iterable[Outcome]) -> str:
    """
    Return the table, and below it each figure that is not as promised, with the reason.
    """
    rows, missed = [], []
    for one in outcomes:
        what = f"{one.promise}: {one.what}"
        rows.append([what, one.budget, one.measured, _percent(one.used), one.verdict])
        if one.verdict != MET:
            found = one.measured or "no figure"
            said = f"- {one.verdict.strip('*')}: {one.promise}, {one.what}: {found}, "
            missed.append(f"{said}promised {one.budget}. {one.because}".rstrip() + "\n")
    return f"{table(HEADER, rows)}\n{''.join(missed) or 'None is missed.'}"


def _percent(used: float | None) -> str:
    """
    Return a part of a budget, so that what is missed by little is not 100 %.
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
    Return one line for each promise of all tables of budgets on a page, and what is missed.
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
            nearest = f"{what}: {measured or 'no figure'}, promised {budget}"
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
    header = ["promised before it was built", "the figure nearest to its budget", "figures", ""]
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
