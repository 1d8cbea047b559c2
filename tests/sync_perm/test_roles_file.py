"""
Parsing the roles file, and all its possible mistakes.
"""

from textwrap import dedent

import pytest

from sync_perm.roles_file import Document, Selection, Where, parse
from tests.sync_perm.given import KINDS


def read(text: str) -> Document:
    return parse(dedent(text).encode(), KINDS)


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
4: roles.team.from[0]: 'Viewr' is neither a role in this file nor one of Airflow's own
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
        ("", "1: (file): is empty; write `roles: {}` for no roles"),
        ("# nothing", "1: (file): is empty; write `roles: {}` for no roles"),
        ("- a", "1: (file): is not a mapping with roles"),
        ("roles:", "1: roles: is not a mapping of roles"),
        ("roles: [a]", "1: roles: is not a mapping of roles"),
        ("roles:\n a:", "2: roles.a: is not a mapping with from, permissions, dags"),
        ("roles:\n a: {}\n a: {}", "3: roles.a: occurs twice"),
        ("roles:\n no: {}", "2: roles: is not text; put it in quotes"),
        ("roles:\n a: {permission: []}", "allowed are from, permissions, dags"),
        ("roles:\n a: {from: Viewer}", "2: roles.a.from: is not a list"),
        ("roles:\n '': {}", "2: roles.: a role name has 1 to 64 characters"),
        ("roles:\n a: {from: [a]}", "2: roles.a.from[0]: is circular: 'a' inherits from 'a'"),
        ("roles:\n viewer: {}", "2: roles.viewer: Viewer is one of Airflow's own roles"),
        ("roles:\n ' a': {}", "a role name has 1 to 64 characters and no blanks at its ends"),
        ("roles:\n " + 65 * "a" + ": {}", "a role name has 1 to 64 characters"),
        ("roles:\n a: {dags: [x]}", "2: roles.a.dags[0]: is not a mapping with id"),
        ("roles:\n a: {dags: [{id: a}]}", "2: roles.a.dags[0]: is missing the key `permissions`"),
        (
            "roles:\n a: {dags: [{permissions: []}]}",
            "must have one of id, tag, owner, folder, not 0",
        ),
        ("roles:\n a: {dags: [{id: 7, permissions: []}]}", "dags[0].id: is not text"),
        ("roles:\n a: {dags: [{id: '', permissions: []}]}", "'' must have 1 to 250 characters"),
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
    found = parse(text.encode(), KINDS)

    assert [] == [one for one in found.mistakes if expected not in str(one)]
    assert found.mistakes


def test_reports_the_line_that_is_not_utf_8() -> None:
    assert ["2: (file): is not UTF-8"] == [
        str(mistake) for mistake in parse(b"roles: {}\n# \xff", KINDS).mistakes
    ]


def test_reports_circular_roles() -> None:
    found = mistakes("""\
        roles:
          a: {from: [b]}
          b: {from: [a, Viewer]}
          outside: {from: [a]}
    """)

    assert [
        "2: roles.a.from[0]: is circular: 'b' inherits from 'a'",
        "3: roles.b.from[0]: is circular: 'a' inherits from 'b'",
    ] == found


def test_accepts_an_inheritance_chain_of_hundreds_of_roles() -> None:
    rows = [f"  r{number}: {{from: [r{number + 1}]}}\n" for number in range(500)]

    assert [] == mistakes(f"roles:\n{''.join(rows)}  r500: {{}}\n")


def test_accepts_a_role_that_is_inherited_in_two_ways() -> None:
    assert [] == mistakes("""\
        roles:
          top: {from: [left, right]}
          left: {from: [base]}
          right: {from: [base]}
          base: {}
    """)


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
        asked = {(s.by, s.value): s.permissions for s in selections(part)}
        allowed = {(s.by, s.value): s.permissions for s in selections(whole)}
        assert asked.keys() <= allowed.keys(), text[:end]
        assert all(asked[one] <= allowed[one] for one in asked), text[:end]
    assert 0 < taken < len(text) / 2
