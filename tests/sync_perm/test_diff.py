"""
`sync-perm diff`: its output and exit codes.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from sync_perm import diff
from sync_perm.airflow.passes import AirflowPasses
from sync_perm.airflow_config import AirflowConfig
from sync_perm.comparison import Comparison
from sync_perm.database.connection import find_source
from sync_perm.role_file.file import RoleFile
from tests.sync_perm.given import Sqlite
from tests.sync_perm.sidecar import CONN, run
from tests.sync_perm.test_cycle_file import WITH_DAGS, WithFile, with_dags


@pytest.fixture
def one(tmp_path: Path, sqlite: Sqlite) -> WithFile:
    found = WithFile(tmp_path, sqlite)
    with_dags(found)
    found.file.write_text(f"{WITH_DAGS}      - {{tag: nobody, permissions: [can_edit]}}\n")
    return found


def told(
    one: WithFile,
    capsys: pytest.CaptureFixture[str],
    *,
    is_json: bool,
    include_dags: bool = False,
) -> tuple[int, str]:
    """Run the command, assert that it wrote nothing, and return its exit code and output."""
    config = AirflowConfig(one.site.environment(**{CONN: one.sqlite.address.url}))
    airflow = replace(one.airflow, command=str(one.site.command), python=sys.executable)
    file = RoleFile(str(one.file), airflow.resources)
    comparison = Comparison(airflow, include_dags=include_dags, file=file)
    passes = AirflowPasses(airflow, config, str(one.folder))
    before = one.everything()
    capsys.readouterr()

    with capture_logs():  # the real command silences logs
        code = diff.run(comparison, passes, find_source(config), is_json=is_json)

    assert before == one.everything()
    printed = capsys.readouterr()
    return code, printed.out or printed.err


def test_prints_differences_as_text(one: WithFile, capsys: pytest.CaptureFixture[str]) -> None:
    one.sqlite.run("INSERT INTO ab_role (name) VALUES ('by hand')")

    assert (
        4,
        """\
+ role team (file)
+ team: can_create on DAG Run:a (file)
+ team: can_read on DAG:a (file)
+ team: can_read on Website (file)
+ by hand: can_read on Website (airflow)
? DAG ruled: the file selects it, but its own access_control decides
? roles.team.dags[1] (line 7): no DAG matches tag nobody
not in the file, and kept; a prune would remove:
  role by hand
""",
    ) == told(one, capsys, is_json=False)


def test_prints_differences_as_json(one: WithFile, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = told(one, capsys, is_json=True)

    facts: dict[str, Any] = json.loads(printed)
    rows = [
        ("team", "can_create", "DAG Run:a"),
        ("team", "can_read", "DAG:a"),
        ("team", "can_read", "Website"),
    ]
    names = ("role", "action", "resource", "asked_by")
    assert (4, "differs") == (code, facts["result"])
    assert [{"role": "team", "asked_by": "file"}] == facts["create_roles"]
    assert [dict(zip(names, (*row, "file"), strict=True)) for row in rows] == facts["grant"]
    assert [] == facts["revoke"] + facts["create_permissions"]
    assert ["ruled"] == facts["left_to_access_control"]
    assert [{"key": "roles.team.dags[1]", "line": 7, "tag": "nobody"}] == facts["selects_no_dag"]


def test_lists_grants_of_access_control_to_a_role_that_the_file_creates(
    one: WithFile, capsys: pytest.CaptureFixture[str]
) -> None:
    """The daemon writes them in a second pass, when the role exists."""
    access = {"team": {"__type": "set", "__var": ["can_edit"]}}
    one.sqlite.serialize("ruled", "2", access, version=2)

    facts = json.loads(told(one, capsys, is_json=True, include_dags=True)[1])

    assert {} == facts["failing_dags"]
    assert {
        ("can_create", "DAG Run:a", "file"),
        ("can_read", "DAG:a", "file"),
        ("can_read", "Website", "file"),
        ("can_edit", "DAG:ruled", "access_control"),
    } == {tuple(row.values())[1:] for row in facts["grant"] if row["role"] == "team"}


def test_permissions_beyond_the_file_are_listed_but_are_no_difference(
    one: WithFile, capsys: pytest.CaptureFixture[str]
) -> None:
    run(one.begin())
    one.sqlite.run("INSERT INTO ab_permission VALUES (90, 'can_edit')")
    one.sqlite.run("INSERT INTO ab_permission_view VALUES (90, 90, 1)")
    one.sqlite.run(
        "INSERT INTO ab_permission_view_role (permission_view_id, role_id)"
        " SELECT 90, id FROM ab_role WHERE name IN ('team', 'Admin')"
    )

    code, printed = told(one, capsys, is_json=False)

    assert 0 == code
    assert printed.startswith("nothing differs\n")
    assert printed.endswith("a prune would remove:\n  team: can_edit on Website\n")


@pytest.mark.parametrize("more", ["", "{dags: [{id: none, permissions: [can_read]}]}"])
def test_a_prune_would_not_remove_what_access_control_grants(
    one: WithFile, capsys: pytest.CaptureFixture[str], more: str
) -> None:
    """Whether the file selects DAGs does not matter."""
    one.file.write_text(f"roles:\n  other: {more or '{}'}\n")
    one.sqlite.run("INSERT INTO ab_role VALUES (6, 'other')")
    one.sqlite.run("INSERT INTO ab_view_menu VALUES (2, 'DAG:ruled'), (3, 'DAG:a')")
    one.sqlite.run("INSERT INTO ab_permission_view VALUES (2, 1, 2), (3, 1, 3)")
    one.sqlite.run(
        "INSERT INTO ab_permission_view_role (permission_view_id, role_id)"
        " VALUES (1, 6), (2, 6), (3, 6)"
    )

    facts = json.loads(told(one, capsys, is_json=True)[1])

    by_hand = {"role": "other", "action": "can_read", "resource": "DAG:a"}
    assert [by_hand] == facts["a_prune_would_remove"]["grants"]


@pytest.mark.parametrize("is_json", [False, True])
def test_reports_all_mistakes_of_an_invalid_file(
    one: WithFile, capsys: pytest.CaptureFixture[str], is_json: bool
) -> None:
    mistakes = [f"  r{number}: {{from: [nobody]}}" for number in range(9)]
    one.file.write_text("\n".join(["roles:", "  r: {permissions: [can_read on X]}", *mistakes]))

    code, printed = told(one, capsys, is_json=is_json)

    assert 2 == code
    if is_json:
        facts = json.loads(printed)
        assert ("failed", "roles_file_invalid") == (facts["result"], facts["reason"])
        assert list(range(2, 12)) == [one["line"] for one in facts["mistakes"]]
    else:
        lines = printed.splitlines()
        assert 11 == len(lines)
        assert lines[0].startswith(f"sync-perm diff: {one.file}:2: roles.r.permissions[0]: ")


def test_fails_if_airflows_definition_cannot_be_read(
    one: WithFile, capsys: pytest.CaptureFixture[str]
) -> None:
    one.site.add_python("raise ImportError('moved')\n")

    code, printed = told(one, capsys, is_json=True)

    assert (3, "pass_failed") == (code, json.loads(printed)["reason"])
