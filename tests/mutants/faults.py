"""
Faults in the product's code, drawn by a seed: each is one change of its syntax.

Texts are never mutated: docstrings, log lines, help and advice are for people, not for tests.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# All other Python is the product, wherever it lives.
AROUND = ("bench", "charts-snippets", "demo", "docs", "scripts", "soak", "tests")

_SWAPPED = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
}
_EMPTY = {"str": '""', "bytes": 'b""', "int": "0", "float": "0.0"}
_EMPTY |= {"list": "[]", "dict": "{}", "tuple": "()", "set": "set()"}
_LOGS = re.compile(r"_?log\.(debug|info|warning|error|exception)$")


@dataclass(frozen=True)
class Fault:
    """
    A change of one file.
    """

    file: str
    function: str
    """The qualified name, such as `Loop.run`; empty outside of functions."""
    operator: str
    line: str
    """The source line in which it starts, without indentation."""
    number: int
    start: int
    """The start and end of the replaced part, in bytes."""
    end: int
    new: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """
        A key that does not change while the text of the line stays the same, even if it moves.
        """
        return self.file, self.function, self.operator, self.line

    def apply(self, source: bytes) -> bytes:
        """
        Return the source with the fault.
        """
        return source[: self.start] + self.new.encode() + source[self.end :]


def tracked() -> list[str]:
    """
    Return the files that git tracks or would add, relative to the root.
    """
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.check_output(command, cwd=ROOT, text=True).split("\0")
    return sorted(name for name in names if name and os.path.lexists(ROOT / name))


def sources() -> list[str]:
    """
    Return the product's source files, relative to the root.
    """
    python = [name for name in tracked() if name.endswith(".py")]
    return [name for name in python if Path(name).parts[0] not in AROUND]


def find_faults(file: str) -> list[Fault]:
    """
    Return every fault that the operators find in a file.
    """
    source = (ROOT / file).read_bytes()
    finder = _Finder(file, source)
    finder.visit(ast.parse(source))
    return finder.faults


def draw(faults: list[Fault], seed: int, count: int) -> list[Fault]:
    """
    Draw `count` lines, and one fault for each.

    All lines with faults are equally likely. A line's place in the draw depends only on its own
    text, so an edit changes the draw only for the lines that it touches.
    """

    def rank(*parts: object) -> str:
        return hashlib.sha256(repr((seed, *parts)).encode()).hexdigest()

    by_line: dict[tuple[str, int], list[Fault]] = {}
    for fault in faults:
        by_line.setdefault((fault.file, fault.number), []).append(fault)
    lines = sorted(
        by_line.values(),
        key=lambda same: (rank(same[0].file, same[0].function, same[0].line), same[0].number),
    )
    chosen = []
    for same in lines:
        ranked = sorted(same, key=lambda fault: rank(fault.key, fault.new))
        chosen += [fault for fault in ranked if is_python(fault)][:1]
        if len(chosen) >= count:
            break
    return sorted(chosen[:count], key=lambda fault: (fault.file, fault.number))


def is_python(fault: Fault) -> bool:
    """
    Whether the file can be compiled with the fault.
    """
    try:
        ast.parse(fault.apply((ROOT / fault.file).read_bytes()))
    except SyntaxError:
        return False
    return True


class _Finder(ast.NodeVisitor):
    """
    Collects the faults of one file.
    """

    def __init__(self, file: str, source: bytes) -> None:
        self.faults: list[Fault] = []
        self._file = file
        self._source = source
        self._lines = source.splitlines(keepends=True)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))
        self._names: list[str] = []
        self._returns: list[ast.expr | None] = []

    def _span(self, node: Any) -> tuple[int, int]:
        start = self._starts[node.lineno - 1] + node.col_offset
        return start, self._starts[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: Any) -> str:
        start, end = self._span(node)
        return self._source[start:end].decode()

    def _add(self, operator: str, node: Any, new: str) -> None:
        line = self._lines[node.lineno - 1].decode().strip()
        function = ".".join(self._names)
        self.faults.append(
            Fault(self._file, function, operator, line, node.lineno, *self._span(node), new)
        )

    def _add_between(self, name: str, node: Any, left: Any, right: Any, old: str, new: str) -> None:
        """
        Add a fault that replaces an operator between two operands.
        """
        start, end = self._span(node)
        gap_start, gap_end = self._span(left)[1], self._span(right)[0]
        gap = self._source[gap_start:gap_end].decode()
        word = r"\b{}\b" if old[0].isalpha() else "{}"
        changed = re.sub(word.format(r"\s+".join(old.split())), new, gap, count=1)
        if changed == gap:
            return
        before = self._source[start:gap_start].decode()
        self._add(name, node, before + changed + self._source[gap_end:end].decode())

    def _visit_all(self, *nodes: ast.AST | list[Any] | None) -> None:
        for node in nodes:
            for each in node if isinstance(node, list) else [node]:
                if each is not None:
                    self.visit(each)

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._visit_all(node.args.defaults, node.args.kw_defaults)
        self._names.append(node.name)
        self._returns.append(node.returns)
        self._visit_all(node.body)
        self._returns.pop()
        self._names.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = _visit_function

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._names.append(node.name)
        self._visit_all(node.body)
        self._names.pop()

    def visit_Assign(self, node: ast.Assign) -> None:
        if not self._text(node.targets[0]).startswith("__"):
            self._visit_all(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._visit_all(node.value)

    def visit_Assert(self, node: ast.Assert) -> None:
        pass

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    def visit_Call(self, node: ast.Call) -> None:
        if not _LOGS.match(self._text(node.func)):
            self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        call = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(call, ast.Call) and not self._text(call).startswith(("log.d", "_log.d")):
            self._add("drop call", node, "pass")
        self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        self._add("drop raise", node, "pass")
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is None:
            return
        of = self._returns[-1]
        kind = self._text(of).partition("[")[0] if of is not None else ""
        old = self._text(node.value)
        new = f"not ({old})" if kind == "bool" else _EMPTY.get(kind, "None")
        if new != old:
            self._add("empty return", node, f"return {new}")
        self.visit(node.value)

    def _visit_test(self, node: ast.If | ast.While | ast.IfExp) -> None:
        if self._text(node.test) == "TYPE_CHECKING":
            return
        self._negate(node.test)
        self.generic_visit(node)

    visit_If = visit_While = visit_IfExp = _visit_test

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._negate(test)
        self.generic_visit(node)

    def _negate(self, test: ast.expr) -> None:
        # Remove an inner `not`; leave constants to their own operator.
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            self._add("negate", test, self._text(test.operand))
        elif not isinstance(test, ast.Constant):
            self._add("negate", test, f"(not ({self._text(test)}))")

    def visit_Compare(self, node: ast.Compare) -> None:
        old, new = _SWAPPED[type(node.ops[0])]
        self._add_between("compare", node, node.left, node.comparators[0], old, new)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        self._add_between("and/or", node, node.values[0], node.values[1], old, new)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self._add("constant", node, str(not value))
        elif isinstance(value, int | float):
            # Adding 1 to a large number rarely makes a relevant difference.
            self._add("constant", node, repr(value + 1 if value < 10 else value * 2))
