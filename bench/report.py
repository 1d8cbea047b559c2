"""
Print the tables of a benchmark; `--write` puts the one with the budgets into the
documentation.
"""

import argparse
import functools
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.budgets import Outcome, percent, seconds, times

__all__ = ["deliver", "options", "parser", "seconds", "table", "times", "version_of"]

PAGE = Path(__file__).parents[1] / "docs/reference/benchmarks.md"


def parser(sidecar: str, description: str | None) -> argparse.ArgumentParser:
    """
    Return the parser of a benchmark's arguments, with `--write`.
    """
    found = argparse.ArgumentParser(
        f"python -m bench {sidecar}", description=description
    )
    text = "also rewrite the tables of docs/reference/benchmarks.md"
    found.add_argument(
        "--write", dest="page", action="store_const", const=PAGE, help=text
    )
    return found


def options(
    sidecar: str,
    description: str | None,
    arguments: Sequence[str],
    **known: tuple[int | list[int], str],
) -> Any:
    """
    Return the options of a benchmark, `--write` among them.

    Args:
        known: The default and the meaning of each; a list takes several numbers.
    """
    found = parser(sidecar, description)
    for name, (default, text) in known.items():
        count = "+" if isinstance(default, list) else None
        shown = f"{text} (default: %(default)s)"
        found.add_argument(
            f"--{name}", type=int, nargs=count, default=default, help=shown
        )
    return found.parse_args(arguments)


def deliver(
    sidecar: str,
    parts: Mapping[str, str],
    outcomes: Sequence[Outcome],
    versions: Mapping[str, str],
    *,
    page: Path | None,
) -> None:
    """
    Print the machine, all tables and the budgets; with a page, also replace the part of
    it that has the budgets and the machine.

    Args:
        sidecar: The name of the benchmark: `python -m bench NAME`.
        parts: Tables to print by their headings.
        outcomes: The outcomes of all budgets.
        versions: The versions of all measured programs.

    Raises:
        ValueError: The page does not have exactly one part ``<!-- bench:NAME -->``.
    """
    budgets = budgets_text(outcomes)
    here = machine(versions)
    for name, text in {"machine": here, **parts, "budgets": budgets}.items():
        print(f"# {sidecar}, {name}\n\n{text}")
    if page:
        part = re.compile(
            rf"(<!-- bench:{re.escape(sidecar)} -->\n).*?(<!-- end -->)", re.DOTALL
        )
        text = f"{budgets}\n{here.strip()}\n"
        new, count = part.subn(
            lambda match: f"{match[1]}{text}{match[2]}", page.read_text()
        )
        if count != 1:
            raise ValueError(
                f"{page.name} must have one part bench:{sidecar}, and has {count}"
            )
        page.write_text(new)


def budgets_text(outcomes: Sequence[Outcome]) -> str:
    """
    Return the table of all figures with a budget, and below it the reasons of those
    that miss it.
    """
    rows = [
        [
            f"{one.promise}: {one.what}",
            one.budget,
            one.measured,
            percent(one.used),
            one.verdict,
        ]
        for one in outcomes
    ]
    missed = [
        f"{one.verdict.strip('*')}: {one.promise}, {one.what}. {one.because}".strip()
        + "\n"
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
    programs = ", ".join(
        f"{program} {version}" for program, version in versions.items()
    )
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
