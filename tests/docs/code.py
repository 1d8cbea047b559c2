"""
What the code says of itself: the names that documentation must have, found by reading the source.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("runtime/sidecar_runtime", "sidecars/s3-sync/s3_sync")
LOG_METHODS = {"debug", "info", "warning", "error", "exception"}


def trees() -> Iterator[ast.Module]:
    """
    Yield the syntax tree of every module of the product.
    """
    for source in SOURCES:
        for path in sorted((ROOT / source).rglob("*.py")):
            yield ast.parse(path.read_text())


def events() -> set[str]:
    """
    Return the events that are logged: the first argument of `log.info(...)` and its like.
    """
    found = set()
    for tree in trees():
        for call in _calls(tree):
            if _is_log_method(call.func, _aliases(tree)) and (event := _first_text(call)):
                found.add(event)
    return found


def reasons() -> set[str]:
    """
    Return the reasons of failures: the first argument of `SomeError(reason, message)`.
    """
    found = {"bug"}
    for tree in trees():
        for call in _calls(tree):
            name = ast.unparse(call.func).rpartition(".")[2]
            is_error = name.endswith("Error") or name in ("GaveUp", "_give_up", "error")
            if is_error and len(call.args) > 1 and (reason := _first_text(call)):
                found.add(reason)
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
