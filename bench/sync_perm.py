"""
``python -m bench sync-perm [DAGS…]``: an hour of the shell loop, and an hour of the sidecar.

Against one PostgreSQL with Airflow 2.11, in CPU seconds (user and system). An hour is computed,
not waited for: the loop's is what one run costs, once in 60 seconds and its own time; the
sidecar's is what a poll costs (of two hundred), times the polls of an hour at the default
INTERVAL, one reading of all tables, which it does once an hour, and what it costs without any.
What PostgreSQL spends on the sidecar's polls is shown beside it. Passes are measured from the
change to the end of the pass, with the supervisor's own share.
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar_runtime.settings import specs_of
from sync_perm.settings import PREFIX, Settings
from tests.support.airflow import Airflow, copy_postgres
from tests.support.databases import Database, Postgres
from tests.support.permissions import add_role, grant, grants_on
from tests.support.sync_perm import SyncPerm, cpu_seconds
from tests.support.waiting import wait_until

HOUR_SECONDS = 3_600
SLEEP_SECONDS = 60
POLLS = 200
CHANGED = 5
LATE_ROLES = 5
REST_SECONDS = 20.0
FREE = "dag_without_access_control"
SECONDS = 900.0


@dataclass(frozen=True)
class Loop:
    """
    What the shell loop costs; CPU seconds.

    Args:
        plain, with_dags: One run of `airflow sync-perm`, without and with `--include-dags`.
        plain_runs, with_dags_runs: Runs in an hour, as each sleeps 60 s after the one before.
        changed: One run with `--include-dags` when some DAGs changed.
    """

    plain: float
    with_dags: float
    plain_runs: float
    with_dags_runs: float
    changed: float


@dataclass(frozen=True)
class Sidecar:
    """
    What the sidecar costs; CPU seconds, where nothing else is said.

    Args:
        poll, server_poll: One poll, ours and PostgreSQL's.
        polls: Polls in an hour.
        reading: One reading of all tables.
        rest: What an hour costs without any poll.
        changed: From the change of some DAGs to their grants.
        late_role_seconds: From the creation of a role to its grant, each time; wall.
        rss_mib: Memory between passes.
    """

    poll: float
    server_poll: float
    polls: float
    reading: float
    rest: float
    changed: float
    late_role_seconds: Sequence[float]
    rss_mib: float

    @property
    def hour(self) -> float:
        """
        An hour without change.
        """
        return self.poll * self.polls + self.reading + self.rest


def main(arguments: Sequence[str]) -> None:
    """
    Print one table for each number of DAGs.
    """
    airflow = Airflow.install("2.11")
    for dags in [int(argument) for argument in arguments] or [100, 1_000]:
        with tempfile.TemporaryDirectory() as scratch, Postgres() as server:
            folder = Path(scratch)
            database = airflow.new_postgres(server, folder / "home")
            print(f"writing {dags} DAGs and their permissions ...", file=sys.stderr, flush=True)
            fill(airflow, database, folder, dags)
            print("measuring ...", file=sys.stderr, flush=True)
            loop = measure_loop(airflow, server, database, folder)
            sidecar = measure_sidecar(airflow, database, folder)
            show(dags, loop, sidecar)


def dags_named(numbers: Sequence[int], action: str) -> dict[str, dict[str, list[str]]]:
    """
    Return DAGs of which every other one names a role of its own.
    """
    return {f"dag_{n}": {"Viewer": [action]} if n % 2 else {"Op": [action]} for n in numbers}


def fill(airflow: Airflow, database: Database, folder: Path, dags: int) -> None:
    """
    Write so many DAGs and all their permissions.
    """
    wanted = {FREE: None, **dags_named(range(1, dags), "can_edit")}
    airflow.write_dags(database, folder / "home", wanted)
    airflow.full_sync(database, folder / "home")


def change(airflow: Airflow, database: Database, folder: Path) -> None:
    """
    Let some DAGs ask for something else.
    """
    dags = dags_named(range(1, CHANGED + 1), "can_delete")
    airflow.write_dags(database, folder / "home", dags)


def spent_by(deed: Callable[[], object]) -> tuple[float, float]:
    """
    Return CPU seconds of the processes that a deed runs to their end, and its wall seconds.
    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    deed()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.monotonic() - began


