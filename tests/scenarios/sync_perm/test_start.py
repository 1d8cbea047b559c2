"""Before sync-perm is ready, it has read the permissions that default roles must have."""

import json
from pathlib import Path

import pytest

from tests.scenarios.sync_perm.conftest import StartSyncPerm, on_airflow
from tests.support.airflow.databases import Database, Postgres
from tests.support.airflow.installed import Airflow, copy_postgres
from tests.support.airflow.permissions import (
    Contents,
    contents,
    delete_permission,
    difference,
    grant,
    grants_on,
    revoke,
)
from tests.support.airflow.sync_perm import PASS_SECONDS
from tests.support.waiting import wait_until

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


def synced(airflow: Airflow, postgres: Postgres, database: Database, folder: Path) -> Contents:
    """Return the contents of a copy after `airflow sync-perm`."""
    copy = copy_postgres(postgres, database, folder)
    airflow.run(copy, folder / "copy", "airflow", "sync-perm")
    made = contents(copy)
    postgres.drop(copy)
    return made


@on_airflow("2.11", "3")
def test_restores_permissions_lost_before_the_start_before_it_is_ready(
    airflow: Airflow, database: Database, start: StartSyncPerm
) -> None:
    whole = contents(database)
    revoke(database, "Viewer", "can_read", "DAGs")
    for role in ("User", "Op"):  # which no lower role has either
        revoke(database, role, "can_create", "DAG Runs")
    delete_permission(database, "menu_access", "Docs")

    start(database).until_good()

    assert [] == difference(contents(database), whole)


@pytest.mark.usefixtures("only_in_full")
@on_airflow("2.11", "3")
def test_cli_mode_keeps_extra_grants_of_a_default_role(
    airflow: Airflow, database: Database, start: StartSyncPerm
) -> None:
    grant(database, "Viewer", "menu_access", "Admin")
    widened = contents(database)

    daemon = start(database, {"SYNC_PERM_TARGETED": "false"}).until_good()

    assert [] == daemon.find_events("pass_started")
    assert [] == difference(contents(database), widened)


@pytest.mark.usefixtures("only_in_full")
@on_airflow("3")
def test_creates_the_roles_in_the_airflow_configuration(
    airflow: Airflow, database: Database, home: Path, start: StartSyncPerm
) -> None:
    """Also with a resource that the empty database of the definition does not have."""
    airflow.write_dags(database, home, {"sales": None}, parsed=True)
    resources = ("Audit Logs", "DAG:sales")
    roles = {"auditor": [{"action": "can_read", "resource": name} for name in resources]}

    daemon = start(database, {"AIRFLOW__FAB__CUSTOM_ROLES": json.dumps(roles)}).until_good()

    for resource in (*resources, "Website"):
        assert ("auditor", "can_read") in grants_on(database, resource)
    assert [] == daemon.find_events("definition_unread")


@on_airflow("2.11", "3")
def test_restores_lost_grants_of_the_security_managers_own_roles(
    airflow: Airflow, database: Database, start: StartSyncPerm, tmp_path: Path
) -> None:
    config = tmp_path / "webserver_config.py"
    config.write_text(MANAGER)
    sections = ("FAB", "WEBSERVER")
    settings = {f"AIRFLOW__{section}__CONFIG_FILE": str(config) for section in sections}
    daemon = start(database, settings).until_good()
    whole = contents(database)

    revoke(database, "Auditor", "can_read", "Audit Logs")
    revoke(database, "Boss", "can_create", "Roles")
    wait_until(lambda: contents(database) == whole, "both are back", PASS_SECONDS)

    daemon.wait_until_good()
    assert [] == daemon.find_events("difference_kept")


@on_airflow("2.11", "3")
def test_settings_for_the_real_database_do_not_keep_the_definition_from_being_read(
    airflow: Airflow, database: Database, start: StartSyncPerm, tmp_path: Path
) -> None:
    """The definition is read from an empty SQLite file, where these would fail."""
    (tmp_path / "for_postgresql.py").write_text("ARGUMENTS = {'keepalives': 1}\n")
    settings = {
        "PYTHONPATH": str(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS": "for_postgresql.ARGUMENTS",
        "AIRFLOW__DATABASE__SQL_ENGINE_COLLATION_FOR_IDS": "C",
    }

    daemon = start(database, settings).until_good()

    assert [] == daemon.find_events("definition_unread")
    assert daemon.find_events("definition_read")
