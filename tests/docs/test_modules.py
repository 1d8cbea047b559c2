"""
The README of the runtime lists its modules, folders stay small, and names have one meaning.
"""

import ast
from collections import Counter

from tests.docs.code import ROOT, RUNTIME

MOST_MODULES = 20
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
