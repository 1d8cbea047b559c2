"""
Passes that fail, hang or are killed: each has its own reason and leaves no process
behind.
"""

import math
import os
import re
import shutil
import signal
from pathlib import Path
from socket import gethostname

import pytest

from tests.scenarios.sync_perm.conftest import StartSyncPerm
from tests.scenarios.sync_perm.standin import (
    FOREVER,
    WEBSITE,
    StandIn,
    add_differing_dag,
    wait_until_synced,
)
from tests.support.airflow.databases import PASSWORD, Database
from tests.support.airflow.permissions import add_role, revoke
from tests.support.airflow.sync_perm import (
    PASS_SECONDS,
    SyncPerm,
    command_line,
    is_alive,
    run_command,
    signal_all,
)
from tests.support.machine.volumes import small_volume
from tests.support.waiting import wait_until


def wait_for_child(daemon: SyncPerm) -> list[int]:
    """
    Wait until the FOREVER script of the pass sleeps; return its process and its
    children.
    """
    daemon.wait_for_event("pass_started", PASS_SECONDS)
    children = wait_until(daemon.children, "its process", PASS_SECONDS)
    wait_until(
        lambda: command_line(children[0]).endswith("asleep"), "it runs", PASS_SECONDS
    )
    return children


def assert_one_line_each(daemon: SyncPerm, reason: str) -> None:
    """
    Check for one short failure with advice, and no more passes than the backoff allows.
    """
    failed = daemon.wait_for_event("cycle_failed", PASS_SECONDS, reason=reason)

    assert failed["advice"]
    assert len(failed["error"]) < 1_000
    assert "Traceback" not in failed["error"]
    assert [] == daemon.stray_lines
    assert len(daemon.find_events("pass_started")) <= 2
    assert 200 == daemon.get("/healthz").status


def test_masks_secrets_in_the_errors_of_a_pass(
    standin: StandIn, unsynced: Database, begin: StartSyncPerm
) -> None:
    """The database's password is masked in the last line and in the many before it."""
    broker = "r3dis-p4ss"
    key = "f3rnet-k3y"
    body = f"""
import os, sys
print("connecting to", "{unsynced.url}")
for line in range(500):
    print("Traceback line", line, "{PASSWORD}", file=sys.stderr)
url, key = os.environ["AIRFLOW__CELERY__BROKER_URL"], os.environ["AIRFLOW__CORE__FERNET_KEY"]
sys.exit(f"kombu.exceptions.OperationalError: {{url}} does not take {{key}} of {unsynced.url}")
"""
    standin.site.write(body)

    given = {
        "AIRFLOW__CELERY__BROKER_URL": f"redis://:{broker}@redis:6379/0",
        "AIRFLOW__CORE__FERNET_KEY": key,
        "SYNC_PERM_LOG_LEVEL": "debug",
    }
    daemon = begin(unsynced, given)

    assert_one_line_each(daemon, "pass_failed")
    assert len(daemon.find_events("airflow_said")) > 500
    error = daemon.status()["error"]
    hidden = unsynced.url.replace(PASSWORD, "***")
    assert f"redis://:***@redis:6379/0 does not take *** of {hidden}" in error
    shown = [daemon.get(path).body for path in ("/", "/status", "/metrics", "/readyz")]
    shown += [daemon.log(), str(daemon.events)]
    assert not any(
        secret in text for secret in (broker, key, PASSWORD) for text in shown
    )


def test_reports_a_killed_pass_and_shows_no_password_in_its_arguments(
    standin: StandIn, unsynced: Database, begin: StartSyncPerm
) -> None:
    standin.site.write(FOREVER)
    daemon = begin(unsynced, {"SYNC_PERM_MAX_FAILURES": "2"})
    children = wait_for_child(daemon)
    lines = [command_line(pid) for pid in (os.getpid(), daemon.pid, *children)]
    standin.site.write(WEBSITE)
    signal_all(children, signal.SIGKILL)

    assert not any(PASSWORD in line for line in lines)
    assert_one_line_each(daemon, "pass_killed")
    wait_until_synced(unsynced)
    daemon.wait_until_good()
    failures = daemon.sample("sidecar_failures_total", reason="pass_killed")
    assert 1.0 == failures, "the pause after a pass is no failure"


def test_a_pass_that_takes_too_long_is_ended_and_named(
    standin: StandIn, unsynced: Database, begin: StartSyncPerm
) -> None:
    standin.site.write(FOREVER)
    daemon = begin(unsynced, {"SYNC_PERM_TIMEOUT": "10s"})
    daemon.wait_for(lambda: daemon.reason() == "roles_unsynced", "what is lacking")

    assert_one_line_each(daemon, "pass_timeout")


def test_a_pass_whose_folder_cannot_be_written_says_so(
    unsynced: Database, begin: StartSyncPerm
) -> None:
    daemon = begin(unsynced).until_good()
    (folder,) = daemon.scratch.glob("sync-perm-*")
    shutil.rmtree(folder)
    add_role(unsynced, "late")

    failed = daemon.wait_for_event("cycle_failed", PASS_SECONDS, reason="tmpdir_failed")
    assert f"cannot write to {folder}: No such file" in failed["error"]


def test_a_start_without_space_in_tmpdir_says_so(
    unsynced: Database, begin: StartSyncPerm, tmp_path: Path
) -> None:
    with small_volume(tmp_path / "full", "4k,nr_inodes=1") as full:
        daemon = begin(unsynced, {"TMPDIR": str(full)})
        told = daemon.wait_for_event("sidecar_gave_up", reason="tmpdir_failed")

    assert f"cannot write to {full}: No space left on device" == told["error"]
    assert 3 == daemon.wait_for_exit(PASS_SECONDS).code


