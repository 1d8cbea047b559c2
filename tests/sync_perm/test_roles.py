"""
Comparing the roles file with the tables.
"""

from collections.abc import Iterable
from dataclasses import replace
from textwrap import dedent
from typing import Any

import pytest

from sync_perm.database.tables import Grant, Permission, Place, Tables
from sync_perm.difference import DEFAULT_ROLES, WEBSITE, Definition
from sync_perm.role_file.document import Document
from sync_perm.role_file.reading import parse
from sync_perm.role_file.wanted import Surplus, Wanted, find_mistakes
from tests.sync_perm.given import KINDS, permissions_of, tables

VIEWS: set[Permission] = {("can_read", "Jobs"), ("can_edit", "Pools"), ("can_read", "Website")}
DEFINITION = Definition(
    frozenset(DEFAULT_ROLES),
    frozenset(VIEWS),
    {"Viewer": {("can_read", "Jobs"), WEBSITE}},
)
PLACES = {
    "a": Place("team-a/a.py", ("public",)),
    "b": Place("team-b/b.py", ("public", "late")),
    "nowhere": Place("", ()),
}


def document(text: str) -> Document:
    found = parse(dedent(text).encode(), KINDS)
    assert () == found.mistakes
    return found


def metadata(
    dags: dict[str, Any] | None = None,
    *,
    roles: Iterable[str] = (),
    grants: Iterable[Grant] = (),
) -> Tables:
    access = {"a": None, "b": None, "nowhere": None} if dags is None else dags
    permissions = VIEWS | permissions_of(*access)
    found = tables(access, roles=roles, grants=grants, permissions=permissions)
    return replace(found, places=PLACES)


def wanted(text: str, found: Tables) -> Wanted:
    return Wanted(document(text), found, KINDS, DEFINITION)


def rows(text: str, found: Tables) -> set[tuple[Any, ...]]:
    return {(item.kind, *item.row) for item in wanted(text, found).items()}


