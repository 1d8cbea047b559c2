"""
The purpose of the sidecar: late roles and lost grants; and the rows that it leaves
alone.
"""

import signal
from pathlib import Path

from sync_perm.tables import MOST_BYTES, MOST_OF_ACCESS
from tests.scenarios.sync_perm.conftest import SUPPORTED, StartSyncPerm, on_airflow
from tests.support.airflow.databases import Database
from tests.support.airflow.installed import Airflow
from tests.support.airflow.permissions import (
    add_role,
    contents,
    grant,
    grants_on,
)
from tests.support.airflow.sync_perm import PASS_SECONDS, signal_all
from tests.support.waiting import wait_until

# Serialized DAGs; a large one without access control is generated and harmless, and not
# read.
RULED = '{"dag": {"access_control": {"%s": ["can_edit"]}}}'
LARGE = {
    "generated": '{"dag": {}}'.ljust(MOST_BYTES + 1),
    "large": (RULED % "Op").ljust(MOST_BYTES + 1),
    "long": RULED % ("x" * MOST_OF_ACCESS),
}


def test_a_dag_that_cannot_be_synced_blocks_no_other_and_is_granted_later(
    airflow: Airflow, database: Database, home: Path, start: StartSyncPerm
) -> None:
    dags = {
        "late": {"team_late": ["can_read", "can_edit"]},
        "c_good": {"Viewer": ["can_edit"]},
    }
    dags |= {
        "a_broken": {"nobody_has_it": ["can_read"]},
        "b_odd": {"Viewer": ["can_fly"]},
        "l" * 243: {"Viewer": ["can_edit"]},
    }
    airflow.write_dags(database, home, dags | {dag_id: {} for dag_id in LARGE})
    for dag_id, text in LARGE.items():
        database.query(
            "UPDATE serialized_dag SET data = %s WHERE dag_id = %s", (text, dag_id)
        )
    daemon = start(database)
    daemon.wait_for_event("dag_failed", PASS_SECONDS, dag="late", reason="role_missing")
    daemon.wait_until_good()
    details = daemon.status()["details"]["failing_dags"]
    before = grants_on(database, "DAG:late")

    assert {
        "late": "role_missing",
        "a_broken": "role_missing",
        "b_odd": "access_control_invalid",
        "large": "dag_too_large",
        "long": "dag_too_large",
        "l" * 243: "id_too_long",
    } == {dag: told.partition(":")[0] for dag, told in details.items()}
    assert "nobody_has_it" in details["a_broken"]
    assert details["large"].endswith("has more than 4 MiB in serialized_dag")
    assert details["long"].endswith("its access_control has more than 64 KiB")
    told = "a_broken (role_missing), b_odd (access_control_invalid), large (dag_too_"
    assert f"6 cannot be synced: {told}" in daemon.get("/readyz").body
    assert "a_broken: role_missing" in daemon.get("/").body
    assert 2.0 == daemon.sample("sync_perm_failing_dags", reason="role_missing")
    written = contents(database)
    assert ("can_delete", "DAG:a_broken") in written["permissions"]
    assert ("can_delete", "DAG:generated") in written["permissions"]
    assert ("DAG:large",) not in written["resources"]
    assert grants_on(database, "DAG:c_good")

    seen = len(daemon.events)
    add_role(database, "team_late")
    daemon.wait_for_pass(seen)
    daemon.wait_until_good()

    assert set() == before
    assert {("team_late", "can_read"), ("team_late", "can_edit")} == grants_on(
        database, "DAG:late"
    )
    assert ("team_late", "can_read") in grants_on(database, "Website")
    passes = [
        event for event in daemon.events[seen:] if event["event"] == "pass_finished"
    ]
    assert len(passes) <= 2, "a pass that grants, and one that finds nothing to do"
    wait_until(
        lambda: "late" not in daemon.status()["details"]["failing_dags"],
        "it fails no more",
    )


def test_a_killed_portion_loses_nothing_and_the_next_goes_on(
    airflow: Airflow, database: Database, home: Path, start: StartSyncPerm
) -> None:
    """As after a restore: no DAG has its permissions."""
    airflow.write_dags(
        database, home, {f"dag_{n}": {"Viewer": ["can_edit"]} for n in range(60)}
    )
    daemon = start(database)
    wait_until(
        lambda: "of 480 rows are missing" in daemon.get("/readyz").body,
        "readiness says it",
        60,
    )
    wait_until(
        lambda: grants_on(database, "DAG:dag_0") or daemon.find_events("pass_finished"),
        "the first DAG",
        PASS_SECONDS,
    )

    children = daemon.children()
    assert children, "it works on the other DAGs"
    signal_all(children, signal.SIGKILL)
    killed = daemon.wait_for_pass(result="error")
    assert daemon.sample("sidecar_last_publish_timestamp_seconds"), "rows were written"
    daemon.wait_until_good()

    assert 0 < killed["rows_left"] < killed["rows_wanted"]
    lefts = [event["rows_left"] for event in daemon.find_events("pass_finished")]
    assert lefts == sorted(lefts, reverse=True)
    assert all(grants_on(database, f"DAG:dag_{n}") for n in range(60))


@on_airflow(*SUPPORTED)
def test_writes_nothing_and_starts_no_process_while_nothing_changes(
    airflow: Airflow, database: Database, home: Path, start: StartSyncPerm
) -> None:
    airflow.write_dags(
        database, home, {"a": None, "b": {"Viewer": ["can_edit"]}}, parsed=True
    )
    add_role(database, "team")
    grant(database, "team", "can_read", "Website")
    grant(database, "Viewer", "menu_access", "Admin")  # more than Airflow grants it
    before = contents(database)

    daemon = start(database, {"INTERVAL": "0.1"}).until_good()
    written = _tuples_written(database)
    passes = len(daemon.find_events("pass_started"))
    # The server counts what a connection read a second later.
    wait_until(lambda: daemon.quiet_polls() >= 20, "twenty polls")
    polls = daemon.quiet_polls()
    scans = _scans(database)
    wait_until(lambda: daemon.quiet_polls() >= polls + 50, "fifty polls")
    scans = _scans(database) - scans

    assert scans < 1.5 * (daemon.quiet_polls() - polls), "one small query each"
    assert before == contents(database)
    assert written == _tuples_written(database)
    assert passes == len(daemon.find_events("pass_started"))
    assert [] == daemon.children()


def _scans(database: Database) -> int:
    """
    Count how often the permissions have been read.
    """
    ((scans,),) = database.query(
        "SELECT seq_scan + COALESCE(idx_scan, 0) FROM pg_stat_user_tables"
        " WHERE relname = 'ab_permission_view'"
    )
    return int(scans)


def _tuples_written(database: Database) -> int:
    """Count the rows that have been written to all tables of this database."""
    database.query("SELECT pg_stat_force_next_flush()")
    ((written,),) = database.query(
        "SELECT SUM(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables"
    )
    return int(written)
