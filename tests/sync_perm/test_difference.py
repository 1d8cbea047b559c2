"""
What a pass of Airflow would change.
"""

from dataclasses import replace
from typing import Any

import pytest

from sync_perm.database.access_control import Unreadable
from sync_perm.database.tables import Tables
from sync_perm.difference import WEBSITE, Definition, Difference, Item, compare, define
from tests.sync_perm.given import KINDS, permissions_of, tables

NONE: frozenset[Any] = frozenset()


def look(found: Tables) -> Difference:
    return compare(found, KINDS, None)


def rows(found: Tables) -> set[tuple[Any, ...]]:
    return {(item.kind, *item.row) for item in look(found).items}


def test_nothing_differs() -> None:
    access = {"team": {"DAGs": {"can_read"}}}
    grants = [("team", "can_read", "DAG:d"), ("team", "can_edit", "DAG:by_hand")]

    found = tables({"d": access, "by_hand": None}, roles=["team"], grants=grants)

    assert Difference(NONE, {}) == look(found)


# --- roles


def test_rows_without_action_or_resource_are_broken() -> None:
    assert {Item("broken", "", (3,))} == look(tables(broken=3)).items


def test_default_roles_must_exist() -> None:
    empty = Tables(NONE, {}, 0, {}, NONE)

    assert {("role", name) for name in ("Admin", "Public", "Viewer", "User", "Op")} == rows(empty)


def test_custom_roles_see_the_website() -> None:
    found = replace(tables(), grants={"team": NONE, "Viewer": NONE})

    assert ("role_grant", "team", "can_read", "Website") in rows(found)
    assert ("role_grant", "Viewer", "can_read", "Website") not in rows(found)


def test_admin_has_all_but_single_dags() -> None:
    found = tables({"d": None}, permissions={*permissions_of("d"), ("can_edit", "Jobs")})

    assert {("role_grant", "Admin", "can_edit", "Jobs")} == rows(found)


def test_a_default_role_gets_back_what_it_lost() -> None:
    lost = ("Viewer", "can_read", "Jobs")
    definition = Definition(NONE, NONE, {"Viewer": {lost[1:]}})

    assert {Item("role_grant", "", lost)} == compare(tables(), KINDS, definition).items


def test_a_role_and_a_permission_that_this_airflow_defines_must_exist() -> None:
    permission = ("can_read", "A Plugin")
    definition = Definition(frozenset({"auditor"}), frozenset({permission}), {})

    assert {Item("role", "", ("auditor",)), Item("permission", "", permission)} == compare(
        tables(), KINDS, definition
    ).items


def test_a_resource_must_exist_though_nothing_may_be_done_with_it() -> None:
    definition = Definition(NONE, NONE, {}, frozenset({"Login", "Index", "Website"}))
    found = replace(tables(), bare=frozenset({"Index", "DAG:old"}))

    assert {Item("resource", "", ("Login",))} == compare(found, KINDS, definition).items
    assert {"Index"} == define(found, KINDS).bare


def test_what_a_role_that_is_missing_must_have_comes_with_it() -> None:
    definition = Definition(frozenset({"Op"}), NONE, {"Op": {("can_read", "Jobs")}})
    found = replace(
        tables(), grants={role: held for role, held in tables().grants.items() if role != "Op"}
    )

    assert {Item("role", "", ("Op",))} == compare(found, KINDS, definition).items


def test_what_airflow_has_written_is_defined_but_for_single_dags_and_roles_of_people() -> None:
    grants = {("Viewer", "can_read", "Website"), ("Viewer", "can_read", "DAG:d")}
    found = tables({"d": None}, roles=["team"], grants=grants)

    defined = define(found, KINDS)

    assert {("can_read", "Website")} == defined.permissions
    held = {role: defined.grants[role] for role in ("Viewer", "Admin", "Op")}
    assert {"Viewer": {WEBSITE}, "Admin": {WEBSITE}, "Op": set()} == held
    assert "team" not in defined.grants
    assert NONE == compare(found, KINDS, defined).items


# --- DAGs


def test_each_dag_has_its_permissions() -> None:
    found = tables({"d": None}, permissions=permissions_of("d") - {("menu_access", "DAG Run:d")})

    assert {Item("dag_permission", "d", ("menu_access", "DAG Run:d"))} == look(found).items


def test_a_dag_that_is_called_like_all_dags_is_left_alone() -> None:
    """Airflow takes its permissions for those on every DAG, and then takes them from the roles."""
    found = look(tables({"DAGs": {}}, permissions=(), grants=[("Op", "can_read", "DAGs")]))

    assert (NONE, "name_reserved") == (found.items, found.failing["DAGs"].reason)


def test_a_late_role_gets_what_the_dag_grants_it() -> None:
    found = tables({"d": {"late": {"DAGs": {"can_read"}, "DAG Runs": {"can_create"}}}})

    assert "role_missing" == look(found).failing["d"].reason
    assert set() == rows(found)

    found = tables(found.dags, roles=["late"])

    assert {} == look(found).failing
    assert {
        ("dag_grant", "late", "can_read", "DAG:d"),
        ("dag_grant", "late", "can_create", "DAG Run:d"),
    } == rows(found)


