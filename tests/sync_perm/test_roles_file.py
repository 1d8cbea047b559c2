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
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from docs.__main__ import ROOT
from sync_perm.compare import WEBSITE, Grant, Permission, Place, Tables
from sync_perm.roles_file import (
    MOST_BYTES,
    Document,
    RoleFile,
    check_glob,
    fits,
    parse,
    want,
)
from tests import Facts, Texts
from tests.sync_perm.given import permissions_of, tables


def read(text: str) -> Document:
    return parse(dedent(text).encode())


def mistakes(text: str) -> list[str]:
    return [str(mistake) for mistake in read(text).mistakes]


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
9: roles.team.dags[1]: must have permissions and exactly one of id, tag, owner, folder
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
        ("- a", "1: (file): is not a mapping with roles"),
        ("roles:", "1: roles: is not a mapping of roles"),
        ("roles:\n a:", "2: roles.a: is not a mapping with from, permissions, dags"),
        ("roles:\n a: {}\n a: {}", "3: roles.a: occurs twice"),
        ("roles:\n no: {}", "2: roles: is not text; put it in quotes"),
        ("roles:\n '': {}", "2: roles.: a role name has 1 to 64 characters"),
        ('roles: {"a\\0": {}}', "a role name has 1 to 64 characters"),
        ("roles:\n a: {dags: [x]}", "2: roles.a.dags[0]: is not a mapping with id"),
        (
            "roles:\n a: {dags: [{id: a, permissions: [can_read on Jobs]}]}",
            "'can_read on Jobs' must be on one of DAG Runs, DAGs",
        ),
        (
            "roles: {a: {}\n",
            "2: (file): is not plain YAML: did not find expected ',' or '}'",
        ),
        (
            "roles: {}\n---\nroles: {}\n",
            "2: (file): is not plain YAML: but found another document",
        ),
        (
            "\n" + "- " * 40_000,
            "2: (file): is not plain YAML: has an alias, or is nested",
        ),
        ("roles: {}\n# \udcff", "2: (file): is not plain YAML: invalid leading UTF-8"),
        # of a terminal
        ('roles: {a: {permissions: ["\\e[2J"]}}', "permissions[0]: '\\x1b[2J' is not"),
    ],
)
def test_reports_each_kind_of_mistake(text: str, expected: str) -> None:
    found = parse(text.encode(errors="surrogateescape"))

    assert [] == [one for one in found.mistakes if expected not in str(one)]
    assert found.mistakes


def test_aliases_of_aliases_are_refused_before_they_are_followed() -> None:
    """Each of sixty lines doubles what the file stands for."""
    lines = ["- &a0 [can_read on Jobs, can_read on Pools]"]
    lines += [f"- &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]

    (found,) = mistakes("\n".join(["x:", *lines, "roles: {a: {permissions: *a59}}"]))

    assert found.startswith("3: (file): is not plain YAML: has an alias, or ")


# --- globs


def fits_by_definition(glob: str, path: str) -> bool:
    """Try all places for each wildcard, as long as that takes."""
    marks = {"**/": "(?:[^/]+/)*", "**": ".+", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    pattern = "".join(marks.get(part, re.escape(part)) for part in parts)
    return re.fullmatch(pattern, path, re.DOTALL) is not None


def is_glob(text: str) -> bool:
    try:
        return check_glob(text) == text
    except ValueError:
        return False


GLOBS = st.lists(
    st.text("ab*?.\\\n", min_size=1, max_size=6) | st.just("**"), min_size=1
)
PATHS = st.lists(st.text("ab.\\\n", min_size=1, max_size=5), min_size=1, max_size=7)


@given(glob=GLOBS.map("/".join).filter(is_glob), path=PATHS.map("/".join))
@example(glob="**/a/**/a/b", path="a/a/a/b")
@example(glob="a*b*", path="a/b")
@example(glob="team-?/**", path="team-ab/x.py")
@example(glob="[a]/*", path="a/b")
@example(glob="a/**/b/**", path="a/b/x")
@example(glob="**", path="")  # of a DAG outside of the folder
def test_a_glob_fits_where_some_place_of_its_wildcards_fits(
    glob: str, path: str
) -> None:
    assert fits_by_definition(glob, path) == fits(glob, path)


@pytest.mark.parametrize(
    ("glob", "path"),
    [
        ("**/a/" * 40 + "**/?b", "a/" * 500 + "c"),
        ("*a" * 40 + "*b", "a" * 2_000),
        ("**/*a*a/" * 20 + "**/*a*b", "aaaaaaaa/" * 200 + "aaaaaaaa"),
    ],
)
def test_no_glob_takes_longer_than_the_path_is_long(glob: str, path: str) -> None:
    """If each place were tried, none of these would end within the test's limit."""
    check_glob(glob)

    assert not fits(glob, path)


# --- the published schema and the documented file

SCHEMA = json.loads((ROOT / "docs/reference/roles.schema.json").read_text())
HOW_TO = (ROOT / "docs/how-to/keep-roles-in-a-file.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", HOW_TO, re.DOTALL)


def is_valid(value: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(SCHEMA).is_valid(value))


def role_of(**body: Any) -> Facts:
    return {"roles": {"team": body}}


def dag(**body: Any) -> Facts:
    return role_of(dags=[{"permissions": ["can_read"], **body}])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (yaml.safe_load(BLOCKS[0]), True),
        ({"roles": {}, "more": 1}, False),
        ({"roles": {"viewer": {}}}, False),
        ({"roles": {" team": {}}}, False),
        ({"roles": {65 * "a": {}}}, False),
        (
            role_of(permissions=["can_read on Jobs", "Jobs.can_read", "x on A.b on C"]),
            True,
        ),
        (role_of(permissions=["can_read on DAG:x"]), False),
        (dag(), False),
        (dag(id="a", tag="b"), False),
        (role_of(dags=[{"id": "a"}]), False),
        (dag(id="a", permissions=["DAGs.can_edit", "can_create on DAG Runs"]), True),
        *[
            (dag(folder=one), True)
            for one in ("team/**", "**", "a/*.py", "x.py", "*.zip/**")
        ],
        *[
            (dag(folder=one), False)
            for one in (
                "/a/**",
                "team",
                "a//**",
                "../**",
                "a**",
                "**.py",
                "a/b.zip",
                "*.zip",
                "**/?.zip",
            )
        ],
    ],
)
def test_schema_and_code_agree(value: Any, expected: bool) -> None:
    mistakes = parse(json.dumps(value).encode()).mistakes

    assert (expected, expected) == (is_valid(value), not mistakes), mistakes


