"""
The map of the runtime.
"""

from tests.docs.code import ROOT, RUNTIME


def test_the_readme_of_the_runtime_lists_each_module() -> None:
    text = (ROOT / "runtime/README.md").read_text()
    paths = [str(path.relative_to(RUNTIME.parent)) for path in RUNTIME.rglob("*.py")]

    assert [] == [path for path in paths if f"]({path})" not in text and "__init__" not in path]
