"""
Faults in the product's code, drawn by a seed: each is one change of its syntax.

Texts are never mutated: docstrings, log lines, help and advice are for people, not for
tests.
"""

import ast
import os
import random
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from tests import ROOT

# All other Python is the product, wherever it lives.
AROUND = ("bench", "charts-snippets", "demo", "docs", "scripts", "soak", "tests")

_PAIRS: tuple[tuple[type[Any], type[Any]], ...] = (
    (ast.Lt, ast.LtE),
    (ast.Gt, ast.GtE),
    (ast.Eq, ast.NotEq),
    (ast.In, ast.NotIn),
    (ast.Is, ast.IsNot),
    (ast.And, ast.Or),
)
_SWAPPED = {one: other for pair in _PAIRS for one, other in (pair, pair[::-1])}
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

    def apply(self, source: bytes) -> bytes:
        """
        Return the source with the fault.
        """
        return source[: self.start] + self.new.encode() + source[self.end :]


def tracked() -> list[str]:
    """
    Return the files that git tracks or would add, relative to the root.
    """
    names = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        text=True,
    ).split("\0")
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
    source = _Source((ROOT / file).read_bytes())
    lines = source.content.splitlines()
    return [
        Fault(
            *(file, function, operator, lines[node.lineno - 1].decode().strip()),
            *(node.lineno, source.start(node), source.end(node), new),
        )
        for function, operator, node, new in _walk(source, ast.parse(source.content))
        if new != source.text(node)
    ]


def draw(faults: list[Fault], seed: int, count: int) -> list[Fault]:
    """
    Draw `count` lines, all of them equally likely, and one fault for each.
    """
    chance = random.Random(seed)
    by_line: dict[tuple[str, int], list[Fault]] = {}
    for fault in faults:
        by_line.setdefault((fault.file, fault.number), []).append(fault)
    chosen: list[Fault] = []
    for same in chance.sample([*by_line.values()], len(by_line)):
        chance.shuffle(same)
        chosen += [fault for fault in same if is_python(fault)][:1]
        if len(chosen) == count:
            break
    return sorted(chosen, key=lambda fault: (fault.file, fault.number))


def is_python(fault: Fault) -> bool:
    """
    Whether the file can be compiled with the fault.
    """
    try:
        ast.parse(fault.apply((ROOT / fault.file).read_bytes()))
    except SyntaxError:
        return False
    return True


class _Source:
    """
    The source of a file, by the positions of its syntax.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._starts = [0, *accumulate(map(len, content.splitlines(keepends=True)))]

    def start(self, node: Any) -> int:
        return int(self._starts[node.lineno - 1] + node.col_offset)

    def end(self, node: Any) -> int:
        return int(self._starts[node.end_lineno - 1] + node.end_col_offset)

    def text(self, node: ast.AST) -> str:
        return self.content[self.start(node) : self.end(node)].decode()


def _walk(
    source: _Source, node: ast.AST, function: str = "", returns: ast.expr | None = None
) -> Iterator[tuple[str, str, Any, str]]:
    """
    Yield for each fault in a node and below: function, operator, replaced node, its new
    text.
    """
    for operator, replaced, new in _faults_at(source, node, returns):
        yield function, operator, replaced, new
    children: Iterable[ast.AST | None] = ast.iter_child_nodes(node)
    match node:
        case ast.FunctionDef(args=args) | ast.AsyncFunctionDef(args=args):
            for default in filter(None, [*args.defaults, *args.kw_defaults]):
                yield from _walk(source, default, function, returns)
            children = node.body
            function = f"{function}.{node.name}".lstrip(".")
            returns = node.returns
        case ast.ClassDef():
            children = node.body
            function = f"{function}.{node.name}".lstrip(".")
        case ast.Assert() | ast.JoinedStr():
            return
        case ast.Assign() if source.text(node.targets[0]).startswith("__"):
            return
        case ast.Call() if _LOGS.match(source.text(node.func)):
            return
        case ast.Assign() | ast.AnnAssign():
            children = [node.value]
    for child in filter(None, children):
        yield from _walk(source, child, function, returns)


def _faults_at(
    source: _Source, node: ast.AST, returns: ast.expr | None
) -> Iterator[tuple[str, ast.AST, str]]:
    """
    Yield operator, replaced node and new text of the faults of one node.
    """
    tests: list[ast.expr] = []
    match node:
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            tests = [test] if source.text(test) != "TYPE_CHECKING" else []
        case ast.comprehension(ifs=ifs):
            tests = ifs
        case ast.Compare(left=left, ops=[op, *more], comparators=right):
            yield (
                "compare",
                node,
                ast.unparse(ast.Compare(left, [_SWAPPED[type(op)](), *more], right)),
            )
        case ast.BoolOp(op=op, values=[one, other, *others]):
            yield (
                "and/or",
                node,
                ast.unparse(
                    ast.BoolOp(
                        op, [ast.BoolOp(_SWAPPED[type(op)](), [one, other]), *others]
                    )
                ),
            )
        case ast.Constant(value=bool() as value):
            yield "constant", node, str(not value)
        case ast.Constant(value=(int() | float()) as value):
            # Adding 1 to a large number rarely makes a relevant difference.
            yield "constant", node, repr(value + 1 if value < 10 else value * 2)
        case (
            ast.Expr(value=ast.Call() as call)
            | ast.Expr(value=ast.Await(value=ast.Call() as call))
        ):
            if not source.text(call).startswith(("log.d", "_log.d")):
                yield "drop call", node, "pass"
        case ast.Raise():
            yield "drop raise", node, "pass"
        case ast.Return(value=ast.expr() as value):
            kind = source.text(returns).partition("[")[0] if returns else ""
            empty = (
                f"not ({source.text(value)})"
                if kind == "bool"
                else _EMPTY.get(kind, "None")
            )
            yield "empty return", node, f"return {empty}"
    for test in tests:
        # Remove an inner `not`; leave constants to their own operator.
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            yield "negate", test, source.text(test.operand)
        elif not isinstance(test, ast.Constant):
            yield "negate", test, f"(not ({source.text(test)}))"