def test_rows_that_another_process_undoes_are_named_and_not_fought_over(
    unsynced: Database, begin: StartSyncPerm
) -> None:
    daemon = begin(unsynced)
    for _ in range(2):
        daemon.wait_until_judged()
        revoke(unsynced, "team", "can_read", "Website")
        wait_until_synced(unsynced)

    undone = daemon.wait_for_event("rows_undone", PASS_SECONDS)

    assert "Website" in str(undone["rows"])
    assert 10 == undone["seconds"]
    wait_until(
        lambda: "another process undoes what is written" in daemon.log(),
        "why nothing happens",
        PASS_SECONDS,
    )


def test_a_pass_ends_when_it_loses_its_lock(
    standin: StandIn, unsynced: Database, begin: StartSyncPerm
) -> None:
    standin.site.write(FOREVER)
    daemon = begin(unsynced)
    children = wait_for_child(daemon)
    holders = unsynced.query(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = %s)",
        (unsynced.name,),
    )
    for (holder,) in holders:
        unsynced.query("SELECT pg_terminate_backend(%s)", (holder,))

    assert_one_line_each(daemon, "lock_lost")
    wait_until(lambda: not any(map(is_alive, children)), "the pass is gone")
    assert 1 == len(holders)


def test_a_second_sidecar_starts_no_pass_while_one_runs_and_says_which(
    standin: StandIn, unsynced: Database, begin: StartSyncPerm, tmp_path: Path
) -> None:
    standin.site.write(FOREVER)
    children = wait_for_child(begin(unsynced))
    standin.site.write(WEBSITE)
    second = begin(unsynced)

    told = second.wait_for_event("wait_began", PASS_SECONDS, reason="target_locked")
    checked = run_command("check", standin, unsynced.url, tmp_path)

    holder = (
        rf"sync-perm@{gethostname()} \(127.0.0.1, backend \d+, since [\d-]+ [\d:+]+\)"
    )
    assert re.match(holder, told["error"])
    assert "pg_terminate_backend" in told["advice"]
    assert re.search(rf"\?\? +lock +{holder} holds it", checked.stdout)
    assert [] == second.find_events("pass_started")
    signal_all(children, signal.SIGKILL)
    second.wait_until_good()


def test_metrics_tell_what_differs_and_when_nothing_did_last(
    standin: StandIn, unsynced: Database, begin: StartSyncPerm
) -> None:
    standin.site.write(FOREVER)
    add_differing_dag(unsynced)
    daemon = begin(unsynced, {"SYNC_PERM_INCLUDE_DAGS": "true"})
    children = wait_for_child(daemon)

    def differing() -> list[float]:
        kinds = ("dag_permission", "dag_grant", "dag_revoke")
        found = [daemon.sample("sync_perm_differences", kind=kind) for kind in kinds]
        return [*found, daemon.sample("sync_perm_pending_dags")]

    def known_good() -> float:
        return daemon.sample("sync_perm_known_good_timestamp_seconds")

    assert [6.0, 1.0, 1.0, 1.0] == differing()
    assert 0.0 == known_good()
    missing = "Airflow has not synced its roles yet; 7 of 8 rows are missing"
    missing += "; 1 grants are too many"
    assert missing == daemon.get("/readyz").json()["problem"]
    unsynced.query("DELETE FROM serialized_dag")
    standin.site.write(WEBSITE)
    signal_all(children, signal.SIGKILL)
    daemon.wait_until_good()
    assert [0.0, 0.0, 0.0, 0.0] == differing()
    assert 1.0 == daemon.sample(
        "sync_perm_passes_total", reason="start", result="error"
    )
    wait_until(daemon.quiet_polls, "no pass is due")
    first = known_good()
    wait_until(lambda: known_good() > first, "a poll finds nothing")

    # Another hand creates a role, and Airflow does not answer.
    standin.site.write(FOREVER)
    add_role(unsynced, "late")
    wait_until(daemon.children, "a pass", PASS_SECONDS)
    last = known_good()
    answer = daemon.get("/readyz")
    assert 200 == answer.status, answer.body
    assert answer.json()["published_seconds_ago"], "when it was last found correct"
    told = "roles or grants changed after the last pass: Airflow has yet to judge them"
    assert told == answer.json()["shortfall"]
    assert last == known_good()


def test_three_failed_tries_and_no_poll_between_them_reach_the_limit(
    standin: StandIn, unsynced: Database, begin: StartSyncPerm
) -> None:
    standin.site.write("import sys; sys.exit('no')")
    daemon = begin(unsynced, {"SYNC_PERM_MAX_FAILURES": "3"})
    failed = daemon.wait_for_event("cycle_failed", PASS_SECONDS)
    for _ in range(2):
        seen = len(daemon.events)
        daemon.sighup()  # instead of the wait for the retry
        daemon.wait_for_event("cycle_failed", PASS_SECONDS, seen)

    assert 3 == daemon.wait_for_exit(PASS_SECONDS).code
    assert 10 == math.ceil(failed["retry_in_seconds"]), "the whole pause"
    assert 3 == len(daemon.find_events("pass_started"))


@pytest.mark.parametrize("is_killed", [False, True], ids=["SIGTERM", "SIGKILL"])
def test_a_pass_ends_with_its_supervisor(
    standin: StandIn, unsynced: Database, begin: StartSyncPerm, is_killed: bool
) -> None:
    standin.site.write(FOREVER)
    daemon = begin(unsynced)
    children = wait_for_child(daemon)

    if is_killed:
        daemon.kill()
        wait_until(lambda: not any(map(is_alive, children)), "the pass is gone, too")
    else:
        assert 0 == daemon.terminate().code
        assert not any(map(is_alive, children)), "at once"
