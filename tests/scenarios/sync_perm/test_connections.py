"""
The sources and forms of the connection that Airflow accepts, and the rights it needs.
"""

from pathlib import Path

import pytest

from tests.scenarios.sync_perm.conftest import SUPPORTED, StartSyncPerm, on_airflow
from tests.support.airflow.databases import Database, Postgres
from tests.support.airflow.installed import Airflow
from tests.support.airflow.permissions import add_role, grants_on
from tests.support.airflow.sync_perm import PASS_SECONDS
from tests.support.waiting import wait_until

CONN = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
SECRET = "Hidden-Pa55"
RESULTS = ("permission", "view_menu", "permission_view", "permission_view_role")


@pytest.mark.usefixtures("only_in_full")
@on_airflow(*SUPPORTED)
def test_the_least_privileges_in_the_readme_are_sufficient(
    airflow: Airflow,
    postgres: Postgres,
    database: Database,
    home: Path,
    start: StartSyncPerm,
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

    wait_until(
        lambda: ("team", "can_read") in grants_on(database, "Website"),
        "ok",
        PASS_SECONDS,
    )
    if not airflow.is_3:  # Airflow 3 syncs only roles
        wait_until(lambda: grants_on(database, "DAG:a"), "ok", PASS_SECONDS)
    daemon.wait_until_good()
    database.query(f"DROP OWNED BY {user}")
