"""
The rows that a pass of Airflow would change.
"""

import json
import zlib
from dataclasses import replace
from typing import Any

import pytest

from sync_perm.compare import (
    DEFAULT_ROLES,
    Failure,
    Tables,
    compare,
    find_unasked,
    general,
    unfit_id,
)
from sync_perm.tables import MOST_BYTES, read_access_control
from tests import Facts
from tests.sync_perm.given import permissions_of, tables

NONE: frozenset[Any] = frozenset()


def rows(found: Tables) -> set[tuple[Any, ...]]:
    return {(item.kind, *item.row) for item in compare(found).items}


# --- what Airflow alone judges


@pytest.mark.parametrize(
    "change",
    [
        {"broken": 1},
        {"resources": frozenset({"Login"})},
        {"permissions": tables().permissions | {("can_read", "Jobs")}},
        {"grants": {**tables().grants, "team": frozenset()}},
        {"grants": {**tables().grants, "Op": {("can_read", "Website")}}},
    ],
    ids=["broken", "resource", "permission", "role", "grant"],
)
def test_a_change_of_any_row_that_belongs_to_no_dag_is_seen(
    change: Facts,
) -> None:
    before = tables({"d": None})

    assert general(before) != general(replace(before, **change))


def test_rows_of_single_dags_are_left_to_the_comparison() -> None:
    grants = [("Op", "can_read", "DAG:d"), ("Op", "can_read", "DAG Run:d")]

    assert general(tables()) == general(tables({"d": None}, grants=grants))


# --- DAGs


@pytest.mark.parametrize(
    ("dag_id", "reason"),
    [
        ("x" * 242, None), ("x" * 243, "id_too_long"), ("dags", None),
        ("DAGs.x", None), ("DAGs", "name_reserved"), ("DAG Run:x", "name_reserved"),
    ],
)  # fmt: skip
def test_refuses_an_id_that_has_no_resources_of_its_own(
    dag_id: str, reason: str | None
) -> None:
    found = unfit_id(dag_id)

    assert reason == (found.reason if found else None)


def test_a_refused_dag_is_reported_and_stops_no_other() -> None:
    refused = Failure("dag_too_large", "too large")
    grants = [("Op", "can_edit", "DAG:d")]

    found = compare(tables({"d": refused, "e": None}, permissions=(), grants=grants))

    assert {"d": refused} == found.failing
    assert {"e"} == {item.dag_id for item in found.items}


def test_a_dag_gets_the_grants_of_its_access_control() -> None:
    access = {"team": {"DAGs": {"can_read"}, "DAG Runs": {"can_create"}}}

    assert {
        ("dag_grant", "team", "can_read", "DAG:d"),
        ("dag_grant", "team", "can_create", "DAG Run:d"),
    } == rows(tables({"d": access}, roles=["team"]))


@pytest.mark.parametrize(
    "found",
    [
        tables({"d": {}}, grants=[("Admin", "can_edit", "DAG:d")]),
        tables(
            permissions=permissions_of("gone"), grants=[("Op", "can_edit", "DAG:gone")]
        ),
    ],
    ids=["of Admin", "of DAGs that are gone"],
)
def test_revokes_no_grants_of_admin_or_on_dags_that_are_not_compared(
    found: Tables,
) -> None:
    assert set() == rows(found)


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        # a set protects the action on both kinds
        ({"can_read"}, {"DAG:d", "DAG Run:d"}),
        ({"DAGs": {"can_read"}}, {"DAG:d"}),
        ({"DAGs": ["can_read"]}, {"DAG:d"}),
        (["can_read"], {"DAG:d"}),  # revoked, then granted again
        (set(), set()),
    ],
)
def test_kept_grants_depend_on_the_type_of_access_control(
    asked: Any, kept: set[str]
) -> None:
    grants = {("team", "can_read", resource) for resource in ("DAG:d", "DAG Run:d")}

    found = tables({"d": {"team": asked}}, roles=["team"], grants=grants)

    assert {("dag_revoke", *g) for g in grants if g[2] not in kept} == rows(found)


