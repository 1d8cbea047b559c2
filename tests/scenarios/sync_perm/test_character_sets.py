"""
A metadata database whose character set lacks most of the world's letters.
"""

import re
from contextlib import closing
from pathlib import Path

import pytest

from sync_perm.database.connection import parse_url
from sync_perm.database.database import Database as Connection
from sync_perm.database.tables import Reader
from tests.docs.code import ROOT
from tests.scenarios.sync_perm.conftest import StartSyncPerm
from tests.support.airflow import Airflow
from tests.support.databases import Database, MariaDb, Postgres
from tests.support.permissions import contents, difference, grants_on
from tests.support.sync_perm import PASS_SECONDS
from tests.support.waiting import wait_until

PAGE = ROOT / "docs/how-to/find-out-what-is-wrong.md"


ROLES = "roles:\n  plain: {dags: [{id: Übung, permissions: [can_read]}]}\n  데이터팀: {}\n"
TABLES = """
CREATE TABLE ab_role (id INTEGER PRIMARY KEY, name VARCHAR(64));
CREATE TABLE ab_permission (id INTEGER PRIMARY KEY, name VARCHAR(64));
CREATE TABLE ab_view_menu (id INTEGER PRIMARY KEY, name VARCHAR(64));
CREATE TABLE ab_permission_view (id INTEGER PRIMARY KEY, permission_id INT, view_menu_id INT);
CREATE TABLE ab_permission_view_role (id INTEGER PRIMARY KEY, permission_view_id INT, role_id INT);
INSERT INTO ab_role VALUES (1, 'Viewer')
"""


@pytest.fixture(params=["postgres", "mariadb", "mysql"])
def latin1(request: pytest.FixtureRequest) -> Database:
    """A database without the letters of most languages."""
    running: Postgres | MariaDb = request.getfixturevalue(request.param)
    if isinstance(running, MariaDb):
        made = running.new_database("latin1_swedish_ci")
    else:
        made = running.new_database("template0 ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C'")
    for statement in TABLES.split(";"):
        made.query(statement)
    return made


def test_a_name_that_the_database_cannot_hold_is_told_from_one_that_is_not_there(
    latin1: Database,
) -> None:
    reader = Reader(has_versions=False, dags_folder="")

    with closing(Connection(parse_url("TEST", latin1.url, ""))) as connection:
        found = reader.read(connection, dags=False, names=["데이터팀", "Übung", "Viewer"])

    assert {"데이터팀"} == found.unfit
    assert not found.aliases
    assert {"Viewer"} == found.roles


@pytest.mark.usefixtures("only_in_full")
def test_the_documented_conversion_lets_every_name_in(
    airflow: Airflow, mariadb: MariaDb, home: Path, tmp_path: Path, start: StartSyncPerm
) -> None:
    database = mariadb.new_database("latin1_swedish_ci")
    airflow.run(database, home, "airflow", "db", "migrate")
    airflow.write_dags(database, home, {"Übung": None, "plain": {"데이터팀": ["can_edit"]}})
    file = tmp_path / "roles.yaml"
    file.write_text(ROLES)
    daemon = start(database, {"SYNC_PERM_ROLES": str(file)})

    wait_until(lambda: ("plain", "can_read") in grants_on(database, "DAG:Übung"), "the rest", 300)
    refused = daemon.wait_for_event("roles_file_refused", line=3, key="roles.데이터팀")
    ready = daemon.get("/readyz")
    assert (503, "role_name_unfit") == (ready.status, ready.json()["reason"])
    assert "character set" in refused["error"]
    assert "데이터팀" in ready.json()["error"]
    daemon.wait_for_event("dag_failed", PASS_SECONDS, dag="plain", reason="role_missing")
    assert [] == daemon.find_events("cycle_failed")

    (conversion,) = re.findall(r"^```sql\n(.*?)```", PAGE.read_text(), re.DOTALL | re.MULTILINE)

    for (statement,) in database.query(conversion):
        database.query(statement)
    airflow.write_dags(database, home, {"한국_매출": {"데이터팀": ["can_edit"]}})

    daemon.wait_until_good(2 * PASS_SECONDS)
    wait_until(lambda: grants_on(database, "DAG:한국_매출"), "granted", PASS_SECONDS)
    ours = contents(database)
    airflow.full_sync(database, home)
    assert [] == difference(ours, contents(database))
    assert ("Übung",) in database.query("SELECT dag_id FROM serialized_dag")
