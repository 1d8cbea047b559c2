"""
``python -m bench bundle``: DAG versions of Airflow 3: SidecarDagBundle beside Airflow's bundles.

The real classes run in long-lived Airflow processes, as in the dag-processor and in workers.
S3DagBundle and s3-sync read from one server, `rclone serve s3` with its objects in memory.
GitDagBundle reads from git's own HTTP server, as usual, and from the same disk, its best case. The
work of s3-sync is included in the cost of SidecarDagBundle: a cold start is a one-shot s3-sync plus
the bundle.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.budgets import Outcome, at_most_part, at_most_seconds
from bench.measure import Cost, least, run
from bench.proxy import CountingProxy
from bench.report import Section, deliver, machine, seconds, table, version_of
from bench.s3_store import (
    BUCKET,
    PREFIX,
    RELEASES,
    Store,
    airflow_with_bundle,
    files_of,
    open_store,
)
from tests.support.daemon import Daemon
from tests.support.dialogue import Dialogue, dialogue
from tests.support.git.git_server import GitServer

CHILD = Path(__file__).with_name("versions_child.py")
MODULE = Path(__file__).parents[1] / "airflow-bundle"
FILES = [400, 1_000, 10_000]
OURS, S3, GIT = "airflow-sidecar-bundle", "S3DagBundle", "GitDagBundle"
GIT_ON_DISK = f"{GIT}, same disk"
CLASSES = {
    OURS: "airflow_sidecar_bundle.SidecarDagBundle",
    S3: "airflow.providers.amazon.aws.bundles.s3.S3DagBundle",
    GIT: "airflow.providers.git.bundles.git.GitDagBundle",
    GIT_ON_DISK: "airflow.providers.git.bundles.git.GitDagBundle",
}
SITUATIONS = {
    "start": "dag-processor, empty volume",
    "refresh": "refresh, no change",
    "change": "refresh, one file changed",
    "warm": "task, its version on the volume",
    "other": "task, another version, one file differs",
    "cold": "task in a new pod",
}
NO_VERSIONS = "no versions"
# Repetitions of calls that take less than a millisecond; the lowest cost counts.
CALLS = 20

Costs = dict[tuple[str, str], list[Cost]]


@dataclass
class Found:
    """
    The results for one number of files.

    Attributes:
        costs: By bundle and situation.
        requests: To S3, by bundle and situation; counted in a separate turn.
        disks: The bytes on disk of two versions, by bundle.
    """

    costs: Costs = field(default_factory=lambda: defaultdict(list))
    requests: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    disks: dict[str, int] = field(default_factory=dict)


def main(arguments: Sequence[str]) -> None:
    """
    Measure, print the tables, and with `--write` put them into the documentation.
    """
    parser = argparse.ArgumentParser("python -m bench bundle", description=__doc__)
    add = parser.add_argument
    add("--files", type=int, nargs="+", default=FILES, help="default: 400 1000 10000")
    add("--turns", type=int, default=3, help="how often each is measured (default: 3)")
    add("--write", action="store_true", help="rewrite docs/reference/benchmarks*")
    options = parser.parse_args(arguments)
    airflow, missing = airflow_with_bundle()
    if airflow is None:
        raise SystemExit(f"bundle: nothing is measured: {missing}")
    results: dict[int, Found] = {}
    for files in options.files:
        print(f"{files:,} files", flush=True)
        with (
            tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as home,
            open_store(files) as store,
            GitServer(Path(home)) as server,
        ):
            results[files] = Bench(airflow, store, server, Path(home)).measure(options.turns)
    deliver(section(results, airflow), is_written=options.write)


class Child:
    """
    An Airflow process with one kind of bundle.
    """

    def __init__(self, child: Dialogue, classpath: str) -> None:
        self._child = child
        self._classpath = classpath

    def do(self, deed: str, **kwargs: Any) -> tuple[Cost, Path, str | None]:
        """
        Call a method; return its cost, and the bundle's path and version afterwards.

        Raises:
            RuntimeError: The call failed.
        """
        line = {"do": deed, "class": self._classpath, "kwargs": kwargs}
        found = json.loads(self._child.ask(json.dumps(line)))
        cpu, wall = found["cost"]
        return Cost(cpu, wall, 0.0), Path(found["path"]), found["version"]


@dataclass
class Bench:
    """
    Measures all bundles with one number of files.
    """

    airflow: Path
    store: Store
    server: GitServer
    home: Path

    def __post_init__(self) -> None:
        self.repository = self.home / "repository"
        self.found = Found()
        self._proxy: CountingProxy | None = None
        self._git("init", "--quiet", "--initial-branch", "main", self.repository)
        self._commit()

    def measure(self, turns: int) -> Found:
        """
        Measure this many turns, and count requests in one more.
        """
        for turn in range(turns):
            self._measure_all(self.arguments())
            print(f"  {turn + 1} of {turns}", flush=True)
        with CountingProxy(self.store.port) as self._proxy:
            self._measure_all({name: self.arguments()[name] for name in (OURS, S3)})
        return self.found

    def _measure_all(self, bundles: Mapping[str, dict[str, Any]]) -> None:
        for name, arguments in bundles.items():
            folder = self.home / name
            shutil.rmtree(folder, ignore_errors=True)
            self.found.disks[name] = self._measure_one(name, arguments, folder)

    def arguments(self) -> dict[str, dict[str, Any]]:
        """
        Return the arguments of each bundle's class.
        """
        return {
            OURS: {"path": str(self.home / OURS / "volume/current")},
            S3: {"bucket_name": BUCKET, "prefix": PREFIX},
            **{
                name: {"tracking_ref": "main", "repo_url": self._repo_url(name)}
                for name in (GIT, GIT_ON_DISK)
            },
        }

    def _repo_url(self, name: str) -> str:
        if name == GIT:
            return self.server.url(self.repository.name)
        return f"file://{self.repository}"

    def _measure_one(self, name: str, arguments: dict[str, Any], folder: Path) -> int:
        volume = folder / "volume"
        with self._child(name, folder) as child:
            before = self._bring(volume) if name == OURS else None
            cost, path, first = child.do("initialize", **arguments)
            self._note(name, "start", cost, before)
            self._check(path)
            for _ in range(CALLS):
                self._note(name, "refresh", child.do("refresh")[0])
            with self._daemon(volume, is_needed=name == OURS) as daemon:
                self._change()
                ours = self._sync(daemon) if daemon else None
                cost, path, second = child.do("refresh")
                self._note(name, "change", cost, ours)
                self._check(path)
                if first is None:  # no versions: a task syncs to the current files
                    for _ in range(3):
                        self._note(name, "warm", child.do("initialize", **arguments)[0])
                else:
                    child.do("initialize", version=second, **arguments)
                    for _ in range(CALLS):
                        pinned = child.do("initialize", version=second, **arguments)
                        self._note(name, "warm", pinned[0])
                    if daemon is not None:
                        self._sync(daemon)  # removes versions that are no longer in use
                        self._asked()
                    cost, path, _ = child.do("initialize", version=first, **arguments)
                    self._note(name, "other", cost, self._since(daemon) if daemon else None)
                    assert first in path.parts or name != OURS, path
        disk = bytes_of(folder)
        shutil.rmtree(folder)
        with self._child(name, folder) as child:
            pin = {} if second is None else {"version": second}
            before = self._bring(volume, second) if name == OURS else None
            cost, path, _ = child.do("initialize", **pin, **arguments)
            self._note(name, "cold", cost, before)
            self._check(path)
        return disk

    def _note(self, name: str, situation: str, cost: Cost, more: Cost | None = None) -> None:
        if self._proxy is not None:
            self.found.requests[name, situation].append(self._asked())
            return
        if more is not None:
            cost = Cost(
                cost.cpu_seconds + more.cpu_seconds, cost.wall_seconds + more.wall_seconds, 0.0
            )
        self.found.costs[name, situation].append(cost)

    def _asked(self) -> int:
        """
        Return the number of requests since the last call; 0 if they are not counted.
        """
        if self._proxy is None:
            return 0
        counts = self._proxy.take()
        return counts.total() - counts["connections"]

    def _check(self, path: Path) -> None:
        """
        Check that all files exist: a tool that does nothing would be fast.
        """
        found = {name: size for name, size in files_of(path).items() if ".git/" not in name}
        assert found == files_of(self.store.source), path

    def _change(self) -> None:
        self._asked()  # drop the requests of the daemon's start
        self.store.edit()
        self.store.publish()
        self._commit()

    def _commit(self) -> None:
        shutil.copytree(self.store.source, self.repository, dirs_exist_ok=True)
        self._git("-C", self.repository, "add", "--all")
        identity = ("-c", "user.name=bench", "-c", "user.email=bench@example.com")
        self._git("-C", self.repository, *identity, "commit", "--quiet", "--message", "one more")

    def _git(self, *arguments: str | Path) -> None:
        subprocess.run(["git", *arguments], check=True, capture_output=True)

    @property
    def _endpoint(self) -> str:
        return self._proxy.endpoint if self._proxy else self.store.endpoint

    def _environment(self) -> dict[str, str]:
        return {**self.store.environment(), "AWS_ENDPOINT_URL": self._endpoint}

    def _settings(self, volume: Path) -> dict[str, str]:
        return {
            **self._environment(),
            "AWS_BUCKET": BUCKET,
            "KEY_PATH": RELEASES,
            "DEST_PATH": str(volume),
            "S3_SYNC_SOURCE": "release",
            "S3_SYNC_LAYOUT": "snapshot",
            # So that every version except the current one must be requested.
            "S3_SYNC_RETAIN_COUNT": "0",
            "S3_SYNC_RETAIN_FOR": "0",
        }

    def _bring(self, volume: Path, version: str | None = None) -> Cost:
        """
        Run the init container: a one-shot s3-sync.
        """
        pin = {} if version is None else {"S3_SYNC_REVISION": version}
        return run(["s3-sync"], {**self._settings(volume), "S3_SYNC_ONE_SHOT": "true", **pin})

    @contextmanager
    def _daemon(self, volume: Path, *, is_needed: bool) -> Iterator[Daemon | None]:
        if not is_needed:
            yield None
            return
        settings = self._settings(volume)
        with Daemon(None, BUCKET, volume, RELEASES, "1h", settings) as daemon:
            daemon.wait_until_synced()
            yield daemon

    def _sync(self, daemon: Daemon) -> Cost:
        self._last = _spent(daemon)
        event = daemon.sync()
        return self._since(daemon, float(event["duration_seconds"]))

    def _since(self, daemon: Daemon, wall_seconds: float = 0.0) -> Cost:
        """
        Return the sidecar's CPU since the last call, with a wall time measured by the caller.
        """
        before, self._last = self._last, _spent(daemon)
        return Cost(self._last - before, wall_seconds, 0.0)

    @contextmanager
    def _child(self, name: str, folder: Path) -> Iterator[Child]:
        folder.mkdir(parents=True, exist_ok=True)
        connections: Mapping[str, Any] = {
            "AWS_DEFAULT": {
                "conn_type": "aws",
                "login": self.store.environment()["AWS_ACCESS_KEY_ID"],
                "password": self.store.environment()["AWS_SECRET_ACCESS_KEY"],
                "extra": {"endpoint_url": self._endpoint},
            },
            "GIT_DEFAULT": {"conn_type": "git", "host": self._repo_url(name)},
        }
        environment = {
            **self._environment(),
            "HOME": str(folder),
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(folder / "storage"),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "PYTHONPATH": str(MODULE),
            **{f"AIRFLOW_CONN_{key}": json.dumps(one) for key, one in connections.items()},
        }
        program: list[str | Path] = [self.airflow / "bin" / "python", "-P", CHILD]
        with dialogue(program, environment, folder.with_suffix(".log")) as child:
            yield Child(child, CLASSES[name])


def _spent(daemon: Daemon) -> float:
    return daemon.metrics()["process_cpu_seconds_total"]


def bytes_of(folder: Path) -> int:
    """
    Return the disk space of a folder in bytes, with each hard-linked file counted once.
    """
    seen: dict[int, int] = {}
    for here, _, names in os.walk(folder):
        for name in names:
            found = Path(here, name).lstat()
            seen[found.st_ino] = found.st_blocks * 512
    return sum(seen.values())


def section(results: Mapping[int, Found], airflow: Path) -> Section:
    """
    Return the section of the page.
    """
    costs = [
        [f"{files:,} files: {what}", *(_cell(found.costs.get((name, key))) for name in CLASSES)]
        for files, found in results.items()
        for key, what in SITUATIONS.items()
    ]
    costs += [
        [
            f"{files:,} files: disk, two versions",
            *(f"{found.disks[name] / 1e6:.1f} MB" for name in CLASSES),
        ]
        for files, found in results.items()
    ]
    requests = [
        [
            f"{files:,} files: {what}",
            *(_requests(found.requests.get((name, key))) for name in (OURS, S3)),
        ]
        for files, found in results.items()
        for key, what in SITUATIONS.items()
    ]
    versions = {"Airflow": version_of(airflow / "bin" / "airflow", "version")}
    return Section(
        "bundle",
        {
            "machine": machine(versions),
            "costs": table(["CPU (wall)", *CLASSES], costs),
            "requests": table(["requests to S3", OURS, S3], requests),
        },
        list(_outcomes(results)),
    )


def _requests(counts: list[int] | None) -> str:
    return f"{min(counts):,}" if counts else NO_VERSIONS


def _cell(costs: list[Cost] | None) -> str:
    if not costs:
        return NO_VERSIONS
    best = least(costs)
    return f"{seconds(best.cpu_seconds)} ({seconds(best.wall_seconds)})"


def _outcomes(results: Mapping[int, Found]) -> Iterator[Outcome]:
    for files, found in results.items():
        best = {key: least(costs) for key, costs in found.costs.items()}
        what = f"{files:,} files"
        for situation in ("warm", "refresh"):
            cost = best[OURS, situation]
            yield at_most_seconds(SITUATIONS[situation], what, 0.001, cost.wall_seconds)
    if 400 in results:
        best = {key: least(costs) for key, costs in results[400].costs.items()}
        for peer, share in ((S3, 0.1), (GIT, 1.0), (GIT_ON_DISK, 1.0)):
            ratio = best[OURS, "cold"].wall_seconds / best[peer, "cold"].wall_seconds
            yield at_most_part(
                f"{SITUATIONS['cold']}, wall",
                f"400 files vs. {peer}",
                share,
                ratio,
                "Nearly all of it is the start of Python.",
            )
