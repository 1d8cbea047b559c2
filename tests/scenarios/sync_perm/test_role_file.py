"""Roles as code beside a real Airflow: the permissions of the file exist; nothing else changes."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.scenarios.sync_perm.conftest import StartSyncPerm, on_airflow
from tests.scenarios.sync_perm.test_grants import _tuples_written
from tests.scenarios.sync_perm.test_pairs import overlapping
from tests.support.airflow.databases import Database, MariaDb, Postgres
from tests.support.airflow.installed import Airflow
from tests.support.airflow.permissions import (
    Contents,
    Metadata,
    add_role,
    contents,
    difference,
    grant,
    grants_on,
    null_rows,
    revoke,
)
from tests.support.airflow.sync_perm import PASS_SECONDS, run_command
from tests.support.waiting import wait_until

FILE = """\
roles:
  reader:
    permissions: [can_read on Connections]
    dags:
      - {tag: public, permissions: [can_read]}
  team-a:
    from: [reader, Viewer]
    dags:
      - folder: team-a/**
        permissions: [can_read, can_edit, can_create on DAG Runs]
      - {id: ruled, permissions: [can_edit]}
"""
# Each DAG's file and tags; `ruled` has its own access control.
PLACES = {
    "a1": ("team-a/one.py",),
    "a2": ("team-a/deep/two.py", "public"),
    "b1": ("team-b/one.py", "public"),
    "b2": ("team-ab/two.py",),
    "ruled": ("team-a/ruled.py", "public"),
}
DAGS: dict[str, Mapping[str, list[str]] | None] = dict.fromkeys(PLACES)
DAGS["ruled"] = {"team-a": ["can_read"]}
WANTED = {
    "Connections": {("reader", "can_read"), ("team-a", "can_read")},
    "Website": {("reader", "can_read"), ("team-a", "can_read")},
    "DAG:a1": {("team-a", "can_read"), ("team-a", "can_edit")},
    "DAG Run:a1": {("team-a", "can_create")},
    "DAG:a2": {("team-a", "can_read"), ("team-a", "can_edit"), ("reader", "can_read")},
    "DAG:b1": {("team-a", "can_read"), ("reader", "can_read")},
    "DAG:b2": set(),
    "DAG:ruled": {("team-a", "can_read")},  # its access control
}


def ours(database: Metadata, resource: str) -> set[tuple[str, str]]:
    """Return the grants of the file's roles on a resource."""
    return {row for row in grants_on(database, resource) if row[0] in ("reader", "team-a")}


def given(database: Metadata) -> dict[str, set[tuple[str, str]]]:
    return {resource: ours(database, resource) for resource in WANTED}


def write(file: Path, text: str) -> None:
    """Replace the file in one step, as the kubelet updates a ConfigMap."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "roles.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def template(
    airflow: Airflow, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """A database with parsed DAGs; the parser could not grant anything to missing roles."""
    home = tmp_path_factory.mktemp("home")
    made = airflow.new_postgres(postgres, home)
    add_role(made, "team-a")
    airflow.write_dags(made, home, DAGS, parsed=True, places=PLACES)
    yield made
    postgres.drop(made)


@pytest.fixture
def filled(template: Database, postgres: Postgres) -> Iterator[Database]:
    """A copy of the template."""
    copy = postgres.new_database(template.name)
    yield copy
    postgres.drop(copy)


@pytest.mark.usefixtures("only_in_full")
@on_airflow("2.11", "3")
def test_grants_the_permissions_of_the_file_and_restores_lost_ones(
    airflow: Airflow, filled: Database, home: Path, file: Path, start: StartSyncPerm
) -> None:
    settings = {"SYNC_PERM_ROLES": str(file)}
    daemon = start(filled, settings)
    wait_until(lambda: given(filled) == WANTED, "what the file names is there", PASS_SECONDS)
    daemon.wait_until_good()

    assert given(filled) == WANTED
    grants = contents(filled)["grants"]
    viewers = {row[1:] for row in grants if row[0] == "Viewer"}
    assert viewers <= {row[1:] for row in grants if row[0] == "team-a"}
    whole, written = contents(filled), _tuples_written(filled)
    daemon.terminate()

    again = start(filled, settings).until_good()
    assert written == _tuples_written(filled)

    # A grant that was removed in the UI is restored; an added one is kept.
    revoke(filled, "reader", "can_read", "DAG:b1")
    grant(filled, "reader", "can_edit", "DAG:b2")
    again.wait_for_event("roles_file_differs", PASS_SECONDS, differences=1)
    wait_until(lambda: ours(filled, "DAG:b1") == WANTED["DAG:b1"], "it is back", PASS_SECONDS)
    assert ["grants: too much ('reader', 'can_edit', 'DAG:b2')"] == difference(
        contents(filled), whole
    )

    # A new DAG in the team's folder.
    airflow.write_dags(filled, home, {"a3": None}, parsed=True, places={"a3": ("team-a/3.py",)})
    wait_until(lambda: ours(filled, "DAG:a3") == WANTED["DAG:a1"], "granted", PASS_SECONDS)


@pytest.mark.usefixtures("only_in_full")
@on_airflow("2.11", "3")
def test_diff_predicts_the_changes_of_the_daemon_and_writes_nothing(
    airflow: Airflow, filled: Database, home: Path, file: Path, tmp_path: Path, start: StartSyncPerm
) -> None:
    before, written = contents(filled), _tuples_written(filled)
    settings = {"SYNC_PERM_ROLES": str(file)}

    told = run_command("diff", airflow, filled.url, tmp_path, settings)

    assert 4 == told.returncode, told.stderr
    assert (before, written) == (contents(filled), _tuples_written(filled))
    start(filled, settings).until_good()
    now: Contents = contents(filled)
    lines = told.stdout.splitlines()
    promised = {line.split(": ", 1)[1] for line in lines if "_grant: " in line}
    added = {f"{role}: {action} on {name}" for role, action, name in now["grants"]}
    assert promised == added - {f"{r}: {a} on {n}" for r, a, n in before["grants"]}
    assert "+ file_role: reader: the role itself" in lines
    after = run_command("diff", airflow, filled.url, tmp_path, settings)

    assert (0, "nothing differs") == (after.returncode, after.stdout.strip()), after.stderr


@pytest.mark.usefixtures("only_in_full")
def test_check_reports_an_invalid_roles_file(
    airflow: Airflow, filled: Database, file: Path, tmp_path: Path
) -> None:
    file.write_text(FILE.replace("on Connections", "on Konnections"))

    settings = {"SYNC_PERM_ROLES": str(file)}
    checked = run_command("check", airflow, filled.url, tmp_path, settings)

    assert 3 == checked.returncode
    assert f"FAIL  roles file     roles_file_invalid: {file}:3: " in checked.stdout


@pytest.mark.usefixtures("only_in_full")
@on_airflow("2.11", "3")
def test_two_sidecars_together_grant_the_same_as_one(
    airflow: Airflow, filled: Database, file: Path, start: StartSyncPerm
) -> None:
    supervisors = [start(filled, {"SYNC_PERM_ROLES": str(file)}) for _ in range(2)]

    for supervisor in supervisors:
        supervisor.wait_until_good(2 * PASS_SECONDS)

    rows = contents(filled)["grants"]
    assert given(filled) == WANTED
    assert len(set(rows)) == len(rows)
    assert ([], 0) == (overlapping(supervisors), null_rows(filled))


@pytest.mark.usefixtures("only_in_full")
def test_mariadb_role_names_match_by_its_collation(
    airflow: Airflow, mariadb: MariaDb, home: Path, file: Path, start: StartSyncPerm
) -> None:
    database = mariadb.new_database()
    airflow.run(database, home, "airflow", "db", "migrate")
    ruled = {"team-a": ["can_read"], "TEAM-A": ["can_edit"]}
    airflow.write_dags(database, home, DAGS | {"ruled": ruled}, parsed=True, places=PLACES)
    add_role(database, "Team-Á")
    daemon = start(database, {"SYNC_PERM_ROLES": str(file)})

    daemon.wait_until_good(2 * PASS_SECONDS)

    assert {("Team-Á", "can_create")} == grants_on(database, "DAG Run:a1")
    assert {("Team-Á", "can_read"), ("Team-Á", "can_edit")} == grants_on(database, "DAG:ruled")
    assert not daemon.status()["details"].get("failing_dags")
    assert ("team-a",) not in contents(database)["roles"]
    whole = contents(database)
    write(file, "roles:\n  Ádmin: {permissions: [can_read on Connections]}\n")
    refused = daemon.wait_for_event("roles_file_refused", line=2, key="roles.Ádmin")
    assert "the database treats this name as Admin" == refused["error"]
    assert whole == contents(database)
