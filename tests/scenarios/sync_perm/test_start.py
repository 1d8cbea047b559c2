"""
Before sync-perm is ready, it has read the permissions that default roles must have.
"""

from pathlib import Path

import pytest

from tests.scenarios.sync_perm.conftest import (
    SUPPORTED,
    StartSyncPerm,
    on_airflow,
    with_config,
)
from tests.support.airflow.databases import Database, PgBouncer
from tests.support.airflow.installed import WITHOUT_KUBERNETES, Airflow
from tests.support.airflow.permissions import (
    contents,
    delete_permission,
    difference,
    revoke,
)
from tests.support.airflow.sync_perm import PASS_SECONDS, run_command
from tests.support.waiting import wait_until

CONN = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
MANAGER = """
from airflow.providers.fab.auth_manager.security_manager import override

class Manager(override.FabAirflowSecurityManagerOverride):
    ROLE_CONFIGS = [
        *override.FabAirflowSecurityManagerOverride.ROLE_CONFIGS,
        {"role": "Auditor", "perms": [("can_read", "Audit Logs")]},
    ]

AUTH_ROLE_ADMIN = "Boss"
SECURITY_MANAGER_CLASS = Manager
"""


@on_airflow(*SUPPORTED)
def test_restores_lost_grants_of_default_and_own_roles_before_it_is_ready(
    airflow: Airflow, database: Database, start: StartSyncPerm, tmp_path: Path
) -> None:
    settings = with_config(tmp_path, MANAGER)
    first = start(database, settings).until_good()
    whole = contents(database)
    revoke(database, "Auditor", "can_read", "Audit Logs")
    revoke(database, "Boss", "can_create", "Roles")
    wait_until(lambda: contents(database) == whole, "both are back", PASS_SECONDS)
    first.wait_until_good()
    first.terminate()
    for role in ("User", "Op"):  # no lower role has it either
        revoke(database, role, "can_create", "DAG Runs")
    delete_permission(database, "menu_access", "Docs")

    second = start(database, settings).until_good()

    assert [] == difference(contents(database), whole)
    assert [] == first.find_events("rows_undone") + second.find_events("rows_undone")


@pytest.mark.parametrize(
    ("reads", "error"),
    [
        ("os.environ['OIDC_CLIENT_SECRET']", "KeyError: 'OIDC_CLIENT_SECRET'"),
        # which Flask takes for a webserver_config.py that is missing
        ("open('/oidc/secret').read()", "FileNotFoundError: [Errno 2] Unable to load"),
    ],
    ids=["variable", "file"],
)
@on_airflow(*SUPPORTED)
def test_a_webserver_config_that_this_container_cannot_read_is_named(
    airflow: Airflow,
    database: Database,
    start: StartSyncPerm,
    tmp_path: Path,
    reads: str,
    error: str,
) -> None:
    """
    It reads what only the web server has; `check` fails in the same words.
    """
    settings = with_config(tmp_path, f"import os\nSECRET = {reads}\n")

    daemon = start(database, settings)
    failed = daemon.wait_for_event("cycle_failed", PASS_SECONDS)
    checked = run_command("check", airflow, database.url, tmp_path, settings)

    told = f"{failed['reason']}: {failed['error']}"
    assert told.startswith(f"config_failed: {tmp_path}/webserver_config.py:2: {error}")
    assert "give this container the variables" in failed["advice"]
    assert 503 == daemon.get("/readyz").status
    assert 3 == checked.returncode
    assert told in checked.stdout


@on_airflow(*SUPPORTED)
def test_a_database_of_another_airflow_waits_for_its_migration(
    airflow: Airflow, database: Database, start: StartSyncPerm, tmp_path: Path
) -> None:
    """
    As `airflow sync-perm`, unless [database] check_migrations is false; so does
    `check`.
    """
    revoke(database, "Op", "can_create", "DAG Runs")
    ((version,),) = database.query("SELECT version_num FROM alembic_version")
    database.query("UPDATE alembic_version SET version_num = '22ed7efa9da2'")
    before = contents(database)

    checked = run_command("check", airflow, database.url, tmp_path)
    assert 3 == checked.returncode, checked.stdout
    assert "database_not_migrated" in checked.stdout
    unchecked = run_command(
        "check",
        airflow,
        database.url,
        tmp_path,
        {"AIRFLOW__DATABASE__CHECK_MIGRATIONS": "False"},
    )
    assert 0 == unchecked.returncode, unchecked.stdout

    daemon = start(database)
    failed = daemon.wait_for_event("cycle_failed", PASS_SECONDS)

    assert "database_not_migrated" == failed["reason"]
    assert "lease run `airflow db " in failed["error"]
    assert before == contents(database)
    database.query("UPDATE alembic_version SET version_num = %s", (version,))
    daemon.wait_until_good()


def test_uses_the_arguments_that_airflow_passes_to_its_driver(
    airflow: Airflow, database: Database, start: StartSyncPerm, tmp_path: Path
) -> None:
    """Airflow's tables are in a schema that only these arguments name."""
    database.query("ALTER SCHEMA public RENAME TO elsewhere")
    database.query("CREATE SCHEMA public")
    (tmp_path / "ours.py").write_text("ARGS = {'options': '-csearch_path=elsewhere'}\n")
    settings = {
        "PYTHONPATH": f"{tmp_path}:{WITHOUT_KUBERNETES}",
        "AIRFLOW_CONFIG": "",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS": "ours.ARGS",
    }

    assert [] == start(database, settings).until_good().find_events("cycle_failed")
    # A server that Airflow would not trust.
    (tmp_path / "ours.py").write_text(
        "ARGS = {'sslmode': 'verify-ca', 'sslrootcert': '/none'}\n"
    )
    start(database, settings).wait_for_event(
        "cycle_failed", PASS_SECONDS, reason="database_tls_failed"
    )


@on_airflow(*SUPPORTED)
def test_pgbouncer_takes_the_search_path_of_the_role_and_none_of_the_url(
    airflow: Airflow, database: Database, pgbouncer: PgBouncer, start: StartSyncPerm
) -> None:
    database.query("ALTER SCHEMA public RENAME TO elsewhere")
    url = pgbouncer.url(database.name)

    failed = start(
        None, {CONN: f"{url}?options=-csearch_path%3Delsewhere"}
    ).wait_for_event("cycle_failed", PASS_SECONDS)
    database.query(
        f"ALTER ROLE airflow IN DATABASE {database.name} SET search_path = elsewhere"
    )
    daemon = start(None, {CONN: url}).until_good()

    assert "database_failed" == failed["reason"]
    assert "use ALTER ROLE … SET search_path" in failed["advice"]
    assert [] == daemon.find_events("cycle_failed")


def test_an_error_that_airflow_swallows_is_quoted(
    airflow: Airflow, database: Database, home: Path, start: StartSyncPerm
) -> None:
    """As after a restore that left the sequences behind."""
    airflow.write_dags(database, home, {"a": {"Viewer": ["can_edit"]}})
    database.query("SELECT setval('ab_permission_view_id_seq', 1)")

    failed = start(database).wait_for_event("dag_failed", PASS_SECONDS, dag="a")

    assert "not_fixed" == failed["reason"]
    assert "ab_permission_view_pkey" in failed["error"]