def measure_loop(airflow: Airflow, server: Postgres, database: Database, folder: Path) -> Loop:
    """
    Run what the loop runs; the least of three for the plain command.
    """
    home = folder / "home"
    plain = min(
        spent_by(lambda: airflow.run(database, home, "airflow", "sync-perm")) for _ in range(3)
    )
    with_dags = spent_by(lambda: airflow.full_sync(database, home))
    copy = copy_postgres(server, database, folder)
    change(airflow, copy, folder)
    changed = spent_by(lambda: airflow.full_sync(copy, home))
    server.drop(copy)
    return Loop(
        plain[0],
        with_dags[0],
        HOUR_SECONDS / (SLEEP_SECONDS + plain[1]),
        HOUR_SECONDS / (SLEEP_SECONDS + with_dags[1]),
        changed[0],
    )


def measure_sidecar(airflow: Airflow, database: Database, folder: Path) -> Sidecar:
    """
    Run the real supervisor: quiet, with changed DAGs, with roles that come late.
    """
    spec = specs_of(Settings, PREFIX)["interval_seconds"]
    interval: float = spec.parse(spec.default or "")
    quick = {"INTERVAL": "0.1", "SYNC_PERM_LOG_LEVEL": "info"}
    with SyncPerm(airflow, database.url, folder / "quick", quick) as daemon:
        daemon.wait_until_good(SECONDS)
        poll, server_poll = measure_polls(daemon, database)
        reading = measure_reading(daemon, database, poll)
        rss_mib = daemon.rss_mib()
    never = {"INTERVAL": "1h", "SYNC_PERM_LOG_LEVEL": "info"}
    with SyncPerm(airflow, database.url, folder / "never", never) as daemon:
        daemon.wait_until_good(SECONDS)
        rest = measure_rest(daemon)
    normal: Mapping[str, str] = {"INTERVAL": str(interval), "SYNC_PERM_LOG_LEVEL": "info"}
    with SyncPerm(airflow, database.url, folder / "normal", normal) as daemon:
        daemon.wait_until_good(SECONDS)
        before = cpu_seconds(daemon.pid)
        change(airflow, database, folder)
        daemon.wait_for_event("pass_finished", SECONDS)
        wait_until(lambda: is_granted(database), "granted", SECONDS, step_seconds=0.5)
        daemon.wait_until_good(SECONDS)
        changed = cpu_seconds(daemon.pid) - before
        late = [
            late_role(airflow, database, folder, daemon, n, interval * (n + 0.5) / LATE_ROLES)
            for n in range(LATE_ROLES)
        ]
    polls = HOUR_SECONDS / interval
    return Sidecar(poll, server_poll, polls, reading, rest, changed, late, rss_mib)


def measure_polls(daemon: SyncPerm, database: Database) -> tuple[float, float]:
    """
    Return the CPU seconds of one quiet poll: the supervisor's, and its backend's in PostgreSQL.
    """
    backends = database.query(
        "SELECT pid FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
        (database.name,),
    )

    def spent() -> tuple[float, float]:
        return cpu_seconds(daemon.pid), sum(cpu_seconds(pid) for (pid,) in backends)

    first, (ours, theirs) = daemon.quiet_polls(), spent()
    wait_until(lambda: daemon.quiet_polls() >= first + POLLS, "polls", SECONDS, step_seconds=10)
    polls, (ours_after, theirs_after) = daemon.quiet_polls() - first, spent()
    return (ours_after - ours) / polls, (theirs_after - theirs) / polls


