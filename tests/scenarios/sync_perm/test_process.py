"""The supervisor as a process: one-shots and read-only homes; and `sync-perm check`."""

from pathlib import Path

from tests.scenarios.sync_perm.conftest import StartSyncPerm, on_airflow
from tests.scenarios.sync_perm.standin import is_synced
from tests.support.airflow.databases import PASSWORD, Database, Postgres
from tests.support.airflow.installed import Airflow
from tests.support.airflow.permissions import add_role, contents, grants_on
from tests.support.airflow.sync_perm import PASS_SECONDS, run_command


def test_a_one_shot_ends_when_airflow_finds_nothing_to_do(
    unsynced: Database, begin: StartSyncPerm
) -> None:
    daemon = begin(unsynced, {"SYNC_PERM_ONE_SHOT": "true"})

    assert 0 == daemon.wait_for_exit(PASS_SECONDS).code
    assert [] == daemon.find_events("http_listening")
    assert ["start"] * 2 == [
        event["reason"] for event in daemon.find_events("pass_finished")
    ]
    assert is_synced(unsynced)


@on_airflow("2.11", "3")
def test_check_reports_the_airflow_version_and_whether_it_needs_the_sidecar(
    airflow: Airflow, database: Database, tmp_path: Path
) -> None:
    add_role(database, "team")
    before = contents(database)

    done = run_command("check", airflow, database.url, tmp_path)

    assert 0 == done.returncode, done.stdout
    assert PASSWORD not in done.stdout + done.stderr
    assert {"2.11": "2.11.2", "3": "3.3.2"}[airflow.version] in done.stdout
    assert "needed?        for roles only: " in done.stdout
    assert before == contents(database)


@on_airflow("2.11", "3")
def test_check_of_a_database_that_was_never_synced_blames_nothing_that_the_first_pass_creates(
    airflow: Airflow,
    postgres: Postgres,
    home: Path,
    tmp_path: Path,
    start: StartSyncPerm,
) -> None:
    database = airflow.new_postgres(postgres, home, "migrated")
    airflow.write_dags(
        database, home, {"a": {"Viewer": ["can_edit"], "team": ["can_read"]}}
    )
    file = tmp_path / "roles.yaml"
    file.write_text("roles: {team: {permissions: [can_read on Connections]}}")
    settings = {"SYNC_PERM_ROLES": str(file), "SYNC_PERM_INCLUDE_DAGS": "true"}

    for command, code in (("check", 0), ("diff", 4)):
        done = run_command(command, airflow, database.url, tmp_path, settings)
        assert code == done.returncode, done.stdout + done.stderr
        assert "Airflow has not written its roles here yet" in done.stdout
        assert "not exist" not in done.stdout
    daemon = start(database, settings).until_good()

    assert [] == daemon.find_events("roles_file_refused")
    assert "Viewer" not in str(daemon.find_events("dag_failed"))
    assert {("Viewer", "can_edit"), ("team", "can_read")} == grants_on(
        database, "DAG:a"
    )
    assert ("team", "can_read") in grants_on(database, "Connections")
