"""
Comparing the roles file with the tables.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from sync_perm.compare import WEBSITE, Grant, Permission, Place, Tables
from sync_perm.roles import RoleFile, Wanted, want
from sync_perm.roles_file import Document, parse
from tests.sync_perm.given import KINDS, permissions_of, tables

VIEWS: set[Permission] = {("can_read", "Jobs"), ("can_edit", "Pools"), ("can_read", "Website")}
DEFINED = {"Viewer": {("can_read", "Jobs"), WEBSITE}}
PLACES = {
    "a": Place("team-a/a.py", frozenset({"ann"}), frozenset({"public"})),
    "b": Place("team-b/b.py", frozenset({"ann", "bob"}), frozenset({"public", "late"})),
    "nowhere": Place("", frozenset(), frozenset()),
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
    return want(document(text), found, KINDS, DEFINED)


def rows(text: str, found: Tables) -> set[tuple[Any, ...]]:
    return {(item.kind, *item.row) for item in wanted(text, found).items}


def mistakes(folder: Path, text: str, found: Tables, defined: Any = DEFINED) -> list[str]:
    """Return the mistakes that only the tables show."""
    path = folder / "roles.yaml"
    path.write_text(text)
    file = RoleFile(str(path), KINDS)
    file.refresh()
    file.compare(found, defined)
    return [str(mistake) for mistake in file.mistakes]


def test_a_new_role_gets_its_permissions_and_the_website_permission() -> None:
    assert {
        ("file_role", "team"),
        ("file_grant", "team", "can_read", "Website"),
        ("file_grant", "team", "can_edit", "Pools"),
    } == rows("roles: {team: {permissions: [can_edit on Pools]}}", metadata())


def test_leaves_the_website_permission_of_an_existing_role_to_airflow() -> None:
    found = replace(metadata(), grants={"team": set()})

    assert set() == rows("roles: {team: {}}", found)


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


def test_selects_dags_by_id_tag_owner_and_folder() -> None:
    text = """\
        roles:
          team:
            dags:
              - {id: nowhere, permissions: [can_delete]}
              - {tag: public, permissions: [can_read]}
              - {owner: bob, permissions: [can_edit]}
              - {folder: team-a/**, permissions: [DAGs.can_edit, can_create on DAG Runs]}
    """

    found = wanted(text, metadata(roles=["team"]))

    assert {
        ("nowhere", "team", "can_delete", "DAG:nowhere"),
        ("a", "team", "can_read", "DAG:a"),
        ("b", "team", "can_read", "DAG:b"),
        ("b", "team", "can_edit", "DAG:b"),
        ("a", "team", "can_edit", "DAG:a"),
        ("a", "team", "can_create", "DAG Run:a"),
    } == {(item.dag_id, *item.row) for item in found.items}
    assert () == found.notes


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

    assert [] == list(found.items)
    decides = "the file selects it, but its own access_control decides"
    assert (f"DAG a: {decides}", f"DAG b: {decides}") == found.notes


def test_reports_a_selection_that_matches_no_dag() -> None:
    text = "roles: {team: {dags: [{folder: tem-a/**, permissions: [can_read]}]}}"

    (note,) = wanted(text, metadata(roles=["team"])).notes

    assert "roles.team.dags[0] (line 1): no DAG matches folder tem-a/**" == note


def test_recognizes_a_role_that_the_database_spells_differently() -> None:
    found = replace(metadata(roles=["Team"]), aliases={"team": "Team"})

    assert {("file_grant", "Team", "can_edit", "Pools")} == rows(
        "roles: {team: {permissions: [can_edit on Pools]}}", found
    )


def test_a_permission_that_this_airflow_does_not_have_is_a_mistake(tmp_path: Path) -> None:
    text = "roles:\n  team:\n    permissions: [can_read on Jbos, can_edit on Pools]"

    (found,) = mistakes(tmp_path, text, metadata())

    expected = "this Airflow has no permission 'can_read on Jbos'"
    assert f"3: roles.team.permissions[0]: {expected}" == found
    assert [] == mistakes(tmp_path, text, metadata(), None)


@pytest.mark.parametrize("aliases", [{"ádmin": "Admin"}, {"Admin": "ádmin"}])
def test_a_name_that_the_database_equates_with_a_default_role_is_a_mistake(
    tmp_path: Path, aliases: dict[str, str]
) -> None:
    found = replace(metadata(), aliases=aliases)

    (mistake,) = mistakes(tmp_path, "roles: {ádmin: {}}", found)

    assert mistake.endswith("the database treats this name as Admin")


def test_two_names_that_the_database_equates_are_a_mistake(tmp_path: Path) -> None:
    """Its one role would receive the permissions of both."""
    found = replace(metadata(roles=["soro"]), aliases={"sørø": "soro"})

    (mistake,) = mistakes(tmp_path, "roles:\n  soro: {}\n  sørø: {}", found)

    assert "3: roles.sørø: the database treats this name as soro" == mistake


def test_a_role_that_the_database_cannot_store_is_reported_and_the_others_apply(
    tmp_path: Path,
) -> None:
    path = tmp_path / "roles.yaml"
    path.write_text("roles:\n  plain: {}\n  데이터팀: {}\n")
    file = RoleFile(str(path), KINDS)
    file.refresh()

    found = file.compare(replace(metadata(), unfit=frozenset({"데이터팀"})), DEFINED)

    assert file.problem
    assert "role_name_unsupported" == file.problem.reason
    assert {("plain",), ("데이터팀",), ("plain", *WEBSITE)} == {item.row for item in found.items}
