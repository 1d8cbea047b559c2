"""
What the sidecar is for: late roles, lost grants; and what it leaves alone.
"""

import time
from pathlib import Path

from tests.scenarios.sync_perm.conftest import StartSyncPerm, on_airflow
from tests.support.airflow import Airflow
from tests.support.databases import Database
from tests.support.permissions import (
    add_null_row,
    add_role,
    contents,
    delete_permission,
    grant,
    grants_on,
    log_rows,
    null_rows,
    revoke,
)
from tests.support.sync_perm import PASS_SECONDS, POLL_SECONDS
from tests.support.waiting import wait_until

GRACE_SECONDS = 5.0
RSS_MIB = 44.0


@on_airflow("2.11", "2.7")
def test_role_that_is_created_after_its_dag_was_parsed_is_granted(
    airflow: Airflow, database: Database, home: Path, start: StartSyncPerm
) -> None:
    dags = {"late": {"team_late": ["can_read", "can_edit"]}, "early": {"Viewer": ["can_edit"]}}
    for _ in range(2):  # the second parse finds nothing new, and says nothing of the role any more
        airflow.write_dags(database, home, dags, parsed=True)
    daemon = start(database)
    failed = daemon.wait_for_event("dag_failed", PASS_SECONDS)
    daemon.wait_until_good()
    before = grants_on(database, "DAG:late")

    add_role(database, "team_late")
    created_at, seen = time.monotonic(), len(daemon.events)
    wait_until(lambda: grants_on(database, "DAG:late") != before, "granted", PASS_SECONDS)
    seconds = time.monotonic() - created_at
    a_pass = daemon.wait_for_pass(seen)

    assert ("late", "role_missing") == (failed["dag"], failed["reason"])
    assert set() == before
    assert {("team_late", "can_read"), ("team_late", "can_edit")} == grants_on(database, "DAG:late")
    assert seconds <= POLL_SECONDS + GRACE_SECONDS + a_pass["duration_seconds"]
    assert ("team_late", "can_read") in grants_on(database, "Website")
    wait_until(lambda: "failing_dags" not in daemon.status()["details"], "none fails any more")


@on_airflow("2.11", "2.7")
def test_dag_that_names_a_missing_role_stops_no_other(
    airflow: Airflow, database: Database, home: Path, start: StartSyncPerm
) -> None:
    broken = {"a_broken": {"nobody_has_it": ["can_read"]}, "b_odd": {"Viewer": ["can_fly"]}}
    airflow.write_dags(database, home, {**broken, "c_good": {"Viewer": ["can_edit"]}})

    daemon = start(database)
    wait_until(lambda: grants_on(database, "DAG:c_good"), "the good one is synced", PASS_SECONDS)
    daemon.wait_until_good()

    details = daemon.status()["details"]
    reasons = {dag: told.partition(":")[0] for dag, told in details["failing_dags"].items()}
    assert {"a_broken": "role_missing", "b_odd": "access_control_invalid"} == reasons
    assert "nobody_has_it" in details["failing_dags"]["a_broken"]
    assert "a_broken: role_missing" in daemon.get("/").body
    assert 1.0 == daemon.sample("sync_perm_failing_dags", reason="role_missing")
    wanted = ("can_delete", "DAG:a_broken")
    assert wanted in contents(database)["permissions"]


def test_what_was_removed_or_left_by_a_race_is_repaired(
    airflow: Airflow, database: Database, home: Path, start: StartSyncPerm
) -> None:
    dags = {f"kept_{number}": {"Viewer": ["can_edit"]} for number in range(30)}
    airflow.write_dags(database, home, dags, parsed=True)
    daemon = start(database)
    daemon.wait_until_good()

    revoke(database, "Viewer", "can_edit", "DAG:kept_1")
    wait_until(lambda: grants_on(database, "DAG:kept_1"), "the grant is back", PASS_SECONDS)
    delete_permission(database, "can_edit", "DAG:kept_2")
    for _ in range(3):
        add_null_row(database)
    wait_until(lambda: grants_on(database, "DAG:kept_2"), "the permission is back", PASS_SECONDS)
    wait_until(lambda: null_rows(database) == 0, "no such row", PASS_SECONDS)

    for dag in ("kept_1", "kept_2"):
        assert {("Viewer", "can_edit")} == grants_on(database, f"DAG:{dag}")
    daemon.wait_until_good()
    assert daemon.rss_mib() <= RSS_MIB


def test_grants_by_hand_stay_where_a_dag_has_no_access_control_and_go_where_it_has(
    airflow: Airflow, database: Database, home: Path, start: StartSyncPerm
) -> None:
    airflow.write_dags(database, home, {"free": None, "ruled": {"Op": ["can_read"]}}, parsed=True)
    add_role(database, "friends")
    for dag_id in ("free", "ruled"):
        grant(database, "friends", "can_edit", f"DAG:{dag_id}")

    daemon = start(database)
    wait_until(
        lambda: ("friends", "can_edit") not in grants_on(database, "DAG:ruled"),
        "revoked as by sync-perm --include-dags",
        PASS_SECONDS,
    )
    seen = len(daemon.events)
    daemon.sighup()
    daemon.wait_for_pass(seen)

    assert {("Op", "can_read")} == grants_on(database, "DAG:ruled")
    assert {("friends", "can_edit")} == grants_on(database, "DAG:free")


@on_airflow("2.11", "3", "2.7")
def test_nothing_is_written_and_nothing_started_while_nothing_changes(
    airflow: Airflow, database: Database, home: Path, start: StartSyncPerm
) -> None:
    airflow.write_dags(database, home, {"a": None, "b": {"Viewer": ["can_edit"]}}, parsed=True)
    add_role(database, "team")
    grant(database, "team", "can_read", "Website")
    before, rows = contents(database), log_rows(database)
    written = _tuples_written(database)

    daemon = start(database, {"INTERVAL": "0.1"})
    daemon.wait_until_good()
    polls = daemon.quiet_polls()
    wait_until(lambda: daemon.quiet_polls() >= polls + 50, "fifty polls", 60)

    assert (before, rows) == (contents(database), log_rows(database))
    assert written == _tuples_written(database)
    assert [] == daemon.find_events("pass_started")
    assert [] == daemon.children()


@on_airflow("2.11", "3")
def test_passes_of_the_script_leave_no_row_in_the_log_table(
    airflow: Airflow, database: Database, start: StartSyncPerm
) -> None:
    daemon = start(database)
    daemon.wait_until_good()
    rows = log_rows(database)

    add_role(database, "team")
    wait_until(lambda: ("team", "can_read") in grants_on(database, "Website"), "it may enter", 90)

    assert rows == log_rows(database)


def _tuples_written(database: Database) -> int:
    """Count what has been written to any of this database's tables."""
    database.query("SELECT pg_stat_force_next_flush()")
    ((written,),) = database.query(
        "SELECT SUM(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables"
    )
    return int(written)
