"""
``python -m bench sync-perm``: the sidecar beside Airflow's own command, in the same
run.

All use one PostgreSQL with Airflow 2.11. Costs are CPU seconds (user and system) of all
processes but the database, Airflow's own start included. An hour is computed: the
loop's is one run, repeated every 60 seconds plus its own duration; the sidecar's is the
mean of a hundred polls, times the polls of an hour at the default INTERVAL, plus its
cost without any poll.
"""

import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.budgets import Outcome, at_most, at_most_part
from bench.measure import Cost, cpu_seconds, during, rss_mib, run
from bench.report import deliver, options, seconds, table, times, version_of
from sidecar_runtime.settings import specs_of
from sync_perm.compare import DEFAULT_ROLES
from sync_perm.settings import PREFIX, Settings
from tests.support.airflow.databases import Database, Postgres, skip_without_postgres
from tests.support.airflow.installed import AccessControl, Airflow, copy_of
from tests.support.airflow.permissions import grants_on
from tests.support.airflow.sync_perm import SYNC_PERM, SyncPerm
from tests.support.waiting import wait_until

OURS = "sync-perm"
PEER = "airflow sync-perm --include-dags"
LOOP = "while true; do airflow sync-perm; sleep 60; done"
HOUR_SECONDS = 3_600
SLEEP_SECONDS = 60
REST_SECONDS = 20.0
POLLS = 100
CHANGED = 5
IDLE_MIB = 72
# The longest wait for Airflow; its command needs 40 minutes for 5,000 DAGs.
SECONDS = 7_200.0
# How often the time of the sidecar the command gets, until no permission is missing.
LONGEST_PEER = 1.2
AIRFLOW_VERSION = "import importlib.metadata as m; print(m.version('apache-airflow'))"
# What is measured → the largest part of the peer's figure.
HOUR = "an hour without a change"
START = "a start, nothing to do"
ONE_SHOT = "a one-shot"
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
    given = options(
        OURS,
        __doc__,
        arguments,
        dags=(1_000, "DAGs"),
        missing=(5_000, "DAGs without permissions"),
        turns=(2, "measurements of each figure but the last"),
    )
    skip_without_postgres()
    airflow = Airflow.install_or_skip("2.11")
    with tempfile.TemporaryDirectory() as scratch, Postgres() as server:
        bench = Bench(airflow, server, Path(scratch))
        if given.turns:  # 0: only what is missing
            bench.measure(given.dags, given.turns)
        dags = dags_named(range(given.missing), "can_edit")
        if dags:
            bench.fill(MISSING, dags)
            bench.fill(WIDE, dict.fromkeys(dags, ALL))
    versions = {
        "Airflow": version_of(airflow.bin / "python", "-c", AIRFLOW_VERSION),
        "PostgreSQL": version_of("psql", "--version"),
        OURS: version_of(SYNC_PERM, "--version"),
    }
    costs, outcomes = bench.results()
    deliver(OURS, {"costs": costs}, outcomes, versions, page=given.page)


class Bench:
    """
    Measures in turns: what → (ours, the peer's) of each turn.
    """

    def __init__(self, airflow: Airflow, server: Postgres, folder: Path) -> None:
        self.airflow = airflow
        self.server = server
        self.folder = folder
        self.home = folder / "home"
        self.found: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.rss_mib: list[float] = []

    def measure(self, dags: int, turns: int) -> None:
        """
        Measure all but the first filling, with a database that is complete.
        """
        database = self.database_with(dags_named(range(dags), "can_edit"))
        self.airflow.full_sync(database, self.home)
        for turn in range(turns):
            print(f"turn {turn + 1} of {turns}, {dags:,} DAGs", flush=True)
            theirs = self.peer(database).cpu_seconds
            self.add(START, self.start(database), theirs)
            once = self.sidecar(database, {"SYNC_PERM_ONE_SHOT": "true"})
            spent = run([SYNC_PERM], once.environment, timeout_seconds=SECONDS)
            self.add(ONE_SHOT, spent.cpu_seconds, theirs)
            loop = self.peer(database, "airflow sync-perm")
            part = HOUR_SECONDS / (SLEEP_SECONDS + loop.wall_seconds)
            self.add(HOUR, self.hour(database), loop.cpu_seconds * part)
            with self.copy(database) as one, self.copy(database) as other:
                self.change(other)
                self.add(CHANGE, self.changed(one), self.peer(other).cpu_seconds)

    def database_with(self, dags: Mapping[str, AccessControl]) -> Database:
        """
        Return a database with DAGs whose permissions are missing.
        """
        database = self.airflow.new_postgres(self.server, self.home)
        self.airflow.write_dags(database, self.home, dags)
        return database

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
        print(f"{len(dags):,} DAGs: {what}", flush=True)
        database = self.database_with(dags)
        with self.copy(database) as ours:
            began = time.monotonic()
            with self.sidecar(ours, {}) as daemon:
                daemon.wait_until_good(SECONDS)
            wall = time.monotonic() - began
        # Whether it is slower is seen by then: five roles would take it hours.
        most_seconds = LONGEST_PEER * wall
        try:
            theirs = self.peer(database, most_seconds=most_seconds).wall_seconds
        except subprocess.TimeoutExpired:
            theirs = most_seconds
        self.add(what, wall, theirs)

    def add(self, what: str, ours: float, theirs: float) -> None:
        """
        Add the figures of a turn.
        """
        print(f"  {what}: {seconds(ours)}, the peer {seconds(theirs)}", flush=True)
        self.found[what].append((ours, theirs))

    def peer(
        self, database: Database, command: str = PEER, most_seconds: float = SECONDS
    ) -> Cost:
        """
        Return the cost of one run of Airflow's command.

        Raises:
            subprocess.TimeoutExpired: It took longer, and was stopped.
        """
        environment = self.airflow.environment(database.url, self.home)
        return run(command.split(), environment, timeout_seconds=most_seconds)

    @contextmanager
    def copy(self, database: Database) -> Iterator[Database]:
        """
        Yield a copy of a database that may be changed; drop it afterwards.
        """
        copy = copy_of(database, self.folder)
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
            first = daemon.quiet_polls()

            def pass_polls() -> None:
                until = first + POLLS
                polls = daemon.quiet_polls
                wait_until(lambda: polls() >= until, "polls", SECONDS, step_seconds=10)

            spent = during(daemon.pid, pass_polls)
            poll = spent.cpu_seconds / (daemon.quiet_polls() - first)
            self.rss_mib.append(rss_mib(daemon.pid))
        with self.sidecar(database, {"INTERVAL": "1h"}) as daemon:
            daemon.wait_until_good(SECONDS)
            rest = during(daemon.pid, lambda: time.sleep(REST_SECONDS))
        rests = HOUR_SECONDS / rest.wall_seconds
        return poll * polls_of_an_hour + rest.cpu_seconds * rests

    def results(self) -> tuple[str, list[Outcome]]:
        """
        Return the table of the costs, and the outcomes of all budgets.
        """
        best = {
            what: [min(column) for column in zip(*pairs, strict=True)]
            for what, pairs in self.found.items()
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