def test_two_spellings_of_one_role_get_the_grants_of_both() -> None:
    access = {"data-eng": {"can_read"}, "DATA-ENG": {"can_edit"}}
    found = tables({"d": access}, roles=["Data-Eng"])
    found = replace(found, aliases=dict.fromkeys(access, "Data-Eng"))

    granted = {
        ("dag_grant", "Data-Eng", action, "DAG:d")
        for action in ("can_read", "can_edit")
    }
    assert (granted, {}) == (rows(found), compare(found).failing)


def test_a_missing_role_stops_the_grants_of_the_roles_after_it() -> None:
    """
    Airflow grants in the order of the mapping, and stops at the first role that it
    refuses.
    """
    access = {"one": {"can_read"}, "missing": {"can_read"}, "two": {"can_read"}}

    found = tables(
        {"d": access}, roles=["one", "two"], grants=[("two", "can_edit", "DAG:d")]
    )

    assert {
        ("dag_grant", "one", "can_read", "DAG:d"),
        ("dag_revoke", "two", "can_edit", "DAG:d"),
    } == rows(found)
    assert ("role_missing", "role 'missing' does not exist") == compare(found).failing[
        "d"
    ]


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"Nonsense": {"can_read"}}, "'Nonsense'"), ({"can_fly"}, "'can_fly'"),
        ({"DAGs": {"can_create"}}, "'can_create'"), ("can_read", "'_'"), (7, "not iterable"),
        ({"DAGs": None}, "not iterable"),
    ],
)  # fmt: skip
def test_reports_an_invalid_access_control(asked: Any, word: str) -> None:
    found = compare(tables({"d": {"team": asked}}, roles=["team"]))

    assert (NONE, "access_control_invalid") == (found.items, found.failing["d"].reason)
    assert word in found.failing["d"].text


UNASKED = """\
Op: can_read on DAG Run:free
Op: can_read on DAG:gone
gone: can_read on DAG Run:free
gone: can_read on DAG:free
gone: can_read on DAG:gone
gone: can_read on Jobs
gone: the role itself
team: can_read on DAG:free
team: can_read on DAG:gone
team: can_read on Jobs
"""


def test_a_grant_that_neither_access_control_nor_the_file_asks_for_is_unasked() -> None:
    """
    Of Airflow's own roles, only those on single DAGs; a role that is gone from the file
    comes with its name.
    """
    resources = ("DAG:free", "DAG Run:free", "DAG:ruled", "DAG:gone", "Jobs", "Website")
    roles = ("Admin", "Op", "team", "gone")
    grants = [(role, "can_read", name) for role in roles for name in resources]
    dags: Facts = {"free": None, "ruled": {}}
    found = tables(dags, roles=["team", "gone"], grants=grants)

    asked = {"Op": {("can_read", "DAG:free")}, "team": {("can_read", "DAG Run:free")}}
    unasked = find_unasked(found, asked, DEFAULT_ROLES)
    assert sorted(map(str, unasked)) == UNASKED.splitlines()


# --- the access control of a serialized DAG

SET = {"__type": "set", "__var": ["can_read"]}


def text(value: Any, key: str = "_access_control") -> str:
    return json.dumps({"__version": 1, "dag": {"dag_id": "d", key: value}})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"__type": "dict", "__var": {"a": SET}}, {"a": {"can_read"}}),
        (
            {
                "__type": "dict",
                "__var": {"a": {"__type": "dict", "__var": {"DAG Runs": SET}}},
            },
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
        (text({"__type": "datetime", "__var": 1}), None),
        (text({"a": {"__type": "set", "__var": "can_read"}}), None),
        (None, b"no zlib"),
        ('{"dag": ["access_control"]}', None),
        ('{"dag": {"access_control": ' + 100_000 * "[", None),
    ],
)
def test_an_unknown_form_is_reported(data: str | None, blob: bytes | None) -> None:
    found = read_access_control(data, blob)

    assert isinstance(found, Failure)
    assert "access_control_invalid" == found.reason


def test_a_small_dag_that_unpacks_to_a_large_one_has_a_reason() -> None:
    bomb = zlib.compress(b" " * 50 * MOST_BYTES)

    found = read_access_control(None, bomb, len(bomb))

    assert Failure("dag_too_large", "has more than 4 MiB in serialized_dag") == found
