"""
The roles file: its mistakes, its DAGs, and what it wants of the tables.
"""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import jsonschema
import pytest
import yaml
from structlog.testing import capture_logs

from docs.__main__ import ROOT
from sync_perm.compare import WEBSITE, Difference, Grant, Permission, Place, Tables
from sync_perm.roles import Document, RoleFile, Selection, Where, check_glob, matcher, parse, want
from tests.support.raising import raised
from tests.sync_perm.given import permissions_of, tables


def read(text: str) -> Document:
    return parse(dedent(text).encode())


def mistakes(text: str) -> list[str]:
    return [str(mistake) for mistake in read(text).mistakes]


def test_parses_a_complete_file() -> None:
    found = read("""\
        roles:
          auditor:
            permissions:
              - can_read on Audit Logs
              - Jobs.can_read
              - can_read on My Company. on Call
          team-a:
            from: [Viewer, auditor]
            dags:
              - folder: team-a/**
                permissions: [can_read, DAGs.can_edit, can_create on DAG Runs]
              - {tag: shared, permissions: [can_read]}
              - {id: daily, permissions: []}
    """)

    auditor, team = found.roles.values()
    assert () == found.mistakes
    assert [
        ("can_read", "Audit Logs"),
        ("can_read", "Jobs"),
        ("can_read", "My Company. on Call"),
    ] == list(auditor.permissions)
    assert {
        "Viewer": Where(8, "roles.team-a.from[0]"),
        "auditor": Where(8, "roles.team-a.from[1]"),
    } == team.bases
    on_runs = frozenset({("DAGs", "can_read"), ("DAGs", "can_edit"), ("DAG Runs", "can_create")})
    assert (
        Selection("folder", "team-a/**", on_runs, Where(10, "roles.team-a.dags[0]")),
        Selection(
            "tag", "shared", frozenset({("DAGs", "can_read")}), Where(12, "roles.team-a.dags[1]")
        ),
        Selection("id", "daily", frozenset(), Where(13, "roles.team-a.dags[2]")),
    ) == team.selections


@pytest.mark.parametrize(
    "text", ["roles: {}", "roles:\n  quiet: {}\n", "roles: !!python/object:os.system {}"]
)
def test_accepts_a_file_without_roles_and_a_role_without_keys(text: str) -> None:
    assert () == read(text).mistakes


ALL = """\
1: rolls: is not a valid key; allowed are roles
3: roles.Admin: Admin is one of Airflow's own roles, which the file cannot change; \
write another with `from: [Admin]`
5: roles.team.permissions[0]: 'can_read DAGs' is not a permission such as `can_read on DAGs` or \
`DAGs.can_read`
6: roles.team.permissions[1]: 'can_read on DAG:x' is for one DAG: write it under `dags`, \
with `id: x`
8: roles.team.dags[0].permissions[0]: 'can_fly' is not an action on DAGs; \
allowed are can_delete, can_edit, can_read
9: roles.team.dags[1]: must have one of id, tag, owner, folder, not 2
9: roles.team.dags[1].permissions: is not a list
10: roles.team.dags[2].folder: 'team' names a folder; to select the DAGs in it, write team/**
"""