def test_a_mistake_of_many_roles_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lookup takes milliseconds, and an edited row causes one for each role."""
    asked: list[str] = []
    monkeypatch.setattr("difflib.get_close_matches", lambda word, *_: asked.append(word) or [])
    roles = "".join(
        f"  role-{number}:\n    permissions: [can_read on Jbs]\n" for number in range(50)
    )

    found = find_mistakes(document(f"roles:\n{roles}"), metadata(), DEFINITION)

    assert (50, ["can_read on Jbs"]) == (len(found), asked)


def test_a_new_role_gets_its_permissions_and_the_website_permission() -> None:
    assert {
        ("file_role", "team"),
        ("file_grant", "team", "can_read", "Website"),
        ("file_grant", "team", "can_edit", "Pools"),
    } == rows("roles: {team: {permissions: [can_edit on Pools]}}", metadata())


def test_leaves_the_website_permission_of_an_existing_role_to_airflow() -> None:
    found = replace(metadata(), grants={"team": set()})

    assert set() == rows("roles: {team: {}}", found)
    assert {("file_grant", "team", "can_read", "Jobs")} == rows(
        "roles: {team: {from: [Viewer]}}", found
    )


def test_a_role_inherits_from_its_bases_recursively() -> None:
    text = """\
        roles:
          base: {permissions: [can_edit on Pools], dags: [{id: a, permissions: [can_edit]}]}
          middle: {from: [base, Viewer]}
          top: {from: [middle]}
    """

    found = rows(text, metadata(roles=["base", "middle", "top"]))

    of_top = {row for row in found if row[1] == "top"}
    assert {
        ("file_grant", "top", "can_edit", "Pools"),
        ("file_grant", "top", "can_read", "Jobs"),
        ("file_dag_grant", "top", "can_edit", "DAG:a"),
    } == of_top


def test_inherits_a_base_as_airflow_defines_it_not_as_the_ui_changed_it() -> None:
    widened = metadata(roles=["team"], grants=[("Viewer", "can_edit", "Pools")])

    assert {("file_grant", "team", "can_read", "Jobs")} == rows(
        "roles: {team: {from: [Viewer]}}", widened
    )


def test_selects_dags_by_id_tag_and_folder() -> None:
    text = """\
        roles:
          team:
            dags:
              - {id: nowhere, permissions: [can_delete]}
              - {tag: public, permissions: [can_read]}
              - {folder: team-a/**, permissions: [DAGs.can_edit, can_create on DAG Runs]}
    """

    found = wanted(text, metadata(roles=["team"]))

    assert {
        ("nowhere", "team", "can_delete", "DAG:nowhere"),
        ("a", "team", "can_read", "DAG:a"),
        ("b", "team", "can_read", "DAG:b"),
        ("a", "team", "can_edit", "DAG:a"),
        ("a", "team", "can_create", "DAG Run:a"),
    } == {(item.dag_id, *item.row) for item in found.items()}
    assert [] == found.idle


def test_does_not_ask_for_existing_grants_again() -> None:
    dags = "dags: [{id: a, permissions: [can_read]}]"
    text = f"roles: {{team: {{permissions: [can_edit on Pools], {dags}}}}}"
    grants = [("team", "can_edit", "Pools"), ("team", "can_read", "DAG:a")]

    assert set() == rows(text, metadata(roles=["team"], grants=grants))


def test_access_control_of_a_dag_overrules_the_file() -> None:
    """At each parse, Airflow revokes every grant that access_control does not list."""
    text = "roles: {team: {dags: [{folder: '**', permissions: [can_read]}]}}"
    dags = {"a": {"team": {"can_edit"}}, "b": {}, "nowhere": None}

    found = wanted(text, metadata(dags, roles=["team"]))

    assert [] == list(found.items())
    assert ["a", "b"] == found.overruled


def test_reports_a_selection_that_matches_no_dag() -> None:
    text = "roles: {team: {dags: [{folder: tem-a/**, permissions: [can_read]}]}}"

    (idle,) = wanted(text, metadata(roles=["team"])).idle

    assert ("folder", "tem-a/**", 1) == (idle.by, idle.value, idle.where.line)


def test_leaves_a_dag_named_dags_alone() -> None:
    text = "roles: {team: {dags: [{id: DAGs, permissions: [can_read]}]}}"

    assert set() == rows(text, metadata({"DAGs": None}, roles=["team"]))


def test_recognizes_a_role_that_the_database_spells_differently() -> None:
    found = replace(metadata(roles=["Team"]), aliases={"team": "Team"})

    assert {("file_grant", "Team", "can_edit", "Pools")} == rows(
        "roles: {team: {permissions: [can_edit on Pools]}}", found
    )


def test_the_surplus_lists_unknown_roles_and_extra_grants_of_file_roles() -> None:
    text = "roles: {team: {dags: [{folder: team-a/**, permissions: [can_read]}]}}"
    grants = [
        ("team", "can_read", "DAG:a"),
        ("team", "can_edit", "DAG:a"),
        ("team", "can_edit", "Pools"),
        ("team", "can_read", "DAG:ruled"),  # its access_control decides
        ("other", "can_edit", "Pools"),
        ("Viewer", "can_edit", "Pools"),
    ]
    dags: dict[str, Any] = {"a": None, "ruled": {}}

    database = metadata(dags, roles=["team", "other", "auditor"], grants=grants)
    found = wanted(text, replace(database, aliases={"Auditor": "auditor"}))
    found._definition = replace(DEFINITION, roles=DEFINITION.roles | {"Auditor"})

    assert (
        Surplus(("other",), (("team", "can_edit", "DAG:a"), ("team", "can_edit", "Pools")))
        == found.surplus()
    )


def test_a_permission_that_this_airflow_does_not_have_is_a_mistake() -> None:
    text = "roles:\n  team:\n    permissions: [can_read on Jbos, can_edit on Pools]"

    (found,) = find_mistakes(document(text), metadata(), DEFINITION)

    expected = "this Airflow has no permission 'can_read on Jbos'; did you mean 'can_read on Jobs'?"
    assert f"3: roles.team.permissions[0]: {expected}" == str(found)
    assert () == find_mistakes(document(text), metadata(), None)


@pytest.mark.parametrize("aliases", [{"ádmin": "Admin"}, {"Admin": "ádmin"}])
def test_a_name_that_the_database_equates_with_a_default_role_is_a_mistake(
    aliases: dict[str, str],
) -> None:
    found = replace(metadata(), aliases=aliases)

    (mistake,) = find_mistakes(document("roles: {ádmin: {}}"), found, None)

    assert "the database treats this name as Admin" == mistake.problem


@pytest.mark.parametrize(
    ("role", "aliases"),
    [
        ("soro", {"sørø": "soro"}),
        ("Soro", {"soro": "Soro", "sørø": "Soro"}),
    ],
)
def test_two_names_that_the_database_equates_are_a_mistake(
    role: str, aliases: dict[str, str]
) -> None:
    """Its one role would receive the permissions of both."""
    found = replace(metadata(roles=[role]), aliases=aliases)

    (mistake,) = find_mistakes(document("roles:\n  soro: {}\n  sørø: {}"), found, None)

    assert "3: roles.sørø: the database treats this name as soro" == str(mistake)
