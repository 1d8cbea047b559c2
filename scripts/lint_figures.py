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
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
MEASURED = re.compile(
    r"(?<![a-z])(?:rss|vmrss|maxrss|mib|kib|memory|cpu|ms|seconds|elapsed|took|durations?|latency"
    r"|system_calls|threads|monotonic|perf_counter|process_time|active_count|ru_[us]time)(?![a-z])",
    re.IGNORECASE,
)


def names_in(node: ast.AST) -> Iterator[str]:
    """
    Yield the names and keys on which an expression depends; a length depends on none.
    """
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "len":
        return
    if isinstance(node, ast.Name):
        yield node.id
    if (
        isinstance(node, ast.Attribute)
        and not ast.unparse(node).partition(".")[0].isupper()
    ):
        yield node.attr
    if (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and " " not in node.value
    ):
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from names_in(child)


def is_constant(node: ast.expr) -> bool:
    """
    Whether an expression consists of numbers other than zero and of names in capital
    letters.
    """
    leaves = [one for one in ast.walk(node) if isinstance(one, ast.Name | ast.Constant)]
    if any(isinstance(one, ast.Constant) and not one.value for one in leaves):
        return False
    numbers = (int, float)
    return bool(leaves) and all(
        one.id.isupper()
        if isinstance(one, ast.Name)
        else isinstance(one.value, numbers)
        for one in leaves
    )


def finds(text: str) -> Iterator[tuple[int, str]]:
    """
    Yield the line and the text of each comparison of a measured figure with a constant.
    """
    asserted = [
        one.test for one in ast.walk(ast.parse(text)) if isinstance(one, ast.Assert)
    ]
    for node in (one for test in asserted for one in ast.walk(test)):
        if isinstance(node, ast.Compare):
            sides = pairwise([node.left, *node.comparators])
            for operator, pair in zip(node.ops, sides, strict=True):
                names = [
                    name
                    for side in pair
                    for name in names_in(side)
                    if not name.isupper()
                ]
                if (
                    isinstance(operator, ast.Lt | ast.LtE | ast.Gt | ast.GtE)
                    and any(map(is_constant, pair))
                    and any(map(MEASURED.search, names))
                ):
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
