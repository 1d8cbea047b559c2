"""
Roles as code beside a real Airflow: the permissions of the file exist; nothing else
changes.
"""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.scenarios.sync_perm.conftest import StartSyncPerm, on_airflow
from tests.scenarios.sync_perm.test_grants import _tuples_written
from tests.support.airflow.databases import Database
from tests.support.airflow.installed import Airflow
from tests.support.airflow.permissions import (
    add_role,
    contents,
    difference,
    grant,
    grants_on,
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


def ours(database: Database, resource: str) -> set[tuple[str, str]]:
    """Return the grants of the file's roles on a resource."""
    return {
        row for row in grants_on(database, resource) if row[0] in ("reader", "team-a")
    }


def given(database: Database) -> dict[str, set[tuple[str, str]]]:
    return {resource: ours(database, resource) for resource in WANTED}


@pytest.mark.usefixtures("only_in_full")
@on_airflow("2.11", "3")
def test_diff_predicts_what_the_daemon_grants_and_restores(
    airflow: Airflow, database: Database, tmp_path: Path, start: StartSyncPerm
) -> None:
    file, settings = (
        tmp_path / "roles.yaml",
        {"SYNC_PERM_ROLES": str(tmp_path / "roles.yaml")},
    )
    file.write_text(FILE.replace("on Connections", "on Konnections"))
    add_role(database, "team-a")
    airflow.write_dags(database, tmp_path, DAGS, parsed=True, places=PLACES)
    before, written = contents(database), _tuples_written(database)

    checked = run_command("check", airflow, database.url, tmp_path, settings)
    file.write_text(FILE)
    told = run_command("diff", airflow, database.url, tmp_path, settings)

    assert (before, written) == (contents(database), _tuples_written(database))
    assert 3 == checked.returncode
    assert f"FAIL  roles file     roles_file_invalid: {file}:3: " in checked.stdout
    assert 4 == told.returncode, told.stderr
    daemon = start(database, settings).until_good()
    now = contents(database)
    lines = told.stdout.splitlines()
    promised = {line.split(": ", 1)[1] for line in lines if "_grant: " in line}
    added = {f"{role}: {action} on {name}" for role, action, name in now["grants"]}
    assert promised == added - {f"{r}: {a} on {n}" for r, a, n in before["grants"]}
    assert "+ file_role: reader: the role itself" in lines
    assert given(database) == WANTED
    viewers = {row[1:] for row in now["grants"] if row[0] == "Viewer"}
    assert viewers <= {row[1:] for row in now["grants"] if row[0] == "team-a"}
    after = run_command("diff", airflow, database.url, tmp_path, settings)
    assert (0, "nothing differs") == (after.returncode, after.stdout.strip()), (
        after.stderr
    )

    # A grant that was removed in the UI is restored; an added one is kept.
    revoke(database, "reader", "can_read", "DAG:b1")
    grant(database, "reader", "can_edit", "DAG:b2")
    daemon.wait_for_event("pass_started", PASS_SECONDS, reason="file", file_rows=1)
    wait_until(
        lambda: ours(database, "DAG:b1") == WANTED["DAG:b1"], "it is back", PASS_SECONDS
    )
    assert ["grants: too much ('reader', 'can_edit', 'DAG:b2')"] == difference(
        contents(database), now
    )
    # A new DAG in the team's folder.
    places = {"a3": ("team-a/3.py",)}
    airflow.write_dags(database, tmp_path, {"a3": None}, parsed=True, places=places)
    wait_until(
        lambda: ours(database, "DAG:a3") == WANTED["DAG:a1"], "granted", PASS_SECONDS
    )
