"""
``make demo-airflow``: sync-perm at work beside a real Airflow 2.11, on a database of its own.

Exit 0 when every promise held, else 1.
"""

from __future__ import annotations

import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo import console
from demo.console import Row, say
from tests.support.airflow import Airflow, AirflowIsMissing
from tests.support.databases import Database, Postgres, missing_programs
from tests.support.permissions import (
    Metadata,
    add_role,
    grant,
    grants_on,
    log_rows,
    revoke,
)
from tests.support.sync_perm import SyncPerm, cpu_seconds
from tests.support.waiting import wait_until

SECONDS = 120.0
INTERVAL_SECONDS = 1.0
DAGS = {
    "sales_daily": {"team_sales": ["can_read", "can_edit"]},
    "stock_hourly": {"Viewer": ["can_edit"]},
    "db_cleanup": None,
}


@dataclass
class Stage:
    """
    What the steps act on.
    """

    airflow: Airflow
    database: Metadata
    server: Postgres | None
    home: Path
    daemon: SyncPerm


def loop_does_not_help(stage: Stage) -> str:
    """
    What the shell loop runs every minute, once, after the role was created.
    """
    stage.airflow.write_dags(stage.database, stage.home, DAGS, parsed=True)
    add_role(stage.database, "team_sales")
    say("two DAGs with access_control are parsed; then somebody creates the role team_sales")
    before, rows = resource.getrusage(resource.RUSAGE_CHILDREN), log_rows(stage.database)
    stage.airflow.run(stage.database, stage.home, "airflow", "sync-perm")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert set() == grants_on(stage.database, "DAG:sales_daily"), "it has changed in Airflow"
    return (
        f"airflow sync-perm: {cpu:.1f} s of CPU, {log_rows(stage.database) - rows} row in the"
        " audit log, and team_sales still may not read sales_daily"
    )


def sidecar_grants_it(stage: Stage) -> str:
    """
    The start of the sidecar: it finds the difference and mends it.
    """
    rows = log_rows(stage.database)
    stage.daemon.start()
    stage.daemon.wait_until_good(SECONDS)
    granted = sorted(action for _, action in grants_on(stage.database, "DAG:sales_daily"))
    assert ["can_edit", "can_read"] == granted
    assert rows == log_rows(stage.database)
    return f"team_sales may {' and '.join(granted)} sales_daily; no row in the audit log"


def late_role(stage: Stage) -> str:
    """
    A DAG whose role comes later.
    """
    dags = {"churn": {"team_science": ["can_read"]}, "inventory": {"Op": ["can_delete"]}}
    stage.airflow.write_dags(stage.database, stage.home, dags)
    failed = stage.daemon.wait_for_event("dag_failed", SECONDS, dag="churn")
    wait_until(lambda: grants_on(stage.database, "DAG:inventory"), "the other DAG", SECONDS)
    say(f"dag_failed: churn, {failed['reason']}; inventory is synced all the same")
    add_role(stage.database, "team_science")
    began = time.monotonic()
    wait_until(lambda: grants_on(stage.database, "DAG:churn"), "granted", SECONDS)
    return f"granted {time.monotonic() - began:.1f} s after the role was created"


def edits_by_hand(stage: Stage) -> str:
    """
    A grant is removed where access_control asks for it, one is added where nothing is asked.
    """
    add_role(stage.database, "auditors")
    grant(stage.database, "auditors", "can_read", "DAG:db_cleanup")
    revoke(stage.database, "Viewer", "can_edit", "DAG:stock_hourly")
    wait_until(lambda: grants_on(stage.database, "DAG:stock_hourly"), "it is back", SECONDS)
    assert {("auditors", "can_read")} == grants_on(stage.database, "DAG:db_cleanup")
    return "the removed grant came back; the one on a DAG without access_control stays"


