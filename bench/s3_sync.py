"""
``python -m bench s3-sync``: s3-sync beside its peers.

Each tool syncs its own folder with the same prefix of the same server, `rclone serve s3` with its
objects in memory, in a separate process that is not measured. The tools take turns, and the lowest
value of several turns counts. Requests are counted in separate turns. Airflow 3's S3DagBundle is
called in a long-lived process, as in Airflow.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bench import dag_bundle
from bench.images import size_over_base
from bench.measure import Cost, during, run
from bench.pages import s3_sync_page
from bench.report import deliver
from bench.pages.s3_sync_page import IMAGE_MB, LAYOUTS, OURS, Place, Results
from bench.proxy import CountingProxy
from bench.s3_peers import airflow_with_bundle, open_peers
from bench.s3_store import BUCKET, PREFIX, Store, files_of, open_store
from tests.support.daemon import Daemon
from tests.support.waiting import wait_until

FILES = {Place.MEMORY: [100, 1_000, 10_000], Place.DISK: [1_000], Place.TLS: [1_000]}
# With more files, or not in memory, a turn takes minutes.
MANY_FILES, FEW_TURNS = 1_000, 2
POLL_INTERVAL_SECONDS = 0.1
POLLS = 60
LEAST_POLLS = 30
# An inspection of the disk is spread over ten polls, but not in the first polls of a process.
FIRST_POLLS = 12
# The time for the daemon's work after it has logged the end of a cycle.
AFTERMATH_SECONDS = 0.05
CYCLES = 'sidecar_cycles_total{result="unchanged",sidecar="s3-sync"}'
SECONDS = 'sidecar_cycle_duration_seconds_sum{sidecar="s3-sync"}'


def main(arguments: Sequence[str]) -> None:
    """
    Measure, print the tables, and with `--write` put them into the documentation.
    """
    parser = argparse.ArgumentParser("python -m bench s3-sync", description=__doc__)
    add = parser.add_argument
    add("--files", type=int, nargs="+", help="default: 100 1000 10000; on disk and TLS: 1000")
    add("--turns", type=int, default=3, help="measurements of each tool (default: 3)")
    add("--places", nargs="+", choices=list(Place), default=list(Place), help="default: all")
    add("--disk", type=Path, default=Path(tempfile.gettempdir()), help="a folder on a disk")
    add("--write", action="store_true", help="rewrite docs/reference/benchmarks*")
    options = parser.parse_args(arguments)
    results = Results(disk=s3_sync_page.file_system_of(options.disk))
    airflow, missing = airflow_with_bundle()
    for place in options.places:
        for files in options.files or FILES[place]:
            print(f"{files:,} files, {place}", flush=True)
            folder = options.disk if place == Place.DISK else Path("/dev/shm")
            turns = options.turns
            if place != Place.MEMORY or files > MANY_FILES:
                turns = min(turns, FEW_TURNS)
            with (
                tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as targets,
                open_store(files, is_tls=place == Place.TLS) as store,
            ):
                results.costs[place, files] = measure(store, Path(targets), turns, airflow)
                if place == Place.MEMORY and files <= MANY_FILES:
                    results.requests[files] = count_requests(store, Path(targets), airflow)
    image = size_over_base(OURS, IMAGE_MB)
    section = s3_sync_page.section(results, image, airflow, missing)
    deliver(section, is_written=options.write)


# --- costs


def measure(
    store: Store, targets: Path, turns: int, airflow: Path | None
) -> dict[tuple[str, str], list[Cost]]:
    """
    Return the costs by tool and situation; the tools take turns in each situation.
    """
    with open_peers(store, targets, store.endpoint, airflow) as peers:
        costs: dict[tuple[str, str], list[Cost]] = defaultdict(list)
        environment = store.environment()
        for _ in range(turns):
            for name, peer in peers.items():
                empty(peer.folder)
                costs[name, "cold"].append(peer.cold())
                check(store, peer.folder)
            for name, layout in LAYOUTS.items():
                empty(targets / name)
                settings = environment | one_shot(targets / name, layout)
                costs[name, "cold"].append(run(["s3-sync"], settings))
                check(store, targets / name, layout)
        for turn in range(turns):
            for name, peer in peers.items():
                costs[name, "poll"].append(peer.again())
            if bundle := peers.get(dag_bundle.NAME):
                costs[dag_bundle.START, "poll"].append(bundle.cold())
            for name, layout in LAYOUTS.items():
                if turn == 0 or "S3_SYNC_LAYOUT" not in layout:
                    costs[name, "poll"].append(poll(store, targets / name, layout))
        for _ in range(turns):
            store.change()
            for name, peer in peers.items():
                costs[name, "change"].append(peer.again())
                check(store, peer.folder)
    for name, layout in LAYOUTS.items():
        for situation, cost in changes(store, targets / name, layout, 4 * turns):
            costs[name, situation].append(cost)
        check(store, targets / name, layout)
    return costs


def empty(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()


def check(store: Store, target: Path, layout: Mapping[str, str] | None = None) -> None:
    """
    Check that a tool has done its work: a tool that does nothing would be fast.
    """
    if layout and layout.get("S3_SYNC_LAYOUT") == "snapshot":
        target = target / "current"
    expected, found = files_of(store.source), files_of(target)
    assert expected == found, f"{target.name}: {expected.items() ^ found.items()}"


def one_shot(target: Path, layout: Mapping[str, str]) -> dict[str, str]:
    return {
        "AWS_BUCKET": BUCKET,
        "KEY_PATH": PREFIX,
        "DEST_PATH": str(target),
        "S3_SYNC_ONE_SHOT": "true",
        **layout,
    }


def poll(store: Store, target: Path, layout: Mapping[str, str]) -> Cost:
    """
    Return the mean cost of a cycle without a change in a running daemon, including all work
    between two cycles.
    """
    settings = {"S3_SYNC_LOG_LEVEL": "info", **layout}
    interval = f"{POLL_INTERVAL_SECONDS}s"
    with Daemon(store, BUCKET, target, PREFIX, interval, settings) as daemon:

        def cycles() -> float:
            return daemon.metrics().get(CYCLES, 0.0)

        def pass_time() -> None:
            time.sleep(POLLS * POLL_INTERVAL_SECONDS)
            while cycles() < before[CYCLES] + LEAST_POLLS:  # if a busy server lists slowly
                time.sleep(POLL_INTERVAL_SECONDS * LEAST_POLLS)

        wait_until(lambda: cycles() >= FIRST_POLLS, "some polls", 60, step_seconds=0.5)
        before = daemon.metrics()
        spent = during(daemon.pid, pass_time)
        after = daemon.metrics()
        polls = after[CYCLES] - before[CYCLES]
        seconds = after[SECONDS] - before[SECONDS]
        return Cost(spent.cpu_seconds / polls, seconds / polls, spent.rss_mib)


def changes(
    store: Store, target: Path, layout: Mapping[str, str], turns: int
) -> Iterator[tuple[str, Cost]]:
    """
    Yield the costs of cycles of a running daemon: in turn, with no change, with one changed file,
    and with one changed and one deleted file.
    """

    def bring(deed: Callable[[], object]) -> None:
        deed()
        if "S3_SYNC_SOURCE" in layout:
            store.publish()

    bring(lambda: None)
    with Daemon(store, BUCKET, target, PREFIX, settings=layout) as daemon:
        daemon.wait_until_synced(120)
        for _ in range(FIRST_POLLS):
            daemon.sync()

        def sync() -> Cost:
            duration = 0.0

            def deed() -> None:
                nonlocal duration
                duration = daemon.sync()["duration_seconds"]
                time.sleep(AFTERMATH_SECONDS)

            spent = during(daemon.pid, deed)
            return Cost(spent.cpu_seconds, duration, spent.rss_mib)

        for _ in range(turns):
            yield "unchanged", sync()
            bring(store.edit)
            yield "edit", sync()
            bring(store.change)
            yield "change", sync()


# --- requests


def count_requests(
    store: Store, targets: Path, airflow: Path | None
) -> dict[tuple[str, str], Counter[str]]:
    """
    Return the number of requests by tool and situation.

    The folders are first synced without counting.
    """
    counts: dict[tuple[str, str], Counter[str]] = {}
    environment = store.environment()
    with CountingProxy(store.port) as proxy:
        endpoint = proxy.endpoint
        with open_peers(store, targets, endpoint, airflow) as peers:
            for name, peer in peers.items():
                peer.cold()
                proxy.take()
                peer.again()
                counts[name, "poll"] = proxy.take()
            for name, layout in LAYOUTS.items():
                run(["s3-sync"], environment | one_shot(targets / name, layout))
            proxy.take()
            store.change()
            store.publish()
            for name, peer in peers.items():
                peer.again()
                counts[name, "change"] = proxy.take()
                empty(peer.folder)
                peer.cold()
                counts[name, "cold"] = proxy.take()
        environment |= {"AWS_ENDPOINT_URL": endpoint}
        for name, layout in LAYOUTS.items():
            settings = {"AWS_ENDPOINT_URL": endpoint, **layout}
            with Daemon(store, BUCKET, targets / name, PREFIX, settings=settings) as daemon:
                daemon.wait_until_synced(120)
                counts[name, "change"] = proxy.take()
                daemon.sync()
                counts[name, "poll"] = proxy.take()
            empty(targets / name)
            run(["s3-sync"], environment | one_shot(targets / name, layout))
            counts[name, "cold"] = proxy.take()
    return counts
