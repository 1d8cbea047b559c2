"""
The README of the runtime lists its modules, each package has a contract, folders and the product
stay small, and names have one meaning.
"""

import ast
import tomllib
from collections import Counter
from pathlib import Path

from tests.docs.code import ROOT, RUNTIME

MOST_MODULES = 20
MOST_LINES_OF_CODE = 27_500
TOPS_OF_PRODUCT = ("airflow-bundle", "runtime", "sidecars")
TOPS = ("airflow-bundle", "bench", "demo", "docs", "runtime", "sidecars", "soak", "tests")


def test_the_readme_of_the_runtime_lists_each_module() -> None:
    text = (ROOT / "runtime/README.md").read_text()
    paths = [str(path.relative_to(RUNTIME.parent)) for path in RUNTIME.rglob("*.py")]

    assert [] == [path for path in paths if f"]({path})" not in text and "__init__" not in path]


def test_no_folder_has_too_many_modules() -> None:
    found = Counter(
        path.parent
        for top in TOPS
        for path in (ROOT / top).rglob("*.py")
        if not path.name.startswith("__")
    )

    assert len(found) > 100
    assert {} == {folder: count for folder, count in found.items() if count > MOST_MODULES}


def test_each_package_has_a_contract_of_its_layers() -> None:
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    contracts = [name for contract in lint["contracts"] for name in contract.get("containers", [])]
    tops = [*(ROOT / "sidecars").glob("*/*_*/"), RUNTIME]
    folders = [folder for top in tops for folder in (top, *top.rglob("*/"))]
    large = [folder for folder in folders if len([*folder.glob("*.py")]) > 2]
    names = [
        ".".join(folder.relative_to(top.parent).parts)
        for top in tops
        for folder in large
        if folder.is_relative_to(top)
    ]

    assert sorted(names) == sorted(contracts)


def test_a_package_has_one_class_of_each_name() -> None:
    """Private classes may share a name: nothing outside of their module uses it."""
    for package in (*(ROOT / "sidecars").glob("*/*/"), RUNTIME):
        names = Counter(
            node.name
            for path in package.rglob("*.py")
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        )

        assert [] == [name for name, count in names.items() if count > 1], package


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


def test_the_code_of_the_product_keeps_within_its_limit() -> None:
    """Without docstrings, comments and blank lines: see decision 0032."""
    files = [path for top in TOPS_OF_PRODUCT for path in (ROOT / top).rglob("*.py")]
    found = sum(len(_lines_of_code(path)) for path in files)

    assert 20_000 < found <= MOST_LINES_OF_CODE


def _lines_of_code(path: Path) -> set[int]:
    text = path.read_text()
    strings = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    documented = {
        line for node in strings for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    return {
        number
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#") and number not in documented
    }
