"""
What the code says of itself: the names that documentation must have, found by reading the source.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
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
    Yield the syntax trees of a sidecar, and of what of the runtime it imports, and so on.
    """
    waiting = list(trees(SOURCES[sidecar]))
    seen: set[str] = set()
    while waiting:
        yield (tree := waiting.pop())
        for name in _runtime_imports(tree) - seen:
            seen.add(name)
            waiting.append(ast.parse((RUNTIME / f"{name}.py").read_text()))


def events() -> set[str]:
    """
    Return the events that are logged: the first argument of `log.info(...)` and its like.
    """
    found = set()
    for tree in trees(RUNTIME, *SOURCES.values()):
        for call in _calls(tree):
            if _is_log_method(call.func, _aliases(tree)) and (event := _first_text(call)):
                found.add(event)
    return found


def reasons(sidecar: str) -> set[str]:
    """
    Return the reasons of a sidecar's failures: the first argument of `SomeError(reason, message)`.
    """
    found = {"bug"}
    for tree in used_trees(sidecar):
        for call in _calls(tree):
            name = ast.unparse(call.func).rpartition(".")[2]
            is_error = name.endswith("Error") or name in ("GaveUp", "_give_up", "error")
            if is_error and len(call.args) > 1 and (reason := _first_text(call)):
                found.add(reason)
    return found


def _runtime_imports(tree: ast.Module) -> set[str]:
    """
    Return the modules of the runtime that a module imports.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sidecar_runtime"):
            name = (node.module or "").partition(".")[2]
            names = [name] if name else [alias.name for alias in node.names]
            found |= {name for name in names if (RUNTIME / f"{name}.py").is_file()}
    return found


def _calls(tree: ast.Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _aliases(tree: ast.Module) -> set[str]:
    """
    Return the variables that hold a method of the logger.
    """
    return {
        node.targets[0].id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and _is_log_method(node.value, set())
    }


def _is_log_method(func: ast.expr, aliases: set[str]) -> bool:
    match func:
        case ast.Attribute(value=logger, attr=attr):
            is_logger = ast.unparse(logger) == "log" or "get_logger(" in ast.unparse(logger)
            return is_logger and attr in LOG_METHODS
        case ast.IfExp(body=body):
            return _is_log_method(body, aliases)
        case ast.Name(id=name):
            return name in aliases
    return False


def _first_text(call: ast.Call) -> str | None:
    match call.args[:1]:
        case [ast.Constant(value=str(text))]:
            return text
    return None
