"""
Checks that no test compares a measured figure with a constant.

    .venv/bin/python scripts/lint_figures.py [FILE ...]

Memory, time, system calls and threads depend on the machine: a limit that holds on one fails on
another. `make bench` compares them with budgets. A test may compare two measurements (growth,
order), a measurement with a value that the test sent or set, and either with zero. A constant as a
factor is allowed: memory grew by less than 10 %.

An expression is measured if it asks a clock or a counter of the system, if its name says so
(`rss_mib`, `took`), or if a variable or a function of the same file passes on such a value. Every
ordering, `approx` and `isclose` counts, except the condition of a loop, and that of an `if` that
does not fail the test. A limit that comes from a parameter or from another file is not seen.
Exits with 1 and prints a line for each comparison.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
# In a name, or in the text of a key.
MEASURED = re.compile(
    r"(?<![a-z])(?:rss|vmrss|vmhwm|maxrss|mib|kib|memory|resident|cpu|ms|millis|seconds|elapsed"
    r"|took|durations?|latency|syscalls?|system_calls|threads)(?![a-z])"
    r"|^(?:monotonic|perf_counter|process_time|thread_time|clock_gettime|get_traced_memory"
    r"|getrusage|active_count|ru_[us]time|st_[acm]time)(?:_ns)?$",
    re.IGNORECASE,
)
# In the text of a call.
ASKING = re.compile(r"\btime\.time(?:_ns)?\(|\bdatetime\.now\(|/proc/")
# In the text of a list that is measured by its length.
COUNTED = re.compile(r"/proc/|\bthreading\.enumerate\(|\bthreads\b")
# Functions whose result is as measured as their arguments, or as a term of them.
ADDING = {"abs", "approx", "float", "int", "max", "min", "round", "sum"}
PASSING = {"list", "map", "mean", "median", "next", "pairwise", "sorted", "timedelta", *ADDING}
# Methods whose result is as measured as their object.
READING = {"copy", "get", "items", "pop", "values"}
# Fields of a node whose expressions decide whether it is measured.
PARTS = {"body", "elt", "elts", "left", "operand", "orelse", "right", "value", "values"}
ORDERS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)

text_of = cache(ast.unparse)


def name_of(node: ast.AST) -> str:
    """
    Return the last part of a dotted name, or of the name of a called function.
    """
    node = node.func if isinstance(node, ast.Call) else node
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def parts_of(node: ast.AST) -> list[ast.expr]:
    """
    Return the expressions that decide whether an expression is measured, or constant.
    """
    if isinstance(node, ast.Call):
        if name_of(node) in PASSING:
            return node.args
        is_local = isinstance(node.func, ast.Name)
        return [node.func] if is_local else parts_of(node.func) if name_of(node) in READING else []
    values = [value for field, value in ast.iter_fields(node) if field in PARTS]
    found = [one for value in values for one in (value if isinstance(value, list) else [value])]
    return [one for one in found if isinstance(one, ast.expr)]


def terms_of(node: ast.expr) -> list[ast.expr]:
    """
    Return the terms of a sum.
    """
    match node:
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=right):
            parts = [left, right]
        case ast.UnaryOp(operand=operand):
            parts = [operand]
        case ast.Call(args=args, keywords=keywords) if name_of(node) in ADDING:
            parts = args[:1] if name_of(node) == "round" else args
            parts = [*parts, *(one.value for one in keywords if one.arg in ("abs", "rel"))]
        case _:
            return [node]
    return [term for part in parts for term in terms_of(part)]


def bindings(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """
    Yield each name to which a node gives or adds a value, with that value.
    """
    targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
    value = getattr(node, "iter", None) or getattr(node, "value", None)
    match node:
        case ast.arg(arg=name):
            yield name, ast.Constant(None)
        case ast.Call(func=ast.Attribute(value=target, attr="append" | "add"), args=[value]):
            targets = [target]
        case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
            for pair in zip(names, values, strict=False):
                yield from bindings(ast.Assign([pair[0]], pair[1]))
            return
    for target in targets:
        base = target.value if isinstance(target, ast.Subscript) else target
        if base and value:
            yield from ((one.id, value) for one in ast.walk(base) if isinstance(one, ast.Name))


class Scope:
    """
    The names of a test file, or of one of its outermost functions, and their values.
    """

    def __init__(self, nodes: Iterable[ast.AST], file: Scope | None = None) -> None:
        self._file = file or self
        self._values: dict[str, list[ast.expr]] = defaultdict(list)
        self._returned: dict[str, list[tuple[Scope, ast.expr]]] = defaultdict(list)
        """Of a file: what its functions return."""
        for node in nodes:
            for name, value in bindings(node):
                self._values[name].append(value)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                returned = [one.value for one in ast.walk(node) if isinstance(one, ast.Return)]
                self._file._returned[node.name] += [(self, one) for one in returned if one]

    def _parts(self, node: ast.AST, seen: frozenset[str]) -> list[ast.expr]:
        if not isinstance(node, ast.Name):
            return parts_of(node)
        values = self._values.get(node.id) or self._file._values.get(node.id, [])
        return [] if node.id in seen else values

    def is_constant(self, node: ast.AST, seen: frozenset[str] = frozenset()) -> bool:
        """
        Whether an expression consists of numbers and of names in capital letters.
        """
        if isinstance(node, ast.Constant):
            return isinstance(node.value, int | float) and not isinstance(node.value, bool)
        if isinstance(node, ast.Name | ast.Attribute) and name_of(node).isupper():
            return True
        parts = [] if isinstance(node, ast.Subscript) else self._parts(node, seen)
        seen |= {node.id} if isinstance(node, ast.Name) else set()
        return bool(parts) and all(self.is_constant(part, seen) for part in parts)

    def is_measured(self, node: ast.AST, seen: frozenset[str] = frozenset()) -> bool:
        """
        Whether an expression depends on a measurement.
        """
        name, parts = name_of(node), self._parts(node, seen)
        if name.isupper():
            return False
        if isinstance(node, ast.Call) and name == "len":
            lists = [part for arg in node.args for part in (arg, *self._parts(arg, seen))]
            return any(COUNTED.search(text_of(one)) for one in lists)
        keys = node.args if isinstance(node, ast.Call) else [getattr(node, "slice", node)]
        texts = [str(one.value) for one in keys if isinstance(one, ast.Constant)]
        if any(MEASURED.search(one) for one in (name, *texts) if " " not in one):
            return True
        if isinstance(node, ast.Call) and name not in seen:
            found = self._file._returned.get(name, [])
            if ASKING.search(text_of(node)) or any(
                scope.is_measured(value, seen | {name}) for scope, value in found
            ):
                return True
        seen |= {node.id} if isinstance(node, ast.Name) else set()
        return any(self.is_measured(part, seen) for part in parts)

    def is_figure(self, *sides: ast.expr) -> bool:
        """
        Whether a comparison of these sides limits a measurement by a constant other than zero.
        """
        terms = [term for side in sides for term in terms_of(side)]
        terms = [term for term in terms if not (isinstance(term, ast.Constant) and not term.value)]
        rest = [term for term in terms if not self.is_constant(term)]
        return len(rest) < len(terms) and any(map(self.is_measured, rest))


def sides_of(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """
    Yield each two expressions that a node compares by an order, or as nearly equal.
    """
    match node:
        case ast.Compare(left=left, ops=operators, comparators=others):
            for operator, pair in zip(operators, pairwise([left, *others]), strict=True):
                if isinstance(operator, ORDERS) or "approx" in map(name_of, pair):
                    yield pair
        case ast.Call(args=[one, other, *_]) if name_of(node) == "isclose":
            yield one, other


def judged(node: ast.AST) -> Iterator[ast.AST]:
    """
    Yield a node and all nodes in it, except conditions that only control a loop or a branch.
    """
    yield node
    is_control = isinstance(node, ast.While)
    if isinstance(node, ast.If):
        body = [one for statement in node.body for one in ast.walk(statement)]
        is_control = not any(
            isinstance(one, ast.Raise | ast.Assert) or name_of(one) == "fail" for one in body
        )
    for child in ast.iter_child_nodes(node):
        if not (is_control and child is node.test):  # type: ignore[attr-defined]
            yield from judged(child)


def finds(text: str) -> Iterator[tuple[int, str]]:
    """
    Yield the line and the text of each comparison of a measured figure with a constant.
    """
    tree = ast.parse(text)
    bodies = [tree.body, *(one.body for one in ast.walk(tree) if isinstance(one, ast.ClassDef))]
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [one for body in bodies for one in body if isinstance(one, kinds)]
    owners = {id(node): one for one in functions for node in ast.walk(one)}
    file = Scope(node for node in ast.walk(tree) if id(node) not in owners)
    scopes: dict[ast.AST, Scope] = {one: Scope(ast.walk(one), file) for one in functions}
    for node in judged(tree):
        scope = scopes.get(owners.get(id(node), tree), file)
        if any(scope.is_figure(*sides) for sides in sides_of(node)):
            yield node.lineno, text_of(node)  # type: ignore[attr-defined]


def main() -> int:
    """
    Print all comparisons; return 1 if there are any.
    """
    found = 0
    for path in [Path(name) for name in sys.argv[1:]] or sorted((ROOT / "tests").rglob("*.py")):
        for line, text in finds(path.read_text(encoding="utf-8")):
            found += 1
            sys.stdout.write(f"{path}:{line}: {text}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
