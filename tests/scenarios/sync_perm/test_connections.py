"""The sources and forms of the connection that Airflow accepts, and the rights it needs."""

from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.scenarios.sync_perm.conftest import StartSyncPerm, on_airflow
from tests.support.airflow.databases import Database, Postgres
from tests.support.airflow.installed import Airflow
from tests.support.airflow.permissions import (
    add_role,
    grants_on,
)
from tests.support.airflow.sync_perm import PASS_SECONDS
from tests.support.waiting import wait_until

CONN = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
SECRET = "Hidden-Pa55"
RESULTS = ("permission", "view_menu", "permission_view", "permission_view_role")


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


@pytest.mark.usefixtures("only_in_full")
def test_no_pass_fails_while_passwords_rotate(
    airflow: Airflow, database: Database, tmp_path: Path, start: StartSyncPerm, counts: Counts
) -> None:
    """Like IAM tokens every 15 minutes: each login is valid until the next one is printed."""
    token = tmp_path / "token"

    def rotate(number: int) -> None:
        password = f"Token-{number}-of-the-suite"
        database.query(f"CREATE ROLE iam_{number} SUPERUSER LOGIN PASSWORD '{password}'")
        new = token.with_suffix(".new")
        new.write_text(database.server.url(database.name, f"iam_{number}", password))
        new.rename(token)

    rotate(0)
    daemon = start(None, {f"{CONN}_CMD": f"cat {token}"}).until_good()
    for number in range(counts.credential_rotations):
        rotate(number + 1)
        database.query(f"ALTER ROLE iam_{number} NOLOGIN")  # open connections stay open
        seen = len(daemon.events)
        add_role(database, f"team {number}")
        daemon.wait_for_pass(seen)  # to its end, because Airflow connects more than once

        assert (f"team {number}", "can_read") in grants_on(database, "Website")
    passes = [event["result"] for event in daemon.find_events("pass_finished")]
    assert {"success"} == set(passes)
    assert len(passes) >= counts.credential_rotations
    assert [] == daemon.find_events("cycle_failed") + daemon.find_events("rows_undone")
