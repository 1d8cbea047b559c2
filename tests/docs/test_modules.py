"""
What no linter checks about the modules.
"""

import ast

from tests.docs.code import ROOT

TOPS = ("airflow-bundle", "bench", "demo", "docs", "runtime", "sidecars", "soak", "tests")


def test_no_async_generator_can_be_left_open() -> None:
    """
    A consumer that leaves its loop early leaves one open, and the event loop closes it too late.
    """
    functions = [
        (path.relative_to(ROOT), node)
        for top in TOPS
        for path in (ROOT / top).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.AsyncFunctionDef)
    ]

    assert len(functions) > 50
    assert [] == [
        f"{path}: {function.name}"
        for path, function in functions
        if any(isinstance(node, ast.Yield) for node in ast.walk(function))
        and "asynccontextmanager" not in map(ast.unparse, function.decorator_list)
    ]
