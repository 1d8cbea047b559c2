"""
Cycles with a roles file.
"""

import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from sidecar_runtime.http.endpoint import registry_of
from sync_perm.cycle import Session
from sync_perm.database.lock import PassLock
from tests.support.waiting import wait_until
from tests.sync_perm.given import AIRFLOW_3, Sqlite
from tests.sync_perm.sidecar import UNREAD, Sidecar, failure, run
from tests.sync_perm.site import MANAGER

FILE = """\
roles:
  team:
    from: [Viewer]
    permissions: [can_read on Website]
"""
WITH_DAGS = f"""{FILE}\
    dags:
      - {{folder: team-a/**, permissions: [can_read, can_create on DAG Runs]}}
"""


class WithFile(Sidecar):
    """A sidecar with a working script and a roles file."""

    def __init__(self, folder: Path, sqlite: Sqlite) -> None:
        super().__init__(folder, sqlite)
        self.cli_because = None
        self.file = folder / "roles.yaml"
        self.file.write_text(FILE)

    def begin(self, **settings: str) -> Session:
        return super().begin(SYNC_PERM_ROLES=str(self.file), **settings)

    def ours(self) -> list[tuple[str, str, str]]:
        """Return the permissions of the role in the file."""
        sql = """SELECT r.name, p.name, v.name FROM ab_permission_view_role g
            JOIN ab_role r ON r.id = g.role_id JOIN ab_permission_view pv
            ON pv.id = g.permission_view_id JOIN ab_permission p ON p.id = pv.permission_id
            JOIN ab_view_menu v ON v.id = pv.view_menu_id WHERE r.name = 'team'"""
        with closing(sqlite3.connect(self.sqlite.path)) as database:
            return sorted(database.execute(sql).fetchall())

    def everything(self) -> list[str]:
        """Return all rows of all tables."""
        with closing(sqlite3.connect(self.sqlite.path)) as database:
            return list(database.iterdump())

    def mistakes(self) -> float | None:
        labels = {"sidecar": "sync-perm"}
        return registry_of(self.metrics.families).get_sample_value(
            "sync_perm_roles_file_mistakes", labels
        )


@pytest.fixture
def one(tmp_path: Path, sqlite: Sqlite) -> WithFile:
    return WithFile(tmp_path, sqlite)


WEBSITE = ("team", "can_read", "Website")


def test_creates_a_role_of_the_file_in_one_pass_and_does_not_repeat_it(one: WithFile) -> None:
    session = one.begin()

    with capture_logs() as logs:
        first = run(session)
        second = run(session)

    added = first.counts["grants_added"]
    assert ("changed", 1, "unchanged") == (first.result, added, second.result)
    assert ([WEBSITE], {("file", "success"): 1}) == (one.ours(), one.counted())
    (said,) = (line for line in logs if line["event"] == "roles_file_differs")
    assert ["file_role", "", ("team",)] in said["rows"]
    assert one.sidecar.readiness().ready


def test_restores_deleted_grants_of_a_role_in_the_file(one: WithFile) -> None:
    session = one.running()
    one.sqlite.run("DELETE FROM ab_permission_view_role WHERE role_id > 5")
    one.pace = replace(one.pace, quiet_seconds=0.0)

    # Airflow itself grants the website permission to an existing role.
    assert ("changed", [WEBSITE]) == (run(session).result, one.ours())


def test_applies_a_changed_file_in_the_next_cycle_and_removes_nothing(one: WithFile) -> None:
    session = one.running()
    one.file.write_text("roles: {another: {}}")

    outcome = run(session)

    assert ("changed", 1) == (outcome.result, outcome.counts["grants_added"])
    assert [WEBSITE] == one.ours()  # no grant is removed


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("roles: [", "roles_file_invalid"),
        ("roles: {team: {permissions: [can_read on Websites]}}", "roles_file_invalid"),
        (None, "roles_file_unreadable"),
    ],
)
def test_an_invalid_file_changes_nothing_and_is_reported_until_fixed(
    one: WithFile, text: str | None, reason: str
) -> None:
    session = one.running()
    one.sqlite.run("DELETE FROM ab_role WHERE name = 'team'")
    before = one.everything()
    one.file.unlink() if text is None else one.file.write_text(text)

    outcomes = [run(session), run(session)]

    assert before == one.everything()
    assert [("partial", reason)] * 2 == [
        (o.result, o.problem and o.problem.reason) for o in outcomes
    ]
    assert not outcomes[0].is_success  # so a one-shot does not end
    ready = one.sidecar.readiness()
    assert (True, True) == (ready.ready, str(one.file) in ready.shortfall)
    assert 1.0 == one.mistakes()
    one.file.write_text(FILE)
    fixed = run(session)
    assert ("changed", None) == (fixed.result, fixed.problem)
    assert ("", 0.0) == (one.sidecar.readiness().shortfall, one.mistakes())


def test_an_invalid_file_does_not_delay_airflows_own_permissions(one: WithFile) -> None:
    one.file.write_text("roles: [")
    session = one.begin()
    one.add_role()

    outcome = run(session)

    assert ("partial", 1) == (outcome.result, outcome.counts["grants_added"])
    assert [WEBSITE] == one.ours()


