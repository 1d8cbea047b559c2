"""
The names that the documentation must contain, found by parsing the source.
"""

from __future__ import annotations

import ast
import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from docs.sidecars import SIDECARS

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "runtime" / "sidecar_runtime"
SOURCES = {sidecar.name: ROOT / "sidecars" / sidecar.name / sidecar.package for sidecar in SIDECARS}
LOG_METHODS = {"debug", "info", "warning", "error", "exception"}


def trees(*sources: Path) -> Iterator[ast.Module]:
    """
    Yield the syntax tree of every module below the folders.
    """
    for source in sources:
        for path in sorted(source.rglob("*.py")):
            yield ast.parse(path.read_text())


def used_trees(sidecar: str) -> Iterator[ast.Module]:
    """
    Yield the syntax trees of a sidecar and of all runtime modules that it needs.
    """
    waiting = list(trees(SOURCES[sidecar]))
    seen: set[str] = set()
    while waiting:
        yield (tree := waiting.pop())
        for name in _runtime_imports(tree) - seen:
            seen.add(name)
            waiting.append(ast.parse(_runtime_module(name).read_text()))


@dataclass
class Event:
    """
    An event that the code logs.

    Attributes:
        keys: The names of its values, and ``None`` if some are computed.
        sidecars: The sidecars that log it in their own code.
    """

    levels: set[str] = field(default_factory=set)
    keys: set[str | None] = field(default_factory=set)
    sidecars: set[str] = field(default_factory=set)


@functools.cache
def events() -> Mapping[str, Event]:
    """
    Return the logged events: the first argument of `log.info(...)` and similar calls.
    """
    found: dict[str, Event] = defaultdict(Event)
    for name, source in {"": RUNTIME, **SOURCES}.items():
        for tree in trees(source):
            aliases = _aliases(tree)
            for call in _calls(tree):
                if (levels := _levels(call.func, aliases)) and (text := _first_text(call)):
                    found[text].levels |= levels
                    found[text].keys |= {keyword.arg for keyword in call.keywords}
                    found[text].sidecars |= {name} - {""}
    return found


def reasons(sidecar: str) -> set[str]:
    """
    Return the reasons of a sidecar's failures: the first argument of `SomeError(reason, message)`,
    or of `super().__init__(reason, message)` in a class of errors.
    """
    found = {"bug"}
    for tree in used_trees(sidecar):
        own = [call for node in ast.walk(tree) if _is_error(node) for call in _calls(node)]
        for call in _calls(tree):
            name = ast.unparse(call.func).rpartition(".")[2]
            is_error = name.endswith("Error") or name in ("GaveUp", "_error", "error")
            is_error |= name == "__init__" and call in own
            is_error = (is_error and len(call.args) > 1) or name == "_gave_up"
            if is_error and (reason := _first_text(call)):
                found.add(reason)
    return found


def _is_error(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any(
        ast.unparse(base).endswith("Error") for base in node.bases
    )


def _runtime_imports(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sidecar_runtime"):
            name = (node.module or "").partition(".")[2]
            names = [name, *(f"{name}.{alias.name}".lstrip(".") for alias in node.names)]
            found |= {name for name in names if _runtime_module(name).is_file()}
    return found


def _runtime_module(name: str) -> Path:
    return RUNTIME / f"{name.replace('.', '/')}.py"


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _aliases(tree: ast.Module) -> dict[str, set[str]]:
    """
    Return the variables that hold a method of the logger, with its possible levels.
    """
    return {
        node.targets[0].id: levels
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and (levels := _levels(node.value, {}))
    }


def _levels(func: ast.expr, aliases: Mapping[str, set[str]]) -> set[str]:
    """
    Return the levels at which a call logs; empty if it is not a method of a logger.
    """
    match func:
        case ast.Attribute(value=logger, attr=attr):
            is_logger = ast.unparse(logger) == "log" or "get_logger(" in ast.unparse(logger)
            level = {"exception": "error"}.get(attr, attr)
            return {level} if is_logger and attr in LOG_METHODS else set()
        case ast.IfExp(body=body, orelse=orelse):
            return _levels(body, aliases) | _levels(orelse, aliases)
        case ast.Name(id=name):
            return aliases.get(name, set())
    return set()


def _first_text(call: ast.Call) -> str | None:
    match call.args[:1]:
        case [ast.Constant(value=str(text))]:
            return text
    return None