def test_reports_all_mistakes_together_each_with_its_line_and_key() -> None:
    assert ALL.splitlines() == mistakes("""\
        rolls: {}
        roles:
          Admin: {permissions: []}
          team: {from: [Viewr],
            permissions: [can_read DAGs,
              can_read on DAG:x],
            dags: [
              {id: a, permissions: [can_fly]},
              {id: a, tag: b, permissions: can_read},
              {folder: team, permissions: [can_read]}]}
    """)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# nothing", "1: (file): is not a mapping with roles"),
        ("- a", "1: (file): is not a mapping with roles"),
        ("roles:", "1: roles: is not a mapping of roles"),
        ("roles: [a]", "1: roles: is not a mapping of roles"),
        ("roles:\n a:", "2: roles.a: is not a mapping with from, permissions, dags"),
        ("roles:\n a: {}\n a: {}", "3: roles.a: occurs twice"),
        ("roles:\n no: {}", "2: roles: is not text; put it in quotes"),
        ("roles:\n a: {permission: []}", "allowed are from, permissions, dags"),
        ("roles:\n a: {from: Viewer}", "2: roles.a.from: is not a list"),
        ("roles:\n '': {}", "2: roles.: a role name has 1 to 64 characters"),
        ("roles:\n viewer: {}", "2: roles.viewer: Viewer is one of Airflow's own roles"),
        ("roles:\n ' a': {}", "a role name has 1 to 64 characters and no blanks at its ends"),
        ("roles:\n " + 65 * "a" + ": {}", "a role name has 1 to 64 characters"),
        ("roles:\n a: {dags: [x]}", "2: roles.a.dags[0]: is not a mapping with id"),
        (
            "roles:\n a: {dags: [{permissions: []}]}",
            "must have one of id, tag, owner, folder, not 0",
        ),
        ("roles:\n a: {dags: [{id: 7, permissions: []}]}", "dags[0].id: is not text"),
        (
            "roles:\n a: {dags: [{id: a, permissions: [can_read on Jobs]}]}",
            "'can_read on Jobs' must be on one of DAG Runs, DAGs",
        ),
        ("roles: {a: {}\n", "2: (file): is not YAML: did not find expected ',' or '}'"),
        ("roles: {}\n---\nroles: {}\n", "2: (file): is not YAML: but found another document"),
        ("roles: \x07", "1: (file): is not YAML: "),
        ("[" * 5_000, "(file): is not YAML: "),
    ],
)
def test_reports_each_kind_of_mistake(text: str, expected: str) -> None:
    found = parse(text.encode())

    assert [] == [one for one in found.mistakes if expected not in str(one)]
    assert found.mistakes


def test_reports_the_line_that_is_not_utf_8() -> None:
    assert ["2: (file): is not UTF-8"] == [
        str(mistake) for mistake in parse(b"roles: {}\n# \xff").mistakes
    ]


def test_accepts_an_inheritance_chain_of_hundreds_of_roles() -> None:
    rows = [f"  r{number}: {{from: [r{number + 1}]}}\n" for number in range(500)]

    assert [] == mistakes(f"roles:\n{''.join(rows)}  r500: {{}}\n")


def test_escapes_terminal_control_characters_in_messages() -> None:
    (found,) = mistakes('roles: {a: {permissions: ["\\e[2J"]}}')

    assert "\\x1b[2J" in found
    assert "\x1b" not in found


def selections(document: Document) -> list[Selection]:
    return [one for role in document.roles.values() for one in role.selections]


def test_a_truncated_file_never_grants_more_on_dags_than_the_whole_file() -> None:
    text = dedent("""\
        roles:
          auditor:
            permissions:
              - can_read on Jobs
          team-a:
            from: [auditor]
            dags:
              - folder: team-a/**
                permissions: [can_read]
              - tag: shared
                permissions:
                  - can_edit
    """)
    whole = read(text)
    taken = 0

    for end in range(len(text)):
        part = read(text[:end])
        if part.mistakes:
            continue
        taken += 1
        asked = {(s.by, s.value): s.permissions for s in selections(part) if s.permissions}
        allowed = {(s.by, s.value): s.permissions for s in selections(whole)}
        assert asked.keys() <= allowed.keys(), text[:end]
        assert all(asked[one] <= allowed[one] for one in asked), text[:end]
    assert 0 < taken < len(text) / 2


# --- globs


@pytest.mark.parametrize(
    ("glob", "fits", "not_these"),
    [
        ("team-a/**", {"team-a/x.py", "team-a/b/c/x.py"}, {"team-ab/x.py", "x/team-a/x.py"}),
        ("team-a/*.py", {"team-a/x.py", "team-a/.py"}, {"team-a/b/x.py", "team-a/x.zip"}),
        ("team-?/**", {"team-a/x.py"}, {"team-/x.py", "team-ab/x.py", "team-//x.py"}),
        ("**/etl/*.py", {"etl/x.py", "a/b/etl/x.py"}, {"a/metl/x.py", "etl/a/x.py"}),
        ("**", {"x.py", "a/x.py"}, {""}),
        ("a.b/x+[1].py", {"a.b/x+[1].py"}, {"aXb/x+[1].py", "a.b/x+1.py"}),
        ("pack.zip/**", {"pack.zip/dag.py"}, {"pack.zip"}),
        ("team-a/*.zip/*.py", {"team-a/pack.zip/dag.py"}, {"team-a/dag.py"}),
        ("Team/**", {"Team/x.py"}, {"team/x.py"}),
        ("a/**/b/**", {"a/b/x", "a/c/d/b/e/x"}, {"a/x", "ab/x"}),
    ],
)
def test_a_glob_matches_only_expected_paths(glob: str, fits: set[str], not_these: set[str]) -> None:
    check_glob(glob)

    assert fits == {path for path in fits | not_these if matcher(glob)(path)}


