"""
Airflow that is gone, hangs, dies or fails: each its own reason, no storm, nothing left behind.
"""

import os
import signal
from pathlib import Path

import pytest

from tests.scenarios.sync_perm.conftest import StartSyncPerm
from tests.support.airflow import Airflow
from tests.support.databases import PASSWORD, Database
from tests.support.permissions import add_role, grants_on
from tests.support.scripts import script
from tests.support.sync_perm import (
    PASS_SECONDS,
    SyncPerm,
    command_line,
    cpu_seconds,
    is_alive,
    signal_all,
)
from tests.support.waiting import wait_until

CLI = {"SYNC_PERM_TARGETED": "false"}


@pytest.fixture
def unsynced(airflow: Airflow, database: Database) -> Database:
    """A database in which a role lacks what every role has."""
    add_role(database, "team")
    return database


def is_synced(database: Database) -> bool:
    return ("team", "can_read") in grants_on(database, "Website")


def fake_airflow(airflow: Airflow, folder: Path, body: str) -> dict[str, str | None]:
    """Return settings for an `airflow` command that is run by Airflow's Python and does as told."""
    folder.mkdir(parents=True, exist_ok=True)
    return {**CLI, "SYNC_PERM_AIRFLOW": script(folder / "airflow", body, f"{airflow.bin}/python")}


def wait_for_child(daemon: SyncPerm) -> list[int]:
    """Wait until the pass has a process, and return it with its children."""
    daemon.wait_for_event("pass_started", PASS_SECONDS)
    children = wait_until(daemon.children, "its process", PASS_SECONDS)
    wait_until(lambda: cpu_seconds(children[0]) > 0.2, "it imports Airflow", PASS_SECONDS)
    return children


def assert_one_line_each(daemon: SyncPerm, reason: str) -> None:
    """A short failure with advice, no traceback, and not more passes than the backoff allows."""
    failed = daemon.wait_for_event("cycle_failed", PASS_SECONDS, reason=reason)

    assert failed["advice"]
    assert len(failed["error"]) < 1_000
    assert "Traceback" not in failed["error"]
    assert [] == daemon.stray_lines
    assert len(daemon.find_events("pass_started")) <= 2
    assert 200 == daemon.get("/healthz").status


def test_cli_that_fails_is_quoted_without_the_password(
    airflow: Airflow, unsynced: Database, tmp_path: Path, start: StartSyncPerm
) -> None:
    body = f"""
import sys
print("connecting to", "{unsynced.url}")
for line in range(500):
    print("Traceback line", line, "{PASSWORD}", file=sys.stderr)
sys.exit("sqlalchemy.exc.OperationalError: {unsynced.url} is unwell")
"""
    settings = fake_airflow(airflow, tmp_path / "fake", body)

    daemon = start(unsynced, settings)

    assert_one_line_each(daemon, "pass_failed")
    assert "is unwell" in daemon.status()["last_error"]["error"]
    shown = daemon.log() + str(daemon.status()) + daemon.get("/").body + daemon.get("/metrics").body
    assert PASSWORD not in shown + str(daemon.events)


def test_cli_that_hangs_is_killed_with_all_its_children(
    airflow: Airflow, unsynced: Database, tmp_path: Path, start: StartSyncPerm
) -> None:
    body = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
time.sleep(3600)
"""
    settings = fake_airflow(airflow, tmp_path / "fake", body)

    daemon = start(unsynced, {**settings, "SYNC_PERM_TIMEOUT": "4s"})
    daemon.wait_for_event("pass_started", PASS_SECONDS)
    wait_until(lambda: len(daemon.children()) >= 2, "it has forked", PASS_SECONDS)
    children = daemon.children()

    assert_one_line_each(daemon, "pass_timeout")
    wait_until(lambda: not any(map(is_alive, children)), "all of them are gone")


def test_pass_that_is_killed_and_whose_arguments_show_no_password(
    airflow: Airflow, unsynced: Database, start: StartSyncPerm
) -> None:
    daemon = start(unsynced)
    children = wait_for_child(daemon)
    lines = [command_line(pid) for pid in (os.getpid(), daemon.pid, *children)]
    signal_all(children, signal.SIGKILL)

    assert not any(PASSWORD in line for line in lines)
    assert_one_line_each(daemon, "pass_killed")
    wait_until(lambda: is_synced(unsynced), "synced by a later pass", PASS_SECONDS)
    daemon.wait_until_good()
    shown = [daemon.get(path).body for path in ("/", "/status", "/metrics", "/readyz")]
    assert not any(PASSWORD in text for text in [*shown, str(daemon.events)])


def test_pass_ends_when_its_lock_is_lost(
    airflow: Airflow, unsynced: Database, start: StartSyncPerm
) -> None:
    daemon = start(unsynced)
    children = wait_for_child(daemon)
    signal_all(children, signal.SIGSTOP)  # the pass takes as long as the test needs
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


@pytest.mark.usefixtures("only_in_full")
def test_a_node_that_is_gone_does_not_keep_the_lock(
    airflow: Airflow, unsynced: Database, start: StartSyncPerm
) -> None:
    gone = start(unsynced)
    children = wait_for_child(gone)
    frozen = [gone.pid, *children]
    signal_all(frozen, signal.SIGSTOP)  # its connections stay, and nothing comes on them
    other = start(unsynced)
    other.wait_for_event("lock_waiting", PASS_SECONDS)

    other.wait_for_event("pass_started", PASS_SECONDS)
    other.wait_until_good()
    signal_all(frozen, signal.SIGCONT)

    assert is_synced(unsynced)
    gone.wait_for_event("cycle_failed", PASS_SECONDS, reason="lock_lost")
    wait_until(lambda: not any(map(is_alive, children)), "its pass is gone, too")


def test_sigterm_ends_a_pass_at_once(
    airflow: Airflow, unsynced: Database, start: StartSyncPerm
) -> None:
    daemon = start(unsynced)
    children = wait_for_child(daemon)
    signal_all(children, signal.SIGSTOP)  # a pass that is waited for never ends

    assert 0 == daemon.terminate().code
    assert not any(map(is_alive, children))


def test_pass_does_not_outlive_a_supervisor_that_is_killed(
    airflow: Airflow, unsynced: Database, start: StartSyncPerm
) -> None:
    daemon = start(unsynced)
    children = wait_for_child(daemon)
    signal_all(children, signal.SIGSTOP)

    daemon.kill()

    wait_until(lambda: not any(map(is_alive, children)), "the pass is gone, too")


@pytest.mark.usefixtures("only_in_full")
@pytest.mark.parametrize("settings", [{}, CLI], ids=["script", "cli"])
def test_what_airflow_says_comes_as_json_lines(
    airflow: Airflow, unsynced: Database, start: StartSyncPerm, settings: dict[str, str]
) -> None:
    daemon = start(unsynced, settings)
    wait_until(lambda: is_synced(unsynced), "synced", PASS_SECONDS)
    daemon.wait_until_good()
    daemon.terminate()

    assert [] == daemon.stray_lines
    assert [] == list(daemon.scratch.iterdir())