def quiet(stage: Stage) -> str:
    """
    Nothing changes.
    """

    stage.daemon.wait_until_good(SECONDS)
    rows, first, before = (
        log_rows(stage.database),
        stage.daemon.quiet_polls(),
        cpu_seconds(stage.daemon.pid),
    )
    wait_until(
        lambda: stage.daemon.quiet_polls() >= first + 10, "ten polls", SECONDS, step_seconds=11
    )
    cpu = (cpu_seconds(stage.daemon.pid) - before) / (stage.daemon.quiet_polls() - first)
    assert rows == log_rows(stage.database)
    return (
        f"{cpu * 1000:.1f} ms of CPU a poll, {stage.daemon.rss_mib():.0f} MiB, nothing written,"
        " no Airflow started"
    )


def outage(stage: Stage) -> str:
    """
    The database goes away and comes back.
    """
    if stage.server is None:
        return "left out: SQLite has no server"
    stage.server.stop()
    failed = stage.daemon.wait_for_event("cycle_failed", SECONDS, reason="database_unreachable")
    say(f"cycle_failed: {failed['reason']}; /readyz {stage.daemon.get('/readyz').status}")
    stage.server.start()
    wait_until(lambda: stage.daemon.status()["last_error"] is None, "recovered", SECONDS)
    return "one line a failure, no traceback, and back by itself"


def end(stage: Stage) -> str:
    """
    SIGTERM.
    """
    ended = stage.daemon.terminate()
    assert (0, True) == (ended.code, ended.seconds < 2)
    return f"exit 0 after {ended.seconds * 1000:.0f} ms"


STEPS: tuple[tuple[str, Callable[[Stage], str]], ...] = (
    ("what the shell loop does", loop_does_not_help),
    ("the sidecar starts", sidecar_grants_it),
    ("a role comes after its DAG", late_role),
    ("somebody edits grants", edits_by_hand),
    ("nothing changes", quiet),
    ("the database goes away", outage),
    ("SIGTERM", end),
)


@contextmanager
def metadata(airflow: Airflow, home: Path) -> Iterator[tuple[Metadata, Postgres | None]]:
    """
    Yield a metadata database: PostgreSQL where the machine has it, else SQLite.
    """
    if missing_programs("postgres", "initdb", "psql", "pg_dump"):
        yield airflow.new_sqlite(home / "metadata.sqlite", home), None
        return
    with Postgres() as server:
        database: Database = airflow.new_postgres(server, home)
        yield database, server


def play(folder: Path) -> int:
    """
    Play all steps and return the exit code.
    """
    console.heading("sync-perm: the real supervisor beside a real Airflow")
    say("installing Airflow 2.11 into .airflow/2.11, where it is not there yet ...")
    try:
        airflow = Airflow.install("2.11")
    except AirflowIsMissing as missing:
        say(str(missing))
        return 1
    rows: list[Row] = []
    began = time.monotonic()
    with metadata(airflow, folder / "home") as (database, server):
        say(f"its metadata database: {database.url.partition(':')[0]}; INTERVAL=1")
        settings = {"INTERVAL": str(INTERVAL_SECONDS), "SYNC_PERM_LOG_LEVEL": "info"}
        daemon = SyncPerm(airflow, database.url, folder / "sidecar", settings)
        stage = Stage(airflow, database, server, folder / "home", daemon)
        try:
            for number, (title, step) in enumerate(STEPS, 1):
                console.heading(f"{number}. {title}")
                started = time.monotonic()
                what = step(stage)
                rows.append(Row(title, what, time.monotonic() - started))
                say(f"-> {what}")
        except AssertionError as failure:
            console.fail(title, str(failure), daemon.log().splitlines())
            return 1
        finally:
            daemon.kill()
    console.table([*rows, Row("everything", "every step checked", time.monotonic() - began)])
    return 0


def main() -> int:
    """
    Play in a temporary folder.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="sync-perm-demo-") as folder:
        try:
            return play(Path(folder))
        except KeyboardInterrupt:
            return 130


if __name__ == "__main__":
    sys.exit(main())
