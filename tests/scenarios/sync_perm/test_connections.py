"""
The sources and forms of the connection that Airflow accepts, and the rights it needs.
"""

from pathlib import Path

import pytest

from tests.scenarios.sync_perm.conftest import (
    INSTALLS,
    SUPPORTED,
    StartSyncPerm,
    on_airflow,
)
from tests.scenarios.sync_perm.standin import StandIn, wait_until_synced
from tests.support.airflow.databases import Database, Postgres
from tests.support.airflow.installed import Airflow, Kind
from tests.support.airflow.permissions import add_role, grants_on
from tests.support.airflow.sync_perm import PASS_SECONDS
from tests.support.replacing import replace
from tests.support.waiting import wait_until

CONN = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
SECRET = "Hidden-Pa55"
TOKENS = """
from sqlalchemy import event
from sqlalchemy.engine import Engine

@event.listens_for(Engine, "do_connect")
def give_token(dialect, record, arguments, options):
    options["password"] = open("TOKEN").read()
"""
LISTENER = """
from sqlalchemy import engine, event

@event.listens_for(engine.Engine, "connect")
def set_role(connection, record): ...
"""
# Of a server, a user whose password is the token; the end of its connections.
STATEMENTS = {
    "postgres": (
        "DROP ROLE IF EXISTS iam; CREATE ROLE iam SUPERUSER LOGIN",
        "ALTER ROLE iam PASSWORD '{token}'",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'iam'",
    ),
    "mariadb": (
        "GRANT ALL ON *.* TO iam IDENTIFIED BY ''",
        "ALTER USER iam IDENTIFIED BY '{token}'",
        "KILL HARD CONNECTION USER iam",
    ),
}
RESULTS = ("permission", "view_menu", "permission_view", "permission_view_role")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        cells = [("2.11", "postgres")]
        if metafunc.config.getoption("--full"):
            cells += [("2.11", "mariadb"), ("3.2", "postgres"), ("3", "postgres")]
        params = [pytest.param(*cell, marks=INSTALLS) for cell in cells]
        metafunc.parametrize(
            (("airflow", "kind")), params, indirect=["airflow"], scope="session"
        )


def test_a_token_that_airflow_local_settings_hands_out_is_asked_for_at_each_connect(
    airflow: Airflow,
    kind: Kind,
    metadata: Database,
    start: StartSyncPerm,
    tmp_path: Path,
) -> None:
    """As for IAM logins of RDS: connections outlive the token, logins do not."""
    token = tmp_path / "token"
    (tmp_path / "airflow_local_settings.py").write_text(
        TOKENS.replace("TOKEN", str(token))
    )
    user, changed, ended = STATEMENTS[kind]
    metadata.query(user)

    def hand_out(text: str) -> None:
        metadata.query(changed.format(token=text))
        replace(token, text)

    hand_out("first-T0ken")
    url = metadata.server.url(metadata.name, "iam", "expired")
    daemon = start(None, {CONN: url, "PYTHONPATH": str(tmp_path)})
    daemon.wait_until_good(100)
    hand_out("second-T0ken")
    metadata.query(ended)
    add_role(metadata, "late")

    wait_until(
        lambda: ("late", "can_read") in grants_on(metadata, "Website"),
        "granted with the second one",
        PASS_SECONDS,
    )
    assert [] == daemon.find_events("cycle_failed")
    assert "T0ken" not in daemon.log() + str(daemon.status())


@pytest.mark.parametrize(
    ("local_settings", "expected"),
    [
        (
            "creation = {'creator': lambda: object()}",
            "connection_foreign: {0} uses a driver that is none of psycopg2, ",
        ),
        (
            "creation = {'connect_args': {'sslpassword': print}}",
            "connection_foreign: {0} uses the argument sslpassword",
        ),
        (
            LISTENER,
            "connection_foreign: {0} uses the connect listener airflow_local_settings.set_role",
        ),
        (
            LISTENER.replace('connect"', 'checkout"'),
            "connection_foreign: {0} uses the checkout listener airflow_local_settings.set_role",
        ),
        (
            "import os\ncreation = {'creator': lambda: os.environ['x://u:T0ken@h']}",
            "config_failed: {1}:2: KeyError: 'x://u:***@h'",
        ),
        ("creation = 1 +", "config_failed: {1}:1: SyntaxError: "),
    ],
)
def test_what_cannot_be_taken_over_of_a_connection_is_refused_by_name(
    standin: StandIn,
    unsynced: Database,
    begin: StartSyncPerm,
    tmp_path: Path,
    local_settings: str,
    expected: str,
) -> None:
    # where the chart mounts it
    file = tmp_path / "supervisor0/airflow/config/airflow_local_settings.py"
    file.parent.mkdir(parents=True)
    file.write_text(local_settings)

    daemon = begin(unsynced)
    failed = daemon.wait_for_event("cycle_failed", PASS_SECONDS)

    assert f"{failed['reason']}: {failed['error']}".startswith(
        expected.format(f"{CONN} and {file}", file)
    )
    # what psycopg 3 takes and concerns no server
    file.write_text("creation = {'connect_args': {'prepare_threshold': None}}")
    daemon.sighup()
    wait_until_synced(unsynced)


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

    wait_until_synced(database)
    if not airflow.is_3:  # Airflow 3 syncs only roles
        wait_until(lambda: grants_on(database, "DAG:a"), "ok", PASS_SECONDS)
    daemon.wait_until_good()
    database.query(f"DROP OWNED BY {user}")
