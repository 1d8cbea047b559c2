"""The supervisor as a process: one-shots and read-only homes; and `sync-perm check`."""

from pathlib import Path

from tests.scenarios.sync_perm.conftest import StartSyncPerm, on_airflow
from tests.scenarios.sync_perm.standin import is_synced
from tests.support.airflow.databases import PASSWORD, Database
from tests.support.airflow.installed import Airflow
from tests.support.airflow.permissions import add_role, contents
from tests.support.airflow.sync_perm import PASS_SECONDS, run_command


def test_a_one_shot_ends_when_airflow_finds_nothing_to_do(
    unsynced: Database, begin: StartSyncPerm
) -> None:
    daemon = begin(unsynced, {"SYNC_PERM_ONE_SHOT": "true"})

    ended = daemon.wait_for_exit(PASS_SECONDS)

    assert 0 == ended.code
    assert [] == daemon.find_events("http_listening")
    assert ["start"] * 2 == [event["reason"] for event in daemon.find_events("pass_finished")]
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
