"""
``python -m bench sync-perm``: the sidecar beside Airflow's own command, in the same
run.

All use one PostgreSQL with Airflow 2.11. Costs are CPU seconds (user and system) of all
processes but the database, Airflow's own start included. An hour is computed: the
loop's is one run, repeated every 60 seconds plus its own duration; the sidecar's is the
mean of a hundred polls, times the polls of an hour at the default INTERVAL, plus its
cost without any poll.
"""

import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.budgets import Outcome, at_most, at_most_part
from bench.measure import cpu_seconds
from bench.report import deliver, parser, seconds, table, times, version_of
from sidecar_runtime.settings import specs_of
from sync_perm.compare import DEFAULT_ROLES
from sync_perm.settings import PREFIX, Settings
from tests.support.airflow.databases import Database, Postgres, missing_programs
from tests.support.airflow.installed import (
    AccessControl,
    Airflow,
    AirflowIsMissing,
    copy_postgres,
)
from tests.support.airflow.permissions import grants_on
from tests.support.airflow.sync_perm import SYNC_PERM, SyncPerm
from tests.support.waiting import wait_until

OURS, PEER = "sync-perm", "airflow sync-perm --include-dags"
LOOP = "while true; do airflow sync-perm; sleep 60; done"
HOUR_SECONDS, SLEEP_SECONDS, REST_SECONDS = 3_600, 60, 20.0
POLLS, CHANGED, IDLE_MIB = 100, 5, 72
# The longest wait for Airflow; its command needs 40 minutes for 5,000 DAGs.
SECONDS = 7_200.0
AIRFLOW_VERSION = "import importlib.metadata as m; print(m.version('apache-airflow'))"
# What is measured → the largest part of the peer's figure.
HOUR, START, ONE_SHOT = (
    "an hour without a change",
    "a start, nothing to do",
    "a one-shot",
)
CHANGE = f"{CHANGED} DAGs changed"
# Each DAG names one of two roles with one action, or five roles with all actions: the
# more a role holds, the longer Airflow takes for its next grant.
MISSING = "all permissions missing, wall"
WIDE = "the same, five roles with all actions"
PARTS = {
    HOUR: 1 / 500,
    START: 1 / 10,
    ONE_SHOT: 1 / 10,
    CHANGE: 1 / 8,
    MISSING: 1.0,
    WIDE: 1.0,
}
ALL = dict.fromkeys(DEFAULT_ROLES, ("can_read", "can_edit", "can_delete"))


def main(arguments: Sequence[str]) -> None:
    """
    Measure, print the tables, and with `--write` also into the documentation.
    """
    add = (known := parser("sync-perm", __doc__)).add_argument
    add("--dags", type=int, default=1_000, help="DAGs (default: 1,000)")
    add(
        "--missing",
        type=int,
        default=5_000,
        help="DAGs without permissions (default: 5,000)",
    )
    add("--turns", type=int, default=2, help="measurements of each figure but the last")
    options = known.parse_args(arguments)
    try:
        if missing := missing_programs("postgres", "psql", "pg_dump"):
            raise AirflowIsMissing(missing)
        airflow = Airflow.install("2.11")
    except AirflowIsMissing as error:
        print(f"sync-perm: no Airflow on PostgreSQL here: {error}")
        return
    with tempfile.TemporaryDirectory() as scratch, Postgres() as server:
        bench = Bench(airflow, server, Path(scratch))
        if options.turns:  # 0: only what is missing
            bench.measure(options.dags, options.turns)
        if options.missing:
            dags = dags_named(range(options.missing), "can_edit")
            bench.fill(MISSING, dags)
            bench.fill(WIDE, dict.fromkeys(dags, ALL))
    versions = {
        "Airflow": version_of(airflow.bin / "python", "-c", AIRFLOW_VERSION),
        "PostgreSQL": version_of("psql", "--version"),
        OURS: version_of(SYNC_PERM, "--version"),
    }
    costs, outcomes = bench.results()
    deliver(OURS, {"costs": costs}, outcomes, versions, page=options.page)


