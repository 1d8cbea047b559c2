"""
Print the results of a benchmark, or write them into their parts of the page.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.budgets import Outcome, budgets_text, write_budgets
from bench.pages.report import PAGE, REFERENCE, seconds, write_part, write_plot


@dataclass(frozen=True)
class Plot:
    """
    A plot of bars; see `bench.pages.report.write_plot`.
    """

    name: str
    title: str
    groups: Mapping[str, Mapping[str, float]]
    show: Callable[[float], str] = seconds


@dataclass(frozen=True)
class Section:
    """
    All results of one benchmark.

    Args:
        parts: Texts by the name of their part of the page, without the sidecar's name.
        outcomes: The outcomes of all its budgets.
        missing: Peers that were not measured, with the reason.
    """

    sidecar: str
    parts: Mapping[str, str]
    outcomes: Sequence[Outcome]
    plots: Sequence[Plot] = ()
    missing: Mapping[str, str] = field(default_factory=dict)


def deliver(section: Section, *, is_written: bool, folder: Path = REFERENCE) -> None:
    """
    Rewrite the parts of the page, its summary and the plots; or print the texts.

    Args:
        folder: The folder of the page.
    """
    page = folder / PAGE.name
    parts = dict(section.parts)
    parts["machine"] += "".join(
        f"\nNot measured: {peer} ({why}).\n" for peer, why in section.missing.items()
    )
    for peer, why in section.missing.items():
        print(f"{section.sidecar}: without {peer}: {why}", file=sys.stderr)
    if not is_written:
        for name, text in {**parts, "budgets": budgets_text(section.outcomes)}.items():
            print(f"# {section.sidecar}, {name}\n\n{text}")
        return
    for name, text in parts.items():
        write_part(f"{section.sidecar} {name}", text, page)
    write_budgets(section.sidecar, section.outcomes, page)
    for plot in section.plots:
        write_plot(
            f"{section.sidecar}-{plot.name}",
            plot.title,
            plot.groups,
            ours=section.sidecar,
            show=plot.show,
            folder=folder,
        )