@pytest.mark.parametrize(
    ("glob", "word"),
    [
        ("/opt/dags/**", "DAG folder"),
        ("team-a", "write team-a/**"),
        ("team-a/etl", "write team-a/etl/**"),
        ("pack.zip", "write pack.zip/**"),
        ("team-a/*.zip", "write team-a/*.zip/**"),
        ("team-a/", "empty"),
        ("", "empty"),
        ("a//b/**", "empty"),
        ("../a/**", ".."),
        ("a**", "whole path segment"),
        ("**.py", "whole path segment"),
    ],
)
def test_refuses_a_glob_that_could_never_match(glob: str, word: str) -> None:
    assert word in str(raised(ValueError, check_glob, glob))


# --- the published schema and the documented file

SCHEMA = json.loads((ROOT / "docs/reference/roles.schema.json").read_text())
HOW_TO = (ROOT / "docs/how-to/keep-roles-in-a-file.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", HOW_TO, re.DOTALL)


def is_valid(value: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(SCHEMA).is_valid(value))


def test_the_example_file_in_the_how_to_is_valid() -> None:
    assert () == parse(BLOCKS[0].encode()).mistakes
    assert is_valid(yaml.safe_load(BLOCKS[0]))


def role_of(**body: Any) -> dict[str, Any]:
    return {"roles": {"team": body}}


def dag(**body: Any) -> dict[str, Any]:
    return role_of(dags=[{"permissions": ["can_read"], **body}])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"roles": {}}, True),
        ({}, True),
        ({"roles": {}, "more": 1}, False),
        ({"roles": []}, False),
        ({"roles": {"Admin": {}}}, False),
        ({"roles": {"viewer": {}}}, False),
        ({"roles": {"Administrators": {}}}, True),
        ({"roles": {" team": {}}}, False),
        ({"roles": {65 * "a": {}}}, False),
        (role_of(permission=[]), False),
        (role_of(permissions=["can_read on Jobs", "Jobs.can_read", "x on A.b on C"]), True),
        (role_of(permissions=["can_read"]), False),
        (role_of(permissions=["can_read on DAG:x"]), False),
        (role_of(permissions=["DAG Run:x.can_read"]), False),
        (role_of(permissions="can_read on Jobs"), False),
        (dag(id="a"), True),
        (dag(id=1), False),
        (dag(), False),
        (dag(id="a", tag="b"), False),
        ({"roles": {"team": {"dags": [{"id": "a"}]}}}, True),
        (dag(id="a", permissions=["DAGs.can_edit", "can_create on DAG Runs"]), True),
        (dag(id="a", permissions=["can_read on Jobs"]), False),
        *[(dag(folder=one), True) for one in ("team/**", "**", "a/*.py", "x.py", "*.zip/**")],
        *[(dag(folder=one), False) for one in ("/a/**", "team", "a//**", "../**", "a**", "**.py")],
        *[(dag(folder=one), False) for one in ("a/b.zip", "*.zip", "**/?.zip")],
    ],
)
def test_schema_and_code_agree(value: Any, expected: bool) -> None:
    mistakes = parse(json.dumps(value).encode()).mistakes

    assert (expected, expected) == (is_valid(value), not mistakes), mistakes


# --- the current file


def reason_of(file: RoleFile) -> str | None:
    return file.problem.reason if file.problem else None


def said(file: RoleFile) -> list[str]:
    """Read the file, check it without the tables, and return the events."""
    with capture_logs() as logs:
        file.refresh()
        file.compare(tables(), {})
    return [line["event"] for line in logs]


def test_reads_changed_content_again_whatever_the_modification_time(tmp_path: Path) -> None:
    path = tmp_path / "roles.yaml"
    path.write_text("roles: {a: {}}")
    os.utime(path, (0, 0))
    file = RoleFile(str(path))
    assert ["roles_file_accepted"] == said(file)
    first, revision = file.document, file.revision
    assert [] == said(file)
    assert first is file.document

    path.write_text("roles: {b: {}}")
    os.utime(path, (0, 0))

    assert ["roles_file_accepted"] == said(file)
    assert revision != file.revision
    assert ["b"] == list(file.document.roles)