class Bench:
    """
    Measures in turns: what → (ours, the peer's), each a list with a value for each
    turn.
    """

    def __init__(self, airflow: Airflow, server: Postgres, folder: Path) -> None:
        self.airflow, self.server, self.folder = airflow, server, folder
        self.home = folder / "home"
        self.found: dict[str, tuple[list[float], list[float]]] = {}
        self.rss_mib: list[float] = []

    def measure(self, dags: int, turns: int) -> None:
        """
        Measure all but the first filling, with a database that is complete.
        """
        database = self.airflow.new_postgres(self.server, self.home)
        self.airflow.write_dags(
            database, self.home, dags_named(range(dags), "can_edit")
        )
        self.airflow.full_sync(database, self.home)
        for turn in range(turns):
            print(f"turn {turn + 1} of {turns}", flush=True)
            cpu, wall = self.peer(database)
            self.add(START, self.start(database), cpu)
            with self.sidecar(database, {"SYNC_PERM_ONE_SHOT": "true"}) as daemon:
                self.add(
                    ONE_SHOT, spent_by(partial(daemon.wait_for_exit, SECONDS))[0], cpu
                )
            cpu, wall = self.peer(database, include_dags=False)
            self.add(
                HOUR, self.hour(database), cpu * HOUR_SECONDS / (SLEEP_SECONDS + wall)
            )
            with self.copy(database) as ours, self.copy(database) as theirs:
                self.change(theirs)
                self.add(CHANGE, self.changed(ours), self.peer(theirs)[0])

    def change(self, database: Database) -> None:
        """
        Change the permissions of some DAGs.
        """
        changed = dags_named(range(CHANGED), "can_delete")
        self.airflow.write_dags(database, self.home, changed)

    def changed(self, database: Database) -> float:
        """
        Return the CPU seconds of a running sidecar from a change to its grants.
        """
        with self.sidecar(database, {}) as daemon:
            daemon.wait_until_good(SECONDS)
            before = cpu_seconds(daemon.pid)
            self.change(database)
            last = f"DAG:dag_{CHANGED - 1}"
            is_granted = lambda: ("Op", "can_delete") in grants_on(database, last)  # noqa: E731
            wait_until(is_granted, "granted", SECONDS, step_seconds=1)
            daemon.wait_until_good(SECONDS)
            return cpu_seconds(daemon.pid) - before

    def fill(self, what: str, dags: Mapping[str, AccessControl]) -> None:
        """
        Measure the wall time until no permission is missing, from none.
        """
        database = self.airflow.new_postgres(self.server, self.home)
        self.airflow.write_dags(database, self.home, dags)
        with self.copy(database) as ours:
            began = time.monotonic()
            with self.sidecar(ours, {}) as daemon:
                daemon.wait_until_good(SECONDS)
            wall = time.monotonic() - began
        self.add(what, wall, self.peer(database)[1])

    def add(self, what: str, ours: float, theirs: float) -> None:
        """
        Add the figures of a turn.
        """
        print(f"  {what}: {seconds(ours)}, the peer {seconds(theirs)}", flush=True)
        for values, value in zip(
            self.found.setdefault(what, ([], [])), (ours, theirs), strict=True
        ):
            values.append(value)

    def peer(
        self, database: Database, *, include_dags: bool = True
    ) -> tuple[float, float]:
        """
        Return the CPU and wall seconds of one run of Airflow's command.
        """
        command = PEER.split()[: 3 if include_dags else 2]
        return spent_by(lambda: self.airflow.run(database, self.home, *command))

    @contextmanager
    def copy(self, database: Database) -> Iterator[Database]:
        """
        Yield a copy of a database that may be changed; drop it afterwards.
        """
        copy = copy_postgres(self.server, database, self.folder)
        yield copy
        self.server.drop(copy)

    def sidecar(self, database: Database, settings: dict[str, str]) -> SyncPerm:
        """
        Return a sidecar, not yet started.
        """
        home = Path(tempfile.mkdtemp(dir=self.folder))
        quiet = {"INTERVAL": "2s", "SYNC_PERM_LOG_LEVEL": "info"}
        return SyncPerm(self.airflow, database.url, home, quiet | settings)

    def start(self, database: Database) -> float:
        """
        Return the CPU seconds until the sidecar is ready.
        """
        with self.sidecar(database, {"INTERVAL": "1h"}) as daemon:
            daemon.wait_until_good(SECONDS)
            return cpu_seconds(daemon.pid)

    def hour(self, database: Database) -> float:
        """
        Return the CPU seconds of an hour of polls, and note the memory.
        """
        spec = specs_of(Settings, PREFIX)["interval_seconds"]
        polls_of_an_hour = HOUR_SECONDS / float(spec.parse(spec.default or ""))
        with self.sidecar(database, {"INTERVAL": "0.1"}) as daemon:
            daemon.wait_until_good(SECONDS)
            first, before = daemon.quiet_polls(), cpu_seconds(daemon.pid)

            def more() -> float:
                return daemon.quiet_polls() - first

            wait_until(lambda: more() >= POLLS, "polls", SECONDS, step_seconds=10)
            poll = (cpu_seconds(daemon.pid) - before) / more()
            self.rss_mib.append(daemon.rss_mib())
        with self.sidecar(database, {"INTERVAL": "1h"}) as daemon:
            daemon.wait_until_good(SECONDS)
            before, began = cpu_seconds(daemon.pid), time.monotonic()
            time.sleep(REST_SECONDS)
            rest = (cpu_seconds(daemon.pid) - before) / (time.monotonic() - began)
        return poll * polls_of_an_hour + rest * HOUR_SECONDS

    def results(self) -> tuple[str, list[Outcome]]:
        """
        Return the table of the costs, and the outcomes of all budgets.
        """
        best = {
            what: (min(ours), min(theirs))
            for what, (ours, theirs) in self.found.items()
        }
        outcomes: list[Outcome] = [
            at_most_part("part of Airflow's own", what, PARTS[what], ours / theirs)
            for what, (ours, theirs) in best.items()
        ]
        rss = max(self.rss_mib, default=None)
        outcomes.append(at_most("memory", "between passes", IDLE_MIB, rss, "MiB"))
        rows = [
            [
                what,
                seconds(ours),
                f"`{LOOP if what == HOUR else PEER}`",
                seconds(theirs),
                times(theirs / ours),
            ]
            for what, (ours, theirs) in best.items()
        ]
        costs = table(["", OURS, "peer", "", "relative"], rows)
        return costs, outcomes


def dags_named(numbers: Sequence[int], action: str) -> dict[str, dict[str, list[str]]]:
    """
    Return the access_control of DAGs, alternately for Viewer and for Op.
    """
    return {
        f"dag_{n}": {"Viewer": [action]} if n % 2 else {"Op": [action]} for n in numbers
    }


def spent_by(deed: Callable[[], object]) -> tuple[float, float]:
    """
    Call a function; return the CPU seconds of the child processes that ended, and the
    wall seconds.
    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    deed()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.monotonic() - began
