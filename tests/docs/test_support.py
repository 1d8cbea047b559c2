"""
The README of tests/support lists every module.
"""

import re

from tests.docs.code import ROOT

SUPPORT = ROOT / "tests" / "support"


def test_every_module_is_in_the_readme_once() -> None:
    modules = sorted(
        str(path.relative_to(SUPPORT))
        for path in SUPPORT.rglob("*.py")
        if path.name != "__init__.py"
    )

    listed = re.findall(r"\]\(([\w/]+\.py)\)", (SUPPORT / "README.md").read_text())
    assert modules == sorted(listed)