def test_grants_by_hand_are_revoked_only_where_there_is_access_control() -> None:
    grants = [("team", "can_edit", "DAG:d"), ("team", "can_read", "DAG Run:e")]

    found = tables({"d": {}, "e": None}, roles=["team"], grants=grants)

    assert {("dag_revoke", "team", "can_edit", "DAG:d")} == rows(found)


@pytest.mark.parametrize(
    "found",
    [
        tables({"d": {}}, grants=[("Admin", "can_edit", "DAG:d")]),
        tables(permissions=permissions_of("gone"), grants=[("Op", "can_edit", "DAG:gone")]),
        tables(permissions=(), grants=[("Op", "can_read", "DAG:d")]),
    ],
    ids=["of Admin", "of DAGs that are gone", "of DAGs that are left out"],
)
def test_nothing_is_taken(found: Tables) -> None:
    assert set() == rows(found)


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({"can_read"}, {"DAG:d", "DAG Run:d"}),  # a set protects the action on both
        ({"DAGs": {"can_read"}}, {"DAG:d"}),
        ({"DAGs": ["can_read"]}, {"DAG:d"}),
        (["can_read"], {"DAG:d"}),  # revoked, then granted again
        (set(), set()),
    ],
)
def test_what_is_kept_depends_on_the_collection(asked: Any, kept: set[str]) -> None:
    grants = {("team", "can_read", resource) for resource in ("DAG:d", "DAG Run:d")}

    found = tables({"d": {"team": asked}}, roles=["team"], grants=grants)

    assert {("dag_revoke", *g) for g in grants if g[2] not in kept} == rows(found)


def test_a_role_that_the_database_spells_otherwise_is_granted() -> None:
    found = tables({"d": {"data-eng": {"can_read"}}}, roles=["Data-Eng"])
    found = replace(found, aliases={"data-eng": "Data-Eng"})

    assert {("dag_grant", "Data-Eng", "can_read", "DAG:d")} == rows(found)
    assert {} == look(found).failing


def test_a_missing_role_hides_those_after_it() -> None:
    """Airflow grants in the order of the mapping, and stops at the first that it refuses."""
    access = {"one": {"can_read"}, "missing": {"can_read"}, "two": {"can_read"}}
    grants = [("two", "can_edit", "DAG:d")]

    found = tables({"d": access}, roles=["one", "two"], grants=grants)

    assert {
        ("dag_grant", "one", "can_read", "DAG:d"),
        ("dag_revoke", "two", "can_edit", "DAG:d"),
    } == rows(found)
    assert "role 'missing' does not exist" == look(found).failing["d"].text


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"Nonsense": {"can_read"}}, "'Nonsense'"),
        ({"can_fly"}, "'can_fly'"),
        ({"DAGs": {"can_create"}}, "'can_create'"),
        ("can_read", "'_'"),
        (7, "not iterable"),
        ({"DAGs": None}, "not iterable"),
    ],
)
def test_an_invalid_access_control_is_said(asked: Any, word: str) -> None:
    failing = look(tables({"d": {"team": asked}}, roles=["team"])).failing

    assert "access_control_invalid" == failing["d"].reason
    assert word in failing["d"].text


def test_what_one_dag_asks_for_does_not_keep_the_others_from_being_compared() -> None:
    """Its role has a grant already, which might have to be revoked."""
    grants = [("team", "can_read", "DAG:d"), ("team", "can_read", "DAG:other")]
    permissions = {("can_read", "DAG:d"), ("can_read", "DAG:other")}
    access = {"d": {"team": {"DAGs": 5}}, "other": {}}

    found = look(tables(access, roles=["team"], grants=grants, permissions=permissions))

    assert ["d"] == list(found.failing)
    assert Item("dag_revoke", "other", grants[1]) in found.items


def test_where_dags_are_the_only_kind_a_mapping_is_refused_as_airflow_refuses_it() -> None:
    """Airflow 2.10 writes one for every DAG; FAB before 1.3 takes its keys for actions."""
    old = {"DAGs": KINDS["DAGs"]}
    grant = ("team", "can_read", "DAG:d")
    permissions = {(action, "DAG:d") for action in old["DAGs"].actions}
    access = {"d": {"team": {"DAGs": {"can_read"}}}}
    found = tables(access, roles=["team"], grants=[grant], permissions=permissions)

    difference = compare(found, old, None)

    assert {Item("dag_revoke", "d", grant)} == difference.items
    assert "'DAGs' is not one of can_delete" in difference.failing["d"].text


def test_an_unreadable_access_control_changes_nothing() -> None:
    found = tables({"d": Unreadable("a datetime")}, grants=[("Op", "can_read", "DAG:d")])

    assert set() == rows(found)
    assert "access_control_invalid" == look(found).failing["d"].reason