# --- the current file


def said(file: RoleFile) -> list[str]:
    """Read the file, check it without the tables, and return the events."""
    with capture_logs() as logs:
        file.refresh()
        file.compare(tables(), {})
    return [line["event"] for line in logs]


def test_what_cannot_be_a_roles_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "roles.yaml"
    file = RoleFile(str(path))
    os.mkfifo(path)
    said(file)
    assert "not a regular file" in str(file.problem)

    path.unlink()
    path.write_bytes(bytes(MOST_BYTES + 1))
    said(file)
    assert "has 1048577 bytes" in str(file.problem)


def test_an_accepted_file_is_read_again_and_each_mistake_is_logged_once(
    tmp_path: Path,
) -> None:
    path = tmp_path / "roles.yaml"
    path.write_text("roles: {a: {}}")
    os.utime(path, (0, 0))
    file = RoleFile(str(path))
    assert (["roles_file_accepted"], []) == (said(file), said(file))
    revision = file.revision
    path.write_text("roles: {b: {}}")
    os.utime(path, (0, 0))  # the same size and time
    assert ["roles_file_accepted"] == said(file)
    assert revision != file.revision
    assert ["b"] == list(file.document.roles)

    path.write_text("roles:\n" + "".join(f"  r{n}: []\n" for n in range(9)))
    assert (["roles_file_refused"] * 9, []) == (said(file), said(file))
    assert file.problem
    assert file.problem.message.startswith(f"{path}:2: roles.r0: is not a mapping")
    assert file.problem.message.endswith("; and 4 more")
    assert ("roles_file_invalid", 9) == (file.problem.reason, len(file.mistakes))
    path.unlink()
    assert (["roles_file_refused"], []) == (said(file), said(file))
    assert ({}, "", 1) == (file.document.roles, file.revision, len(file.mistakes))
    path.write_text("roles: {b: {}}")
    assert (["roles_file_accepted"], []) == (said(file), said(file))
    assert file.problem is None
    assert [] == file.mistakes


# --- what it wants

VIEWS: set[Permission] = {
    ("can_read", "Jobs"),
    ("can_edit", "Pools"),
    ("can_read", "Website"),
}
DEFINED = {"Viewer": {("can_read", "Jobs"), WEBSITE}}
PLACES = {
    "a": Place("team-a/a.py", frozenset({"ann"}), frozenset({"public"})),
    "b": Place("team-b/b.py", frozenset({"ann", "bob"}), frozenset({"public", "late"})),
    "nowhere": Place("", frozenset(), frozenset()),
}


