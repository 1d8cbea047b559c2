"""
The published schema and the documented files agree with the code.
"""

import json
import re
from typing import Any

import jsonschema
import pytest
import yaml

from docs.__main__ import ROOT
from sync_perm.roles_file import parse
from tests.sync_perm.given import KINDS

SCHEMA = json.loads((ROOT / "docs/reference/roles.schema.json").read_text())
HOW_TO = (ROOT / "docs/how-to/keep-roles-in-a-file.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", HOW_TO, re.DOTALL)


def is_valid(value: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(SCHEMA).is_valid(value))


def test_the_example_file_in_the_how_to_is_valid() -> None:
    assert () == parse(BLOCKS[0].encode(), KINDS).mistakes
    assert is_valid(yaml.safe_load(BLOCKS[0]))


def role(**body: Any) -> dict[str, Any]:
    return {"roles": {"team": body}}


def dag(**body: Any) -> dict[str, Any]:
    return role(dags=[{"permissions": ["can_read"], **body}])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"roles": {}}, True),
        ({}, False),
        ({"roles": {}, "more": 1}, False),
        ({"roles": []}, False),
        ({"roles": {"Admin": {}}}, False),
        ({"roles": {"viewer": {}}}, False),
        ({"roles": {"Administrators": {}}}, True),
        ({"roles": {" team": {}}}, False),
        ({"roles": {65 * "a": {}}}, False),
        (role(permission=[]), False),
        (role(permissions=["can_read on Jobs", "Jobs.can_read", "x on A.b on C"]), True),
        (role(permissions=["can_read"]), False),
        (role(permissions=["can_read on DAG:x"]), False),
        (role(permissions=["DAG Run:x.can_read"]), False),
        (role(permissions="can_read on Jobs"), False),
        (dag(id="a"), True),
        (dag(id=1), False),
        (dag(), False),
        (dag(id="a", tag="b"), False),
        ({"roles": {"team": {"dags": [{"id": "a"}]}}}, False),
        (dag(id="a", permissions=["DAGs.can_edit", "can_create on DAG Runs"]), True),
        (dag(id="a", permissions=["can_read on Jobs"]), False),
        *[(dag(folder=one), True) for one in ("team/**", "**", "a/*.py", "x.py", "*.zip/**")],
        *[(dag(folder=one), False) for one in ("/a/**", "team", "a//**", "../**", "a**", "**.py")],
        *[(dag(folder=one), False) for one in ("a/b.zip", "*.zip", "**/?.zip")],
    ],
)
def test_schema_and_code_agree(value: Any, expected: bool) -> None:
    mistakes = parse(json.dumps(value).encode(), KINDS).mistakes

    assert (expected, expected) == (is_valid(value), not mistakes), mistakes
