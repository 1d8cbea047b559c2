"""
Checks that no test asserts an absolute figure.

    .venv/bin/python scripts/lint_figures.py [FILE ...]

Memory, time, system calls and threads depend on the machine: a limit that holds on one
fails on another. `make bench` compares them with budgets. A test may compare two
measurements, a measurement with a value that the test sent or set, and either with
zero.

An expression is measured if a name in it says so (`rss_mib`, `took`) or if it asks a
clock. Exits with 1 and prints a line for each assertion that orders it and a constant.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MEASURED = re.compile(
    r"(?<![a-z])(?:rss|vmrss|maxrss|mib|kib|memory|cpu|ms|seconds|elapsed|took|durations?|latency"
    r"|system_calls|threads|monotonic|perf_counter|process_time|active_count|ru_[us]time)(?![a-z])",
    re.IGNORECASE,
)


# Neither a length nor a text for people depends on the machine, nor does a name in
# capitals.
UNMEASURED = re.compile(r"\blen\(.*\)|'\S* [^']*'|\b[A-Z][A-Z\d_]*\b(?:\.\w+)*")
CONSTANT = re.compile(r"(?!0(?:\.0)?$)[A-Z\d_.()*/+< -]+")
ORDERING = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


def finds(text: str) -> Iterator[tuple[int, str]]:
    """
    Yield the line and the text of each comparison of a measured figure with a constant:
    numbers other than zero, and names in capital letters.
    """
    asserted = [one for one in ast.walk(ast.parse(text)) if isinstance(one, ast.Assert)]
    for node in (inner for one in asserted for inner in ast.walk(one.test)):
        if isinstance(node, ast.Compare) and isinstance(node.ops[-1], ORDERING):
            sides = [ast.unparse(one) for one in (node.left, *node.comparators)]
            figures = " ".join(UNMEASURED.sub("", side) for side in sides)
            if MEASURED.search(figures) and any(map(CONSTANT.fullmatch, sides)):
                yield node.lineno, ast.unparse(node)


def main() -> int:
    """
    Print all comparisons; return 1 if there are any.
    """
    found = 0
    for path in [Path(name) for name in sys.argv[1:]] or sorted(
        (ROOT / "tests").rglob("*.py")
    ):
        for line, text in finds(path.read_text(encoding="utf-8")):
            found += 1
            sys.stdout.write(f"{path}:{line}: {text}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
