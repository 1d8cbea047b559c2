"""
Print the tables of a benchmark; `--write` puts the one with the budgets into the documentation.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.budgets import Outcome, percent, seconds, times

__all__ = ["Section", "deliver", "machine", "seconds", "table", "times", "version_of"]

PAGE = Path(__file__).parents[1] / "docs/reference/benchmarks.md"


@dataclass(frozen=True)
class Section:
    """
    All results of one benchmark.

    Args:
        sidecar: The name of the benchmark: `python -m bench NAME`.
        parts: Texts to print by their headings; the one called `machine` is also on the page.
        outcomes: The outcomes of all budgets.
        missing: Peers that were not measured, with the reason.
    """

    sidecar: str
    parts: Mapping[str, str]
    outcomes: Sequence[Outcome]
    missing: Mapping[str, str] = field(default_factory=dict)


def deliver(section: Section, *, is_written: bool, page: Path = PAGE) -> None:
    """
    Print all tables; on request, also replace the sidecar's part of the page.

    Raises:
        ValueError: The page does not have exactly one part ``<!-- bench:NAME -->``.
    """
    for peer, why in section.missing.items():
        print(f"{section.sidecar}: without {peer}: {why}", file=sys.stderr)
    budgets = budgets_text(section.outcomes)
    for name, text in {**section.parts, "budgets": budgets}.items():
        print(f"# {section.sidecar}, {name}\n\n{text}")
    if is_written:
        name = re.escape(section.sidecar)
        part = re.compile(rf"(<!-- bench:{name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = f"{budgets}\n{section.parts.get('machine', '').strip()}\n"
        new, count = part.subn(lambda match: f"{match[1]}{text}{match[2]}", page.read_text())
        if count != 1:
            raise ValueError(f"{page.name} must have one part bench:{name}, and has {count}")
        page.write_text(new)


def budgets_text(outcomes: Sequence[Outcome]) -> str:
    """
    Return the table of all figures with a budget, and below it the reasons of those that miss it.
    """
    rows = [
        [f"{one.promise}: {one.what}", one.budget, one.measured, percent(one.used), one.verdict]
        for one in outcomes
    ]
    missed = [
        f"{one.verdict.strip('*')}: {one.promise}, {one.what}. {one.because}".strip() + "\n"
        for one in outcomes
        if one.because and one.verdict != "met"
    ]
    return "\n".join([table(["what", "budget", "measured", "used", ""], rows), *missed])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    Return a Markdown table; the first column is left-aligned, all others right-aligned.
    """
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def machine(versions: Mapping[str, str]) -> str:
    """
    Describe the machine, its load of the last 15 minutes and all measured programs.
    """
    cpus = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.+)$", cpus, re.MULTILINE)
    kernel = ".".join(platform.release().split("-")[0].split(".")[:2])
    programs = ", ".join(f"{program} {version}" for program, version in versions.items())
    return (
        f"{os.cpu_count()} cores ({model[1] if model else platform.machine()}), "
        f"a load of {os.getloadavg()[2]:.0f}, Linux {kernel}, "
        f"Python {platform.python_version()}; {programs}."
    )


@functools.cache
def version_of(*command: str | Path) -> str:
    """
    Return the first version number in the output of a command.
    """
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+(?:\.\d+)?", said.stdout + said.stderr)
    return found[0] if found else "unknown"
