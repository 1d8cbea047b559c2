"""The supervisor as a process: one-shots and read-only homes; and `sync-perm check`."""

import json
from pathlib import Path

import jsonschema
import pytest

from tests import ROOT
from tests.scenarios.sync_perm.conftest import (
    SUPPORTED,
    StartSyncPerm,
    on_airflow,
    starting,
    with_config,
)
from tests.scenarios.sync_perm.standin import (
    FOREVER,
    WEBSITE,
    StandIn,
    add_differing_dag,
    is_synced,
    small,
)
from tests.support.airflow.databases import PASSWORD, Database, Postgres
from tests.support.airflow.installed import Airflow
from tests.support.airflow.permissions import add_role, contents, grants_on
from tests.support.airflow.sync_perm import PASS_SECONDS, run_command
from tests.support.program import own_port


def test_a_one_shot_ends_when_airflow_finds_nothing_to_do(
    unsynced: Database, begin: StartSyncPerm
) -> None:
    daemon = begin(unsynced, {"SYNC_PERM_ONE_SHOT": "true"})

    assert 0 == daemon.wait_for_exit(PASS_SECONDS).code
    assert [] == daemon.find_events("http_listening")
    assert ["start", "roles"] == [
        event["reason"] for event in daemon.find_events("pass_finished")
    ]
    assert is_synced(unsynced)


def test_an_airflow_that_hangs_at_the_start_is_told_and_ended(
    tmp_path: Path, unsynced: Database
) -> None:
    standin = StandIn.make(tmp_path / "site", "3.3.2")
    settings = standin.site.packages / "airflow_local_settings.py"
    settings.write_text("import time\ntime.sleep(3600)\n")
    daemons = starting(standin, tmp_path)
    daemon = next(daemons)(unsynced)

    daemon.wait_for_event("airflow_asked", PASS_SECONDS)

    assert 0 == daemon.terminate().code
    assert [] == daemon.find_events("airflow_found")
    next(daemons, None)


def test_a_fab_provider_that_lacks_what_is_called_lets_the_whole_command_run(
    tmp_path: Path, unsynced: Database
) -> None:
    standin = StandIn.make(tmp_path / "site", "3.3.2")
    (
        (standin.site.packages / "airflow/providers/fab/auth_manager")
        / "cli_commands/utils.py"
    ).write_text("from .moved import *\n")
    daemons = starting(standin, tmp_path)
    daemon = next(daemons)(unsynced).until_good()

    found = daemon.wait_for_event("airflow_found", PASS_SECONDS)
    checked = run_command(
        "check",
        standin,
        unsynced.url,
        tmp_path,
        {"AIRFLOW__FAB__UPDATE_FAB_PERMS": "False"},
    )

    told = "needs get_application_builder in cli_commands/utils.py of the FAB provider"
    assert ("cli", told) == (found["mode"], found["why"])
    assert f"cli: our script {told}" in checked.stdout
    assert "needed?        yes: update_fab_perms is False" in checked.stdout
    assert is_synced(unsynced)
    next(daemons, None)


def test_what_airflow_has_yet_to_judge_is_told_by_that_name_and_leaves_it_ready(
    standin: StandIn, postgres: Postgres, begin: StartSyncPerm
) -> None:
    """A role is made by hand while Airflow syncs its roles for the first time."""
    database = small(postgres)
    insert = "INSERT INTO ab_role (name) VALUES ('by hand')"
    standin.site.write(f"{WEBSITE}    database.cursor().execute({insert!r})\n")
    daemon = begin(database)

    told = daemon.wait_for_event("wait_began", PASS_SECONDS)

    assert "roles_unsynced" == told["reason"]
    assert "Airflow has yet to judge them" in told["error"]
    assert 200 == daemon.get("/readyz").status


def test_sighup_lets_airflow_sync_its_roles_again(
    standin: StandIn, postgres: Postgres, begin: StartSyncPerm
) -> None:
    port = own_port("127.0.0.1")
    daemon = begin(
        small(postgres),
        {
            "SYNC_PERM_HTTP_BIND": f"127.0.0.1:{port}",
            "SYNC_PERM_STATUS_PAGE": "false",
        },
    ).until_good()
    assert (port, 404) == (daemon.address()[1], daemon.get("/").status)
    standin.site.write(FOREVER)

    daemon.sighup()

    daemon.wait_for_event("pass_started", 30, reason="roles")
    assert 200 == daemon.get("/readyz").status, "its roles are synced all the while"


def test_a_bug_is_reported_with_its_traceback(
    standin: StandIn, postgres: Postgres, begin: StartSyncPerm, tmp_path: Path
) -> None:
    """Python imports `sitecustomize` before our code."""
    (standin.site.packages / "sitecustomize.py").write_text(
        "import socket\nsocket.gethostname = None\n"
    )
    database = small(postgres)

    daemon = begin(database, {"POD_NAME": "of-itself"})
    failed = daemon.wait_for_event("cycle_failed", PASS_SECONDS, reason="bug")
    checked = run_command("check", standin, database.url, tmp_path)

    assert "TypeError: 'NoneType' object is not callable" in str(failed)
    assert "in _of_postgresql" in str(failed)
    assert 1 == checked.returncode
    assert "in _of_postgresql" in checked.stdout + checked.stderr


