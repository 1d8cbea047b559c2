"""README.md lists existing tests, and all files and tables."""

import re
from pathlib import Path

from tests.s3_sync.conformance import rows

HERE = Path(__file__).parent
TABLE = (HERE / "README.md").read_text()


def test_every_listed_test_exists() -> None:
    named = re.findall(r"\]\(([^)]+\.py)\): ((?:`\w+`(?:, )?)+)", TABLE)

    for path, names in named:
        source = (HERE / path).read_text()
        for name in re.findall(r"`(\w+)`", names):
            found = rf"^((async )?def {name}\(|{name} = )"
            assert re.search(found, source, re.MULTILINE), f"{path} has no {name}"
    assert len(named) > 15


def test_every_file_and_table_is_listed() -> None:
    tables = {
        name for name, value in vars(rows).items() if isinstance(value, dict) and name[0].isupper()
    }
    files = {path.name for path in HERE.glob("test_*.py")} - {"test_readme.py", "test_answers.py"}

    for name in tables:
        assert f"`{name}`" in TABLE
    for name in files:
        assert f"]({name})" in TABLE