def test_logs_each_mistake_once_and_reports_it_until_it_is_fixed(tmp_path: Path) -> None:
    path = tmp_path / "roles.yaml"
    path.write_text("roles:\n  a: {from: x}\n  b: {dags: y}\n")
    file = RoleFile(str(path))

    events = said(file), said(file)

    assert (["roles_file_refused"] * 2, []) == events
    assert "roles_file_invalid" == reason_of(file)
    assert file.problem
    assert f"{path}:2: roles.a.from: is not a list" in file.problem.message
    assert f"{path}:3: roles.b.dags: is not a list" in file.problem.message
    path.write_text("roles: {}")
    assert ["roles_file_accepted"] == said(file)
    assert (None, 0) == (reason_of(file), len(file.mistakes))


def test_counts_many_mistakes_instead_of_quoting_all(tmp_path: Path) -> None:
    path = tmp_path / "roles.yaml"
    path.write_text("roles:\n" + "".join(f"  r{n}: []\n" for n in range(9)))
    file = RoleFile(str(path))
    said(file)

    assert file.problem
    assert file.problem.message.endswith("; and 4 more")
    assert 9 == len(file.mistakes)


def test_logs_an_unreadable_file_once(tmp_path: Path) -> None:
    path = tmp_path / "roles.yaml"
    path.write_text("roles: {}")
    file = RoleFile(str(path))
    said(file)
    path.unlink()

    events = said(file), said(file)

    assert (["roles_file_refused"], []) == events
    assert ("roles_file_invalid", 1) == (reason_of(file), len(file.mistakes))
    assert ({}, "") == (file.document.roles, file.revision)
    path.write_text("roles: {}")
    assert ["roles_file_accepted"] == said(file)


# --- what it wants

VIEWS: set[Permission] = {("can_read", "Jobs"), ("can_edit", "Pools"), ("can_read", "Website")}
DEFINED = {"Viewer": {("can_read", "Jobs"), WEBSITE}}
PLACES = {
    "a": Place("team-a/a.py", frozenset({"ann"}), frozenset({"public"})),
    "b": Place("team-b/b.py", frozenset({"ann", "bob"}), frozenset({"public", "late"})),
    "nowhere": Place("", frozenset(), frozenset()),
}


def document(text: str) -> Document:
    found = parse(dedent(text).encode())
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


def wanted(text: str, found: Tables) -> Difference:
    return want(document(text), found, DEFINED)


def rows(text: str, found: Tables) -> set[tuple[Any, ...]]:
    return {(item.kind, *item.row) for item in wanted(text, found).items}


def mistakes_of(folder: Path, text: str, found: Tables, defined: Any = DEFINED) -> list[str]:
    """Return the mistakes that only the tables show."""
    path = folder / "roles.yaml"
    path.write_text(text)
    file = RoleFile(str(path))
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
    assert () == found.notes


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

    (found,) = mistakes_of(tmp_path, text, metadata())

    expected = "this Airflow has no permission 'can_read on Jbos'"
    assert f"3: roles.team.permissions[0]: {expected}" == found
    assert [] == mistakes_of(tmp_path, text, metadata(), None)


@pytest.mark.parametrize("aliases", [{"ádmin": "Admin"}, {"Admin": "ádmin"}])
def test_a_name_that_the_database_equates_with_a_default_role_is_a_mistake(
    tmp_path: Path, aliases: dict[str, str]
) -> None:
    found = replace(metadata(), aliases=aliases)

    (mistake,) = mistakes_of(tmp_path, "roles: {ádmin: {}}", found)

    assert mistake.endswith("the database treats this name as Admin")


def test_two_names_that_the_database_equates_are_a_mistake(tmp_path: Path) -> None:
    """Its one role would receive the permissions of both."""
    found = replace(metadata(roles=["soro"]), aliases={"sørø": "soro"})

    (mistake,) = mistakes_of(tmp_path, "roles:\n  soro: {}\n  sørø: {}", found)

    assert "3: roles.sørø: the database treats this name as soro" == mistake