WRITING = """
from airflow.providers.fab.auth_manager.security_manager import override

class Manager(override.FabAirflowSecurityManagerOverride):
    def __init__(self, appbuilder):
        super().__init__(appbuilder)
        self.add_role("Written")

SECURITY_MANAGER_CLASS = Manager
"""
DIFF = """\
+ dag_grant: Viewer: can_edit on DAG:a
+ dag_permission: can_create on DAG Run:a
+ dag_permission: can_delete on DAG Run:a
+ dag_permission: can_delete on DAG:a
+ dag_permission: can_edit on DAG:a
+ dag_permission: can_read on DAG Run:a
+ dag_permission: menu_access on DAG Run:a
- dag_revoke: Op: can_read on DAG:a
"""


def test_diff_prints_a_line_for_each_row_and_its_exit_code_tells_the_result(
    standin: StandIn, postgres: Postgres, tmp_path: Path
) -> None:
    database = small(postgres)
    add_differing_dag(database)
    without = {"SYNC_PERM_INCLUDE_DAGS": "false"}

    done = run_command("diff", standin, database.url, tmp_path)
    same = run_command("diff", standin, database.url, tmp_path, without)
    gone = run_command("diff", standin, postgres.url("gone"), tmp_path)
    database.query("DELETE FROM serialized_dag")
    left = run_command("diff --output json", standin, database.url, tmp_path, without)
    wrong = run_command(
        "diff", standin, database.url, tmp_path, {"SYNC_PERM_ROLES": "/roles.yaml"}
    )

    assert (4, DIFF) == (done.returncode, done.stdout), done.stderr
    assert (0, "nothing differs\n") == (same.returncode, same.stdout), same.stderr
    assert (3, "") == (gone.returncode, gone.stdout)
    assert 0 == left.returncode, left.stderr
    schema = json.loads((ROOT / "docs/reference/diff.schema.json").read_text())
    jsonschema.validate(told := json.loads(left.stdout), schema)
    assert [
        {"kind": "unasked", "dag_id": "", "row": ["Op", "can_read", "DAG:a"]}
    ] == told["unasked"]
    assert 'database "gone" does not exist' in gone.stderr
    assert 2 == wrong.returncode
    assert "was never tested with Airflow 2.12.0" in wrong.stdout


@on_airflow(*SUPPORTED)
def test_check_reports_the_airflow_version_and_whether_it_needs_the_sidecar(
    airflow: Airflow, postgres: Postgres, database: Database, tmp_path: Path
) -> None:
    """
    What the user's classes write then is undone; diff works with a login that only
    reads, and takes no role that Airflow defines for one that is left.
    """
    for role in ("team", "Boss", "Night"):
        add_role(database, role)
    airflow.write_dags(
        database, tmp_path, {"ruled": {"Viewer": ["can_edit"]}, "free": None}
    )
    database.query(
        "DROP ROLE IF EXISTS reader;"
        f"CREATE ROLE reader LOGIN IN ROLE pg_read_all_data PASSWORD '{PASSWORD}'"
    )
    before = contents(database)

    done = run_command(
        "check", airflow, database.url, tmp_path, with_config(tmp_path, WRITING)
    )
    (tmp_path / "roles.yaml").write_text("roles: {new: {from: [Viewer]}}")
    file = with_config(tmp_path, "AUTH_ROLE_ADMIN = 'Boss'")
    file["SYNC_PERM_ROLES"] = f"{tmp_path}/roles.yaml"
    file["AIRFLOW__FAB__CUSTOM_ROLES"] = '{"Night": []}'
    told = run_command(
        "diff", airflow, postgres.url(database.name, "reader"), tmp_path, file
    )

    assert 0 == done.returncode, done.stdout
    assert "+ file_role: new: the role itself" in told.stdout, told.stderr
    assert "~ team: the role itself: from a person, or an earlier " in told.stdout
    assert 1 == told.stdout.count("~ ")
    assert PASSWORD not in done.stdout + done.stderr
    assert {"2.11": "2.11.2", "3.2": "3.2.2", "3": "3.3.2"}[
        airflow.version
    ] in done.stdout
    needed = "for roles only: 3 custom roles"
    if not airflow.is_3:  # which applies it at each parse
        needed = "yes: 1 DAGs have an access_control that Airflow does not restore"
    assert f"needed?        {needed}" in done.stdout
    others = "Airflow applies" if airflow.is_3 else "nobody else does"
    assert f"; at each parse, {others}" in done.stdout
    assert before == contents(database)
    assert " cli: " not in done.stdout, "its FAB provider has what is called"


@pytest.mark.usefixtures("only_in_full")
@on_airflow(*SUPPORTED)
def test_check_of_a_database_that_was_never_synced_blames_nothing_that_the_first_pass_creates(
    airflow: Airflow,
    postgres: Postgres,
    home: Path,
    tmp_path: Path,
    start: StartSyncPerm,
) -> None:
    database = airflow.new_postgres(postgres, home, "migrated")
    airflow.write_dags(
        database, home, {"a": {"Viewer": ["can_edit"], "team": ["can_read"]}}
    )
    file = tmp_path / "roles.yaml"
    file.write_text("roles: {team: {permissions: [can_read on Connections]}}")
    settings = {"SYNC_PERM_ROLES": str(file), "SYNC_PERM_INCLUDE_DAGS": "true"}

    for command, code in (("check", 0), ("diff", 4)):
        done = run_command(command, airflow, database.url, tmp_path, settings)
        assert code == done.returncode, done.stdout + done.stderr
        assert "Airflow has not written its roles here yet" in done.stdout
        assert "not exist" not in done.stdout
    daemon = start(database, settings).until_good()

    assert [] == daemon.find_events("roles_file_refused")
    assert "Viewer" not in str(daemon.find_events("dag_failed"))
    assert {("Viewer", "can_edit"), ("team", "can_read")} == grants_on(
        database, "DAG:a"
    )
    assert ("team", "can_read") in grants_on(database, "Connections")
