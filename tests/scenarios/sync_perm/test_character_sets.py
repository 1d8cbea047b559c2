"""Role names that a metadata database cannot store: only these are refused."""

import re
from contextlib import closing
from pathlib import Path

import pytest

from sidecar_runtime.errors import SidecarError
from sync_perm.compare import Tables
from sync_perm.connection import parse_url
from sync_perm.database import Database as Connection
from sync_perm.tables import Reader
from tests.docs.documents import ROOT
from tests.scenarios.sync_perm.conftest import StartSyncPerm
from tests.support.airflow.databases import Database, MariaDb, Postgres
from tests.support.airflow.installed import Airflow
from tests.support.airflow.permissions import contents, difference, grants_on
from tests.support.airflow.sync_perm import PASS_SECONDS
from tests.support.raising import raised
from tests.support.waiting import wait_until

PAGE = ROOT / "docs/how-to/find-out-what-is-wrong.md"
SURROGATE = "a\ud800"  # valid in JSON, but in no encoding
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
    """A database whose encoding lacks the letters of most languages."""
    running: Postgres | MariaDb = request.getfixturevalue(request.param)
    if isinstance(running, MariaDb):
        made = running.new_database("latin1_swedish_ci")
    else:
        made = running.new_database("template0 ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C'")
    return with_tables(made)


def with_tables(database: Database) -> Database:
    for statement in TABLES.split(";"):
        database.query(statement)
    return database


def read(url: str, *names: str) -> Tables:
    reader = Reader((2, 11), "")
    with closing(Connection(parse_url("TEST", url, ""))) as connection:
        return reader.read(connection, dags=False, names=names)


def test_distinguishes_names_that_do_not_fit_from_missing_names(latin1: Database) -> None:
    found = read(latin1.url, "데이터팀", SURROGATE, "Übung", "Viewer")

    assert {"데이터팀", SURROGATE} == found.unfit
    assert not found.aliases
    assert {"Viewer"} == found.roles


def test_postgresql_cannot_store_a_nul_in_a_name(postgres: Postgres) -> None:
    database = with_tables(postgres.new_database())

    assert {"a\0b"} == read(database.url, "a\0b", "데이터팀", "team 🚀").unfit


@pytest.mark.parametrize("collation", ["utf8mb3_general_ci", "utf8mb4_general_ci"])
def test_a_utf8mb3_connection_cannot_store_four_byte_characters(
    mariadb: MariaDb, collation: str
) -> None:
    database = with_tables(mariadb.new_database(collation))
    database.query("INSERT INTO ab_role VALUES (2, 'team ????')")

    found = read(f"{database.url}?charset=utf8", "team 🚀", "데이터팀")

    assert {"team 🚀"} == found.unfit
    assert not found.aliases


def test_a_view_name_outside_the_client_encoding_fails_as_database_failed(
    postgres: Postgres,
) -> None:
    database = with_tables(postgres.new_database())
    database.query("INSERT INTO ab_view_menu VALUES (1, 'DAG:한국')")

    error = raised(SidecarError, lambda: read(f"{database.url}?client_encoding=latin1"))

    assert "database_failed" == error.reason
    assert "has no equivalent in encoding" in error.message


@pytest.mark.usefixtures("only_in_full")
def test_the_documented_conversion_makes_all_names_fit(
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
    assert "character set" in refused["error"]

    def is_said() -> bool:
        ready = daemon.get("/readyz")
        return (503, "role_name_unsupported") == (ready.status, ready.json()["reason"])

    wait_until(is_said, "readiness says it")
    assert "데이터팀" in daemon.get("/readyz").json()["error"]
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
