"""
What a benchmark hands over: printed, or put into its places on the page.
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
    Bars, as `bench.pages.report.write_plot` takes them.
    """

    name: str
    title: str
    groups: Mapping[str, Mapping[str, float]]
    show: Callable[[float], str] = seconds


@dataclass(frozen=True)
class Section:
    """
    All that one benchmark has found.

    Args:
        parts: Texts by the name of their place, without the sidecar's.
        outcomes: Of all its budgets.
        missing: Peers that could not take part, with the reason.
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
        folder: Of the page.
    """
    page = folder / PAGE.name
    parts = dict(section.parts)
    parts["machine"] += "".join(
        f"\nNot here, and so not measured: {peer} ({why}).\n"
        for peer, why in section.missing.items()
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
