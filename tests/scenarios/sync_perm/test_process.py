"""
The supervisor as a process: small, one-shot, read-only root, signals; and `sync-perm check`.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.scenarios.sync_perm.conftest import on_airflow
from tests.scenarios.sync_perm.standin import is_synced
from tests.support.airflow import Airflow
from tests.support.databases import PASSWORD, Database
from tests.support.permissions import add_role, contents
from tests.support.sync_perm import SYNC_PERM, SyncPerm


@pytest.mark.usefixtures("only_in_full")
@on_airflow("2.11", "3", "2.7")
def test_home_and_airflow_home_that_cannot_be_written(
    airflow: Airflow, database: Database, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    daemon = SyncPerm(airflow, database.url, home)
    airflow_home = home / "airflow"
    airflow_home.mkdir()
    if os.getuid() == 0:  # without its capabilities, root may do as little as anyone
        daemon.program = Path("/usr/bin/setpriv")
        daemon.arguments = ("--bounding-set=-all", "--inh-caps=-all", str(SYNC_PERM))
    add_role(database, "team")
    for folder in (airflow_home, home):
        folder.chmod(0o555)

    with daemon:
        daemon.wait_until_good()
        daemon.terminate()

    assert is_synced(database)
    assert [] == list(airflow_home.iterdir())
    assert [] == list(daemon.scratch.iterdir())


@on_airflow("2.11", "3", "2.7")
def test_check_says_what_is_there_and_whether_the_sidecar_is_needed(
    airflow: Airflow, database: Database, tmp_path: Path
) -> None:
    add_role(database, "team")
    before = contents(database)

    done = check(airflow, database.url, tmp_path)

    assert 0 == done.returncode, done.stdout
    assert PASSWORD not in done.stdout + done.stderr
    assert {"2.7": "2.7.3", "2.11": "2.11.2", "3": "3.3.2"}[airflow.version] in done.stdout
    assert "need" in done.stdout
    assert before == contents(database)


@pytest.mark.parametrize(
    ("url", "code", "word"),
    [
        (None, 2, "SQL_ALCHEMY_CONN"),
        (f"postgresql://airflow:{PASSWORD}@127.0.0.1:1/airflow", 3, "refused"),
    ],
    ids=["no connection", "refused"],
)
def test_check_fails_with_the_reason(
    airflow: Airflow, tmp_path: Path, url: str | None, code: int, word: str
) -> None:
    done = check(airflow, url, tmp_path)

    assert code == done.returncode, done.stdout + done.stderr
    assert word in done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr


def check(airflow: Airflow, url: str | None, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SYNC_PERM, "check"],
        env={**airflow.environment(url, folder), "TMPDIR": str(folder)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