def test_the_script_applies_the_file_even_if_passes_use_airflows_command(one: WithFile) -> None:
    one.cli_because = "setting"
    session = one.begin()

    run(session)

    assert ([WEBSITE], 0) == (one.ours(), one.passes)  # the command has nothing to do
    one.sqlite.run("DELETE FROM ab_permission_view_role WHERE role_id = 1")
    one.file.write_text(FILE.replace("team", "another"))
    run(session)
    assert 1 == one.passes
    assert one.sidecar.readiness().ready


def test_reports_the_role_that_airflow_could_not_create(one: WithFile) -> None:
    session = one.begin()
    path = one.site.packages / "airflow/www/security_appless.py"
    path.write_text(MANAGER.replace("return self.session.roles[-1]", "return None"))

    error = failure(session)

    assert "pass_failed" == error.reason
    assert "Airflow could not create 'team'" in error.message


def test_a_one_shot_inherits_from_a_base_as_airflow_defines_it(one: WithFile) -> None:
    one.reads_definition = True
    one.sqlite.run("INSERT INTO ab_permission VALUES (90, 'can_edit')")
    one.sqlite.run("INSERT INTO ab_permission_view VALUES (90, 90, 1)")
    one.sqlite.run("INSERT INTO ab_permission_view_role VALUES (90, 90, 3), (91, 90, 1)")  # widened

    run(one.begin(SYNC_PERM_ONE_SHOT="true"))

    assert ([WEBSITE], {("asked", "success"): 1}) == (one.ours(), one.counted())


def test_a_base_is_not_inherited_from_the_tables_while_its_definition_is_unread(
    one: WithFile,
) -> None:
    one.reads_definition = True
    one.sqlite.run("INSERT INTO ab_permission VALUES (90, 'can_edit')")
    one.sqlite.run("INSERT INTO ab_permission_view VALUES (90, 90, 1)")
    one.sqlite.run("INSERT INTO ab_permission_view_role VALUES (90, 90, 3), (91, 90, 1)")  # widened
    one.site.add_python(UNREAD)
    session = one.begin()

    first = run(session)
    shortfall = one.sidecar.readiness().shortfall
    one.site.add_python()

    assert ("partial", "pass_killed") == (first.result, first.problem and first.problem.reason)
    assert "no role of the file inherits it: Airflow was killed by signal 9" in shortfall
    wait_until(lambda: run(session).problem is None, "it is read")
    assert ([WEBSITE], "") == (one.ours(), one.sidecar.readiness().shortfall)


def test_a_file_that_inherits_a_base_stays_partial_if_its_definition_can_never_be_read(
    one: WithFile,
) -> None:
    one.reads_definition = True
    one.site.add_python("raise ImportError('moved')\n")
    session = one.begin(SYNC_PERM_ONE_SHOT="true")

    with capture_logs() as logs:
        inheriting = [run(session) for _ in range(3)]
    one.file.write_text("roles: {team: {}}")

    assert ["partial"] * 3 == [end.result for end in inheriting]
    assert 1 == len([line for line in logs if line["event"] == "definition_unread"])
    assert run(session).is_success


DAG_ROWS: Mapping[str, tuple[Any, ...]] = {
    "a": ("/opt/a.py", None, "team-a/a.py"),
    "b": ("/opt/b.py", None, "team-b/b.py"),
    "ruled": ("/opt/ruled.py", None, "team-a/ruled.py"),
}


def with_dags(one: WithFile) -> Session:
    """Begin a session with three DAGs on Airflow 3, whose parser syncs DAG permissions."""
    one.airflow = AIRFLOW_3
    one.file.write_text(WITH_DAGS)
    for dag_id, row in DAG_ROWS.items():
        one.sqlite.run("INSERT INTO dag VALUES (?, ?, ?, ?)", dag_id, *row)
        access = {"other": {"__type": "set", "__var": ["can_read"]}} if dag_id == "ruled" else None
        one.sqlite.serialize(dag_id, "1", access)
    return one.begin()


def test_grants_dags_of_the_file_even_if_the_parser_syncs_dag_permissions(one: WithFile) -> None:
    session = with_dags(one)

    result = run(session).result

    assert ("changed", {("file", "success"): 1}) == (result, one.counted())
    assert [
        ("team", "can_create", "DAG Run:a"),
        ("team", "can_read", "DAG:a"),
        WEBSITE,
    ] == one.ours()
    assert ["ruled"] == one.sidecar.details()["roles_file_overruled"]


def test_is_not_ready_until_a_dag_that_moves_into_the_folder_is_granted(one: WithFile) -> None:
    """Airflow 3 does not serialize a DAG again when its file moves."""
    session = with_dags(one)
    run(session)

    one.sqlite.run("UPDATE dag SET relative_fileloc = 'team-a/b.py' WHERE dag_id = 'b'")
    with PassLock(one.sqlite.address) as other:
        assert other.try_acquire()
        run(session)

    pending = ["team: can_create on DAG Run:b", "team: can_read on DAG:b"]
    assert pending == one.sidecar.details()["pending_roles_file"]
    assert not one.sidecar.readiness().ready
    assert ("changed", True) == (run(session).result, one.sidecar.readiness().ready)
    assert ("team", "can_read", "DAG:b") in one.ours()


WITHOUT_FILE = """
import sync_perm.command, sys
from tests.sync_perm.sidecar import Path, Sidecar, Sqlite
Sidecar(Path(sys.argv[1]), Sqlite(f"{sys.argv[1]}/airflow.db")).running()
sys.exit("yaml" in sys.modules)
"""


def test_does_not_import_yaml_without_a_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_FILE, str(tmp_path)]

    assert 0 == subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode
