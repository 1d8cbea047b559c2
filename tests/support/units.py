"""
Tells test files that need neither servers nor installed packages: those that start no
processes.
"""

import ast
import functools
from collections.abc import Set
from pathlib import Path

ROOT = Path(__file__).parents[2]
STARTING = {"multiprocessing", "subprocess"}


def starts_processes(path: Path) -> bool:
    """
    Whether a test file imports a module to start processes, or a file of the tests that
    does.
    """
    waiting, seen = {path}, set[Path]()
    while waiting:
        seen.add(path := waiting.pop())
        names = _imports(path)
        if not STARTING.isdisjoint(names):
            return True
        modules = {ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in names}
        waiting |= {module for module in modules - seen if module.is_file()}
    return False


@functools.cache
def _imports(path: Path) -> Set[str]:
    """
    Return the names of all imported modules, and of what is imported from them.
    """
    nodes = list(ast.walk(ast.parse(path.read_bytes())))
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {
        *(
            alias.name
            for node in nodes
            if isinstance(node, ast.Import)
            for alias in node.names
        ),
        *(node.module or "" for node in froms),
        *(f"{node.module}.{alias.name}" for node in froms for alias in node.names),
    }
