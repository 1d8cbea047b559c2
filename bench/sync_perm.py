"""
``python -m bench sync-perm``: an hour of the shell loop, and an hour of the sidecar.

Both use one PostgreSQL with Airflow 2.11; costs are CPU seconds (user and system). An hour is
computed, not measured. The loop's hour is the cost of one run, repeated every 60 seconds plus its
own duration. The sidecar's hour is the mean cost of a poll (over a hundred), times the polls of an
hour at the default INTERVAL, plus the hourly read of all tables, plus its cost without any poll.
PostgreSQL's CPU for the sidecar's polls is shown separately. Passes are measured from the change to
the end of the pass, including the supervisor's share.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

from bench.pages import sync_perm_page
from bench.pages.sync_perm_page import BUDGET_DAGS, CHANGED, OURS, Results
from bench.report import deliver, version_of
from sidecar_runtime.settings import specs_of
from sync_perm.settings import PREFIX, Settings
from tests.support.airflow.databases import Database, Postgres, missing_programs
from tests.support.airflow.installed import Airflow, AirflowIsMissing, copy_postgres
from tests.support.airflow.permissions import add_role, grant, grants_on
from tests.support.airflow.sync_perm import SYNC_PERM, SyncPerm, cpu_seconds
from tests.support.waiting import wait_until

HOUR_SECONDS = 3_600
SLEEP_SECONDS = 60
POLLS = 100
REST_SECONDS = 20.0
FREE = "dag_without_access_control"
SECONDS = 900.0
VERSION: Literal["2.11"] = "2.11"
# The DAGs that change for the first pass, and for the next: Airflow stores no DAG twice in 30 s.
FIRST, NEXT = range(1, CHANGED + 1), range(CHANGED + 1, 2 * CHANGED + 1)


def main(arguments: Sequence[str]) -> None:
    """
    Measure, print the tables, and with `--write` put them into the documentation.
    """
    parser = argparse.ArgumentParser("python -m bench sync-perm", description=__doc__)
    add = parser.add_argument
    add("--dags", type=int, nargs="+", default=[BUDGET_DAGS], help="DAGs (default: 1,000)")
    add("--turns", type=int, default=2, help="measurements of each tool (default: 2)")
    add("--late", type=int, default=3, help="roles created after their DAGs (default: 3)")
    add("--write", action="store_true", help="rewrite docs/reference/benchmarks*")
    options = parser.parse_args(arguments)
    try:
        if missing := missing_programs("postgres", "psql", "pg_dump"):
            raise AirflowIsMissing(missing)
        airflow = Airflow.install(VERSION)
    except AirflowIsMissing as error:
        print(f"sync-perm: no Airflow on PostgreSQL here: {error}")
        return
    results = {}
    for dags in options.dags:
        with tempfile.TemporaryDirectory() as scratch, Postgres() as server:
            bench = Bench(airflow, server, Path(scratch), dags)
            results[dags] = bench.measure(options.turns, options.late)
    versions = {
        "Airflow": version_of(airflow.bin / "python", "-c", AIRFLOW_VERSION),
        "PostgreSQL": version_of("psql", "--version"),
        OURS: version_of(SYNC_PERM, "--version"),
    }
    deliver(sync_perm_page.section(results, versions), is_written=options.write)


AIRFLOW_VERSION = "import importlib.metadata as m; print(m.version('apache-airflow'))"


class Bench:
    """
    Measures with one metadata database with a number of DAGs, whose permissions are synced.
    """

    def __init__(self, airflow: Airflow, server: Postgres, folder: Path, dags: int) -> None:
        print(f"{dags:,} DAGs: writing them and their permissions", flush=True)
        self.airflow, self.server, self.folder = airflow, server, folder
        self.home = folder / "home"
        self.database = airflow.new_postgres(server, self.home)
        wanted = {FREE: None, **dags_named(range(1, dags), "can_edit")}
        airflow.write_dags(self.database, self.home, wanted)
        airflow.full_sync(self.database, self.home)

    def measure(self, turns: int, late: int) -> Results:
        """
        Measure the loop and the sidecar in turns.
        """
        spec = specs_of(Settings, PREFIX)["interval_seconds"]
        interval: float = spec.parse(spec.default or "")
        results = Results(polls=HOUR_SECONDS / interval)
        for turn in range(turns):
            print(f"turn {turn + 1} of {turns}", flush=True)
            results.plain_hour.append(self.hour_of("airflow", "sync-perm"))
            if turn == 0:
                loop = ("airflow", "sync-perm", "--include-dags")
                results.dags_hour.append(self.hour_of(*loop))
                results.rest.append(self.rest())
            self.quiet(results)
            results.changed_peer.append(self.changed_by_peer())
            first, following = self.changed_by_ours()
            results.changed.append(first)
            results.changed_next.append(following)
        if late:
            print("roles created after their DAGs", flush=True)
            results.late_role_seconds += self.late_roles(interval, late)
        return results

    @contextmanager
    def copy(self) -> Iterator[Database]:
        """
        Yield a copy of the database that may be changed; drop it afterwards.
        """
        copy = copy_postgres(self.server, self.database, self.folder)
        yield copy
        self.server.drop(copy)

    def hour_of(self, *command: str) -> float:
        """
        Return the CPU seconds of an hour of a loop around a command, without a change.
        """
        cpu, wall = spent_by(lambda: self.airflow.run(self.database, self.home, *command))
        return cpu * HOUR_SECONDS / (SLEEP_SECONDS + wall)

    def sidecar(self, name: str, interval: str, database: Database | None = None) -> SyncPerm:
        """
        Return a supervisor, not yet started.
        """
        settings = {"INTERVAL": interval, "SYNC_PERM_LOG_LEVEL": "info"}
        url = (database or self.database).url
        return SyncPerm(self.airflow, url, self.folder / name, settings)

    def quiet(self, results: Results) -> None:
        """
        Measure the start of the sidecar, its polls, its memory and a read of all tables.
        """
        with self.copy() as copy, self.sidecar("quick", "0.1", copy) as daemon:
            # Polling /readyz meanwhile would dominate the measurement.
            airflow = daemon.wait_for_event("pass_finished", SECONDS)["cpu_seconds"]
            daemon.wait_until_good(SECONDS)
            results.definition.append(airflow)
            results.first.append(cpu_seconds(daemon.pid) - airflow)
            poll, server_poll = measure_polls(daemon, copy)
            results.poll.append(poll)
            results.server_poll.append(server_poll)
            results.reading.append(measure_reading(daemon, copy, poll))
            results.rss_mib.append(daemon.rss_mib())

    def rest(self) -> float:
        """
        Return the CPU seconds of an hour of the sidecar without any poll.
        """
        with self.sidecar("never", "1h") as daemon:
            daemon.wait_until_good(SECONDS)
            before, began = cpu_seconds(daemon.pid), time.monotonic()
            time.sleep(REST_SECONDS)
            spent = cpu_seconds(daemon.pid) - before
            return spent / (time.monotonic() - began) * HOUR_SECONDS

    def changed_by_peer(self) -> float:
        """
        Return the CPU seconds of `airflow sync-perm --include-dags` after a change of some DAGs.
        """
        with self.copy() as copy:
            change(self.airflow, copy, self.home, FIRST)
            return spent_by(lambda: self.airflow.full_sync(copy, self.home))[0]

    def changed_by_ours(self) -> list[float]:
        """
        Return the sidecar's CPU seconds from a change of some DAGs to their grants: for the first
        pass of its process, and for the next.
        """
        with self.copy() as copy, self.sidecar("normal", "2s", copy) as daemon:
            spent = []
            for numbers in (FIRST, NEXT):
                daemon.wait_until_good(SECONDS)
                seen, before = len(daemon.events), cpu_seconds(daemon.pid)
                change(self.airflow, copy, self.home, numbers)
                daemon.wait_for_event("pass_finished", SECONDS, seen)
                done = partial(is_granted, copy, numbers)
                wait_until(done, "granted", SECONDS, step_seconds=0.5)
                daemon.wait_until_good(SECONDS)
                spent.append(cpu_seconds(daemon.pid) - before)
            return spent

    def late_roles(self, interval: float, count: int) -> list[float]:
        """
        Return the wall seconds from the creation of a role to its grant, at different times
        between two polls.
        """
        with self.sidecar("late", str(interval)) as daemon:
            daemon.wait_until_good(SECONDS)
            return [
                late_role(
                    self.airflow,
                    self.database,
                    self.folder,
                    daemon,
                    n,
                    interval * (n + 0.5) / count,
                )
                for n in range(count)
            ]


def dags_named(numbers: Sequence[int], action: str) -> dict[str, dict[str, list[str]]]:
    """
    Return the access_control of DAGs, alternately for Viewer and for Op.
    """
    return {f"dag_{n}": {"Viewer": [action]} if n % 2 else {"Op": [action]} for n in numbers}


def change(airflow: Airflow, database: Database, home: Path, numbers: Sequence[int]) -> None:
    """
    Change the permissions in some DAGs.
    """
    airflow.write_dags(database, home, dags_named(numbers, "can_delete"))


def spent_by(deed: Callable[[], object]) -> tuple[float, float]:
    """
    Call a function; return the CPU seconds of the child processes that ended, and the wall seconds.
    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    deed()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.monotonic() - began


def measure_polls(daemon: SyncPerm, database: Database) -> tuple[float, float]:
    """
    Return the CPU seconds of a poll without a change: of the supervisor, and of PostgreSQL.
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
    Return the CPU seconds of one read of all tables, triggered by an irrelevant grant.
    """
    first, before = daemon.quiet_polls(), cpu_seconds(daemon.pid)
    grant(database, "Public", "can_read", f"DAG:{FREE}")
    wait_until(lambda: daemon.quiet_polls() >= first + 10, "polls", SECONDS, step_seconds=2)
    polls, spent = daemon.quiet_polls() - first, cpu_seconds(daemon.pid) - before
    return max(0.0, spent - polls * poll)


def is_granted(database: Database, numbers: Sequence[int]) -> bool:
    """
    Whether the changed DAGs have their new permissions.
    """
    return all(
        any(action == "can_delete" for _, action in grants_on(database, f"DAG:dag_{number}"))
        for number in numbers
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
    Return the wall seconds from the creation of a role to its grant on a DAG that uses it.

    Args:
        phase_seconds: The delay between a cycle and the creation of the role.
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
