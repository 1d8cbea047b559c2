"""
The README of tests/support lists every module.
"""

import re

from tests.docs.code import ROOT

SUPPORT = ROOT / "tests" / "support"


def test_every_module_is_in_the_readme_once() -> None:
    modules = sorted(path.name for path in SUPPORT.glob("*.py") if path.name != "__init__.py")

    assert modules == sorted(re.findall(r"\]\((\w+\.py)\)", (SUPPORT / "README.md").read_text()))
