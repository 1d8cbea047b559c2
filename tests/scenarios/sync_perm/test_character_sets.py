"""
A metadata database whose character set lacks most of the world's letters.
"""

import re
from pathlib import Path

import pytest

from tests.docs.code import ROOT
from tests.scenarios.sync_perm.conftest import StartSyncPerm
from tests.support.airflow import Airflow
from tests.support.databases import MariaDb
from tests.support.permissions import add_role, contents, difference, grants_on
from tests.support.sync_perm import PASS_SECONDS
from tests.support.waiting import wait_until

PAGE = ROOT / "docs/how-to/find-out-what-is-wrong.md"


@pytest.mark.usefixtures("only_in_full")
def test_the_documented_conversion_lets_every_name_in(
    airflow: Airflow, mariadb: MariaDb, home: Path, start: StartSyncPerm
) -> None:
    database = mariadb.new_database("latin1_swedish_ci")
    airflow.run(database, home, "airflow", "db", "migrate")
    airflow.write_dags(database, home, {"Übung": None, "plain": {"데이터팀": ["can_edit"]}})
    daemon = start(database)
    failed = daemon.wait_for_event("cycle_failed", PASS_SECONDS, reason="database_failed")
    (conversion,) = re.findall(r"^```sql\n(.*?)```", PAGE.read_text(), re.DOTALL | re.MULTILINE)

    for (statement,) in database.query(conversion):
        database.query(statement)
    add_role(database, "데이터팀")
    airflow.write_dags(database, home, {"한국_매출": {"데이터팀": ["can_edit"]}})

    daemon.wait_until_good(2 * PASS_SECONDS)
    wait_until(lambda: grants_on(database, "DAG:한국_매출"), "granted", PASS_SECONDS)
    assert "Illegal mix of collations" in failed["error"]
    ours = contents(database)
    airflow.full_sync(database, home)
    assert [] == difference(ours, contents(database))
    assert ("Übung",) in database.query("SELECT dag_id FROM serialized_dag")