def measure_reading(daemon: SyncPerm, database: Database, poll: float) -> float:
    """
    Return the CPU seconds of one reading of all tables: a grant that concerns nobody asks for it.
    """
    first, before = daemon.quiet_polls(), cpu_seconds(daemon.pid)
    grant(database, "Public", "can_read", f"DAG:{FREE}")
    wait_until(lambda: daemon.quiet_polls() >= first + 10, "polls", SECONDS, step_seconds=2)
    polls, spent = daemon.quiet_polls() - first, cpu_seconds(daemon.pid) - before
    return max(0.0, spent - polls * poll)


def measure_rest(daemon: SyncPerm) -> float:
    """
    Return the CPU seconds that an hour costs without any poll.
    """
    before, began = cpu_seconds(daemon.pid), time.monotonic()
    time.sleep(REST_SECONDS)
    seconds = time.monotonic() - began
    return (cpu_seconds(daemon.pid) - before) / seconds * HOUR_SECONDS


def is_granted(database: Database) -> bool:
    """
    Whether the changed DAGs have what they ask for.
    """
    return all(
        any(action == "can_delete" for _, action in grants_on(database, f"DAG:dag_{number}"))
        for number in range(1, CHANGED + 1)
    )


def late_role(
    airflow: Airflow,
    database: Database,
    folder: Path,
    daemon: SyncPerm,
    number: int,
    phase_seconds: float,
) -> float:
    """
    Return the wall seconds from the creation of a role to the grant of a DAG that waits for it.

    Args:
        phase_seconds: How long after a cycle the role is created.
    """
    role, dag_id = f"late_{number}", f"waits_{number}"
    seen = len(daemon.events)
    airflow.write_dags(database, folder / "home", {dag_id: {role: ["can_read"]}})
    daemon.wait_for_event("dag_failed", SECONDS, seen, dag=dag_id)
    daemon.wait_until_good(SECONDS)
    time.sleep(phase_seconds)
    add_role(database, role)
    began = time.monotonic()
    wait_until(lambda: grants_on(database, f"DAG:{dag_id}"), "granted", SECONDS)
    return time.monotonic() - began


def show(dags: int, loop: Loop, sidecar: Sidecar) -> None:
    """
    Print what was measured as Markdown.
    """
    plain_hour, dags_hour = loop.plain * loop.plain_runs, loop.with_dags * loop.with_dags_runs
    late = sorted(sidecar.late_role_seconds)
    rows = [
        ("an hour without change: loop of `sync-perm`", plain_hour, plain_hour / sidecar.hour),
        ("… of `sync-perm --include-dags`", dags_hour, dags_hour / sidecar.hour),
        ("… the sidecar", sidecar.hour, 1.0),
        (f"{CHANGED} DAGs changed: `--include-dags`", loop.changed, loop.changed / sidecar.changed),
        ("… the sidecar", sidecar.changed, 1.0),
    ]
    print(f"\n{dags} DAGs, Airflow 2.11 on PostgreSQL\n")
    print("| what | CPU s | times the sidecar's |\n|---|--:|--:|")
    for what, cpu, ratio in rows:
        print(f"| {what} | {cpu:.3f} | {ratio:,.1f} |")
    print(
        f"\nOne run of the loop {loop.plain:.2f} s ({loop.with_dags:.2f} s with DAGs);"
        f" one poll {sidecar.poll * 1000:.2f} ms, and {sidecar.server_poll * 1000:.2f} ms of"
        f" PostgreSQL, {sidecar.polls:.0f} an hour; one reading of all tables"
        f" {sidecar.reading * 1000:.0f} ms; {sidecar.rest:.3f} s an hour besides;"
        f" {sidecar.rss_mib:.0f} MiB between passes."
        f"\nFrom the creation of a role to its grant: median {statistics.median(late):.1f} s,"
        f" most {late[-1]:.1f} s."
    )
