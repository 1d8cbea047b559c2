"""
Write the page of benchmarks: tables between markers, plots, and a description of the machine.
"""

from __future__ import annotations

import functools
import math
import os
import platform
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
PAGE = REFERENCE / "benchmarks.md"


def write_part(name: str, text: str, page: Path = PAGE) -> None:
    """
    Replace the text between ``<!-- bench:NAME -->`` and the next ``<!-- end -->``.

    Raises:
        ValueError: The page does not have exactly one such part.
    """
    old = page.read_text()
    part = re.compile(rf"(<!-- bench:{re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    new, count = part.subn(lambda match: f"{match[1]}{text.rstrip()}\n{match[2]}", old)
    if count != 1:
        raise ValueError(f"{page.name} must have one part bench:{name}, and has {count}")
    page.write_text(new)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    Return a Markdown table; the first column is left-aligned, all others right-aligned.
    """
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def machine(versions: Mapping[str, str]) -> str:
    """
    Describe the machine and the measured programs in one sentence, without a host name.

    The load is that of the last 15 minutes, including the benchmark and all other work.

    Args:
        versions: The versions of all measured programs.
    """
    cpus = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.+)$", cpus, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert memory is not None
    kernel = ".".join(platform.release().split("-")[0].split(".")[:2])
    return (
        f"{os.cpu_count()} cores ({model[1] if model else platform.machine()}), "
        f"{int(memory[1]) >> 20} GiB of memory, a load of {os.getloadavg()[2]:.0f}, "
        f"Linux {kernel}, Python {platform.python_version()}; "
        + ", ".join(f"{program} {version}" for program, version in versions.items())
        + "."
    )


@functools.cache
def version_of(*command: str | Path) -> str:
    """
    Return the first version number in the output of a command.
    """
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+(?:\.\d+)?", said.stdout + said.stderr)
    return found[0] if found else "unknown"


def seconds(value: float) -> str:
    """
    Return a duration for a table, in s or ms, with three digits.
    """
    return f"{_digits(value)} s" if value >= 0.9995 else f"{_digits(value * 1000)} ms"


def times(ratio: float) -> str:
    """
    Return a ratio for a table, with three digits.
    """
    return f"{_digits(ratio)}x"


def _digits(value: float) -> str:
    """
    Return a number with the decimals that make three digits.
    """
    return f"{value:,.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"


# The plot has its own background, so its text is readable on a page of any color.
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 15px }
  .group { font-weight: 600 }
  .page { fill: #ffffff; stroke: #d1d9e0 }
  .peer { fill: #8c959f }
  .ours { fill: #1a7f37 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .page { fill: #0d1117; stroke: #3d444d }
    .peer { fill: #656c76 }
    .ours { fill: #3fb950 }
  }
"""
WIDTH, LABELS, VALUES, ROW = 780, 250, 80, 24


def write_plot(
    name: str,
    title: str,
    groups: Mapping[str, Mapping[str, float]],
    *,
    ours: str,
    show: Callable[[float], str] = seconds,
    folder: Path = REFERENCE,
) -> None:
    """
    Write a plot of bars, `benchmarks-NAME.svg`; all groups share one logarithmic scale.

    Args:
        groups: Positive values by label, by heading.
        ours: The prefix of the labels of our own bars.
        show: Formats a value for the text beside its bar.
    """
    values = [value for bars in groups.values() for value in bars.values()]
    lowest = math.floor(math.log10(min(values)))
    span = math.log10(max(values)) - lowest or 1.0
    parts: list[str] = []
    y = 34
    for heading, bars in groups.items():
        y += ROW + 6
        parts.append(f'<text class="group" x="20" y="{y}">{escape(heading)}</text>')
        for label, value in bars.items():
            y += ROW
            length = max(2, (WIDTH - LABELS - VALUES) * (math.log10(value) - lowest) / span)
            kind = "ours" if label.startswith(ours) else "peer"
            bar = f'x="{LABELS}" y="{y - 12}" width="{length:.0f}" height="14"'
            parts += [
                f'<text x="{LABELS - 10}" y="{y}" text-anchor="end">{escape(label)}</text>',
                f'<rect class="{kind}" {bar}/>',
                f'<text x="{LABELS + length + 6:.0f}" y="{y}">{escape(show(value))}</text>',
            ]
    height = y + 24
    (folder / f"benchmarks-{name}.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" aria-label="{escape(title)}">\n'
        f"<style>{STYLE}</style>\n"
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>\n'
        f'<text class="title" x="20" y="30">{escape(title)}</text>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
