"""The sources and forms of the connection that Airflow accepts, and the rights it needs."""

from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.sync_perm.conftest import StartSyncPerm, on_airflow
from tests.support.airflow.databases import Database, MariaDb, PgBouncer, Postgres
from tests.support.airflow.installed import Airflow
from tests.support.airflow.permissions import (
    add_null_row,
    add_role,
    contents,
    difference,
    grants_on,
    null_rows,
)
from tests.support.airflow.sync_perm import PASS_SECONDS, SyncPerm
from tests.support.waiting import wait_until

CONN = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
SECRET = "Hidden-Pa55"
RESULTS = ("permission", "view_menu", "permission_view", "permission_view_role")


def assert_works(daemon: SyncPerm, database: Database) -> None:
    """Check that the supervisor, and the pass that it starts, use the connection."""
    add_role(database, "team")

    wait_until(lambda: ("team", "can_read") in grants_on(database, "Website"), "ok", PASS_SECONDS)
    daemon.wait_until_good()


@on_airflow("3")
def test_published_example_works_on_airflow_3(
    airflow: Airflow, database: Database, start: StartSyncPerm
) -> None:
    """An extra container receives no settings, so the auth manager is unknown and assumed."""
    connection = {"AIRFLOW__CORE__SQL_ALCHEMY_CONN": database.url}

    daemon = start(None, {**connection, "AIRFLOW__CORE__AUTH_MANAGER": None, "INTERVAL": "1"})

    assert_works(daemon, database)
    assert [] != daemon.find_events("auth_manager_assumed")


@pytest.mark.usefixtures("only_in_full")
def test_airflow_cfg_connection_can_contain_special_characters(
    airflow: Airflow, postgres: Postgres, database: Database, start: StartSyncPerm, tmp_path: Path
) -> None:
    password = "p@ss/w:rd%#?&= ü+$"
    quoted = password.replace("'", "''")
    database.query("DROP ROLE IF EXISTS odd")
    database.query(f"CREATE ROLE odd SUPERUSER LOGIN PASSWORD '{quoted}'")
    url = postgres.url(database.name, "odd", password)
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    escaped = url.replace("%", "%%")
    (mounted / "airflow.cfg").write_text(f"[database]\nsql_alchemy_conn = {escaped}\n")

    daemon = start(None, {"AIRFLOW_HOME": str(mounted)})

    assert_works(daemon, database)
    assert ["airflow.cfg"] == [path.name for path in mounted.iterdir()]
    for form in (password, url.split(":")[2].split("@")[0]):
        assert form not in daemon.log() + str(daemon.status())


@pytest.mark.usefixtures("only_in_full")
def test_connection_command_works_with_pgbouncer_and_the_old_scheme(
    airflow: Airflow,
    database: Database,
    pgbouncer: PgBouncer,
    tmp_path: Path,
    start: StartSyncPerm,
) -> None:
    url = Database(pgbouncer, database.name).url
    secret = tmp_path / "connection"
    secret.write_text(url.replace("postgresql", "postgres", 1) + "\n")

    daemon = start(None, {f"{CONN}_CMD": f"cat {secret}"})

    assert_works(daemon, database)
    wait_until(lambda: not _advisory_locks(database), "the lock is free after the pass")


@pytest.mark.usefixtures("only_in_full")
def test_permissions_on_mariadb_match_a_full_sync_by_airflow(
    airflow: Airflow, mariadb: MariaDb, home: Path, start: StartSyncPerm
) -> None:
    database = mariadb.new_database()
    airflow.run(database, home, "airflow", "db", "migrate")
    dags: dict[str, Any] = {"Übung": {"Viewer": ["can_edit"]}, "free": None, "none": {}}
    dags["folded"] = {"equipe": ["can_read"]}  # which equals Équipe in the collation
    airflow.write_dags(database, home, dags)
    add_role(database, "Équipe")
    daemon = start(database).until_good()

    wait_until(lambda: grants_on(database, "DAG:Übung"), "granted", PASS_SECONDS)
    assert {("Équipe", "can_read")} == grants_on(database, "DAG:folded")
    assert "failing_dags" not in daemon.status()["details"]
    add_null_row(database)
    wait_until(lambda: null_rows(database) == 0, "no such row", PASS_SECONDS)

    ours = contents(database)
    airflow.full_sync(database, home)
    assert [] == difference(ours, contents(database))


@pytest.mark.usefixtures("only_in_full")
def test_a_role_that_a_latin1_database_cannot_store_stops_no_other(
    airflow: Airflow, mariadb: MariaDb, home: Path, tmp_path: Path, start: StartSyncPerm
) -> None:
    database = mariadb.new_database("latin1_swedish_ci")
    airflow.run(database, home, "airflow", "db", "migrate")
    airflow.write_dags(database, home, {"Übung": None, "plain": {"데이터팀": ["can_edit"]}})
    file = tmp_path / "roles.yaml"
    dags = "{dags: [{id: Übung, permissions: [can_read]}]}"
    file.write_text(f"roles:\n  데이터팀: {{}}\n  plain: {dags}\n")
    daemon = start(database, {"SYNC_PERM_ROLES": str(file)})

    wait_until(lambda: ("plain", "can_read") in grants_on(database, "DAG:Übung"), "others", 300)
    daemon.wait_for_event("dag_failed", PASS_SECONDS, dag="plain", reason="role_missing")
    failed = daemon.wait_for_event("cycle_failed", PASS_SECONDS)

    assert "pass_failed" == failed["reason"]
    assert "Airflow could not create '데이터팀'" in failed["error"]


def _advisory_locks(database: Database) -> list[Any]:
    return database.query("SELECT pid FROM pg_locks WHERE locktype = 'advisory'")


@pytest.mark.usefixtures("only_in_full")
@on_airflow("2.11", "3")
def test_the_least_privileges_in_the_readme_are_sufficient(
    airflow: Airflow, postgres: Postgres, database: Database, home: Path, start: StartSyncPerm
) -> None:
    airflow.write_dags(database, home, {"a": {"Viewer": ["can_edit"]}})
    tables = ("ab_role", *(f"ab_{name}" for name in RESULTS))
    user = f"least_{airflow.version.replace('.', '_')}"
    database.query(f"DROP ROLE IF EXISTS {user}")
    database.query(f"CREATE ROLE {user} LOGIN PASSWORD '{SECRET}'")
    database.query(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}")
    database.query(f"GRANT INSERT, UPDATE, DELETE ON {', '.join(tables)} TO {user}")
    for table in tables:
        database.query(f"GRANT USAGE ON SEQUENCE {table}_id_seq TO {user}")

    daemon = start(None, {CONN: postgres.url(database.name, user, SECRET)})
    add_role(database, "team")

    wait_until(lambda: ("team", "can_read") in grants_on(database, "Website"), "ok", PASS_SECONDS)
    if not airflow.is_3:  # Airflow 3 syncs only roles
        wait_until(lambda: grants_on(database, "DAG:a"), "ok", PASS_SECONDS)
    daemon.wait_until_good()
    database.query(f"DROP OWNED BY {user}")
