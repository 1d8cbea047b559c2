"""
The README of the runtime lists its modules, and folders stay small enough to read.
"""

from collections import Counter

from tests.docs.code import ROOT, RUNTIME

MOST_MODULES = 20


def test_the_readme_of_the_runtime_lists_each_module() -> None:
    text = (ROOT / "runtime/README.md").read_text()
    paths = [str(path.relative_to(RUNTIME.parent)) for path in RUNTIME.rglob("*.py")]

    assert [] == [path for path in paths if f"]({path})" not in text and "__init__" not in path]


def test_no_product_folder_has_too_many_modules() -> None:
    found = Counter(
        path.parent
        for top in ("airflow-bundle", "bench", "demo", "docs", "runtime", "sidecars", "soak")
        for path in (ROOT / top).rglob("*.py")
        if not path.name.startswith("__")
    )

    assert len(found) > 30
    assert {} == {folder: count for folder, count in found.items() if count > MOST_MODULES}
