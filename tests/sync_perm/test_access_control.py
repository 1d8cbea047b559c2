"""
The access control of a serialized DAG.
"""

import json
from typing import Any

import pytest

from sync_perm.compare import Unreadable
from sync_perm.tables import read_access_control

SET = {"__type": "set", "__var": ["can_read"]}


def text(value: Any, key: str = "_access_control") -> str:
    return json.dumps({"__version": 1, "dag": {"dag_id": "d", key: value}})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"__type": "dict", "__var": {"a": SET}}, {"a": {"can_read"}}),
        (
            {"__type": "dict", "__var": {"a": {"__type": "dict", "__var": {"DAG Runs": SET}}}},
            {"a": {"DAG Runs": {"can_read"}}},
        ),
        ({"__type": "dict", "__var": {}}, {}),
        ({"a": ["can_read"]}, {"a": ["can_read"]}),
        ({"a": {"__type": "tuple", "__var": ["can_read"]}}, {"a": ("can_read",)}),
        (None, None),
    ],
)
def test_reads_every_form_that_airflow_writes(value: Any, expected: Any) -> None:
    assert expected == read_access_control(text(value), None)
    assert expected == read_access_control(text(value, "access_control"), None)


def test_does_not_parse_a_dag_without_access_control() -> None:
    assert None is read_access_control("{ no json", None)


@pytest.mark.parametrize(
    ("data", "blob"),
    [
        ('"access_control"', None),
        ('{"_access_control": 1}', None),
        (text({"__type": "datetime", "__var": 1}), None),
        (text([1]), None),
        (text({"a": {"__type": "set", "__var": "can_read"}}), None),
        (None, b"no zlib"),
        ('{"dag": ["access_control"]}', None),
        ('{"dag": {"access_control": ' + 100_000 * "[", None),
    ],
)
def test_an_unknown_form_is_an_error(data: str | None, blob: bytes | None) -> None:
    with pytest.raises(Unreadable):
        read_access_control(data, blob)