def metadata(*, roles: Iterable[str] = (), grants: Iterable[Grant] = ()) -> Tables:
    permissions = VIEWS | permissions_of(*PLACES)
    found = tables(
        dict.fromkeys(PLACES), roles=roles, grants=grants, permissions=permissions
    )
    return replace(found, places=PLACES)


def test_a_new_role_gets_its_permissions_and_the_website_permission() -> None:
    text = "roles: {team: {permissions: [can_edit on Pools]}}"
    given = {("file_grant", "team", "can_edit", "Pools")}

    assert given | {("file_role", "team"), ("file_grant", "team", *WEBSITE)} == rows(
        text, metadata()
    )
    # That of an existing role is left to Airflow, and its name is the database's.
    bare = replace(metadata(), grants={"Team": set()}, aliases={"team": "Team"})
    assert {("file_grant", "Team", "can_edit", "Pools")} == rows(text, bare)
    assert set() == rows(
        text, metadata(roles=["team"], grants=[("team", "can_edit", "Pools")])
    )


def test_a_role_inherits_recursively_what_airflow_defines_not_what_the_ui_changed() -> (
    None
):
    text = """\
        roles:
          base:
            permissions: [Pools.can_edit, can_read on My Company. on Call]
            dags: [{id: a, permissions: [can_edit]}]
          middle: {from: [base, Viewer]}
          top: {from: [middle]}
          boss: {from: [Admin]}
    """
    held = [("Viewer", "can_edit", "Variables")]
    held += [("Admin", "can_edit", "Pools"), ("Admin", "can_read", "DAG:a")]

    found = rows(text, metadata(roles=["base", "middle", "top", "boss"], grants=held))

    assert {
        ("file_grant", "top", "can_edit", "Pools"),
        ("file_grant", "top", "can_read", "My Company. on Call"),
        ("file_grant", "top", "can_read", "Jobs"),
        ("file_grant", "top", "can_edit", "DAG:a"),
    } == {row for row in found if row[1] == "top"}
    # Admin has what the UI shows, but for single DAGs.
    given = {("file_grant", "boss", "can_edit", "Pools")}
    assert given == {row for row in found if row[1] == "boss"}


def rows(text: str, found: Tables) -> set[tuple[Any, ...]]:
    return {(item.kind, *item.row) for item in want(read(text), found, DEFINED).items}


def test_a_long_chain_of_roles_is_followed_once_for_each() -> None:
    """It is longer than Python's stack."""
    chain = {f"r{n}": {"from": [f"r{n - 1}"]} for n in range(1, 1_500)}
    file = parse(json.dumps({"roles": {"r0": {}, **chain}}).encode())

    assert 3_000 == len(want(file, metadata(), DEFINED).items)


def write(file: RoleFile, text: str) -> None:
    Path(file.path).write_text(text)
    file.refresh()


PERMISSIONS = "roles:\n  team:\n    permissions: [can_read on Jbos, can_edit on Pools]"


@pytest.mark.parametrize(
    ("text", "aliases", "expected"),
    [
        (
            PERMISSIONS,
            {},
            "3: roles.team.permissions[0]: this Airflow has no permission 'can_read",
        ),
        (
            "roles: {ádmin: {}}",
            {"ádmin": "Admin"},
            "the database treats this name as Admin",
        ),
        (
            "roles: {ádmin: {}}",
            {"Admin": "ádmin"},
            "the database treats this name as Admin",
        ),
        (
            "roles:\n  soro: {}\n  sørø: {}",
            {"sørø": "soro"},
            "3: roles.sørø: the database treats",
        ),
    ],
)
def test_reports_mistakes_that_only_the_tables_show(
    tmp_path: Path, text: str, aliases: Texts, expected: str
) -> None:
    file = RoleFile(str(tmp_path / "roles.yaml"))
    write(file, text)
    file.compare(replace(metadata(roles=["soro"]), aliases=aliases), DEFINED)

    assert [expected] == [expected for one in file.mistakes if expected in str(one)]


def test_the_files_own_mistakes_are_told_before_airflow_tells_what_it_defines(
    tmp_path: Path,
) -> None:
    file = RoleFile(str(tmp_path / "roles.yaml"))
    write(file, "roles: {a: {from: [b], permissions: [can_read on Jbos]}}")

    file.compare(metadata(), None)

    assert ["'b' is neither"] == [one.problem[:14] for one in file.mistakes]
    assert file.problem, "so it is ignored"
    write(file, "roles: {a: {permissions: [can_read on Jbos]}}")
    file.compare(metadata(), None)
    assert file.problem is None, "that one is fixed"
    file.compare(metadata(), DEFINED)
    assert ["this Airflow has no"] == [one.problem[:19] for one in file.mistakes]
