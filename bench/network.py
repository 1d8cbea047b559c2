"""
``python -m bench network``: what a new pod waits for when S3 is not on this machine.

A TLS server (`rclone serve s3`, objects in memory) and STS stand behind a proxy that
delays each chunk by half a round trip, and a connection by a whole one. aws, s5cmd,
rclone and s3-sync fill an empty folder in memory, in turns.
"""

import os
import ssl
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.budgets import Outcome, at_most, at_most_part
from bench.delay import Length, Network
from bench.images import install
from bench.report import deliver, options, seconds, table, times
from bench.s3_store import Store, fill, one_shot, open_store, role_of
from bench.s3_sync import LAYOUTS, OURS, RELEASE, commands, poll, versions
from tests.support.http.certificates import self_signed
from tests.support.s3_sync.scripted import published

ROLE = "s3-sync, with a role"
ROUND_TRIPS = (0.002, 0.020, 0.080)
BUDGET_AT = 0.020
LOST = Length(BUDGET_AT, 0.01)
PARTS = [(400, OURS, 1.0), (400, RELEASE, 1 / 2), (1_000, OURS, 1.0)]
PARTS += [(1_000, RELEASE, 1 / 3)]
MOST_FOR_A_POLL = 1.5
MOST_FOR_A_ROLE = 2.0


Trips = dict[tuple[Length, int, str], list[float]]
"""
The wall seconds of a program that fills a folder from nothing, by the way to S3, number
of files and tool.
"""


def main(arguments: Sequence[str]) -> None:
    """
    Measure, print the tables, and with `--write` also into the documentation.
    """
    given = options(
        "network",
        __doc__,
        arguments,
        files=([400, 1_000], "files in the bucket"),
        turns=(3, "measurements of each tool"),
    )
    lengths = [*map(Length, ROUND_TRIPS), LOST]
    trips: Trips = defaultdict(list)
    polls: dict[str, float] = {}
    for files in given.files:
        with (
            tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as targets,
            tempfile.TemporaryDirectory(prefix="bench-") as own,
        ):
            context = secure(Path(own, "tls"))
            ours = install(OURS, Path(own, "venv"))
            with open_store(files, SecureStore) as store:
                for length in lengths:
                    print(f"{files:,} files, {length}", flush=True)
                    turns = 1 if length == LOST else given.turns
                    site = Site(store, Path(targets), ours, context)
                    measure(site, length, turns, trips)
                    if length == Length(BUDGET_AT) and files == given.files[0]:
                        polls = polls_of(site, length)
    parts = {
        f"{files:,} files, {length}": table_of(trips, length, files)
        for length, files in dict.fromkeys((key[0], key[1]) for key in trips)
    }
    outcomes = budgets(trips, polls)
    deliver("network", parts, outcomes, versions(), page=given.page)


def secure(folder: Path) -> ssl.SSLContext:
    """
    Make the certificate of both servers, let this process trust it, and return the
    context of a server.
    """
    context, authority = self_signed(folder, "localhost")
    os.environ["AWS_CA_BUNDLE"] = str(authority)
    os.environ["SSL_CERT_FILE"] = str(authority)
    # With TLS, boto3 would send the checksum behind the body, which rclone refuses.
    os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"] = "when_required"
    return context


class SecureStore(Store):
    """
    The server of the benchmarks, with TLS.
    """

    def command(self) -> list[str]:
        authority = Path(os.environ["AWS_CA_BUNDLE"])
        key = authority.with_name("key.pem")
        return [*super().command(), f"--cert={authority}", f"--key={key}"]

    @property
    def endpoint(self) -> str:
        return super().endpoint.replace("http:", "https:")

    def environment(self) -> dict[str, str]:
        trusted = {
            name: os.environ[name] for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE")
        }
        return super().environment() | trusted


class Site(NamedTuple):
    """
    What is measured, and where.
    """

    store: Store
    targets: Path
    ours: list[str]
    context: ssl.SSLContext


def measure(site: Site, length: Length, turns: int, trips: Trips) -> None:
    """
    Add the trips of all tools through one network; they take turns.
    """
    store = site.store
    files = len(published(store.source))
    with (
        role_of(store, site.targets, site.context) as (sts, role),
        Network(length) as network,
    ):
        endpoint = f"https://127.0.0.1:{network.way_to(store.port)}"
        keys = store.environment() | {"AWS_ENDPOINT_URL": endpoint}
        role["AWS_ENDPOINT_URL"] = endpoint
        role["AWS_ENDPOINT_URL_STS"] = f"https://127.0.0.1:{network.way_to(sts.port)}"
        peers = commands(endpoint, site.targets)
        for name in (*peers, *LAYOUTS, ROLE) * turns:
            target = site.targets / name
            given = role if name == ROLE else keys
            given = {**given, **one_shot(target), **LAYOUTS.get(name, LAYOUTS[OURS])}
            spent = fill(store, target, peers.get(name, site.ours), given)
            trips[length, files, name].append(spent.wall_seconds)


def polls_of(site: Site, length: Length) -> dict[str, float]:
    """
    Return how many round trips a poll takes that finds no change, by layout.
    """
    found = {}
    with Network(length) as network:
        far = site.store.environment()
        port = network.way_to(site.store.port)
        far["AWS_ENDPOINT_URL"] = f"https://127.0.0.1:{port}"
        for name, layout in LAYOUTS.items():
            spent = poll(site.store, site.targets / name, {**layout, **far})
            found[name] = spent.wall_seconds / length.round_trip_seconds
    return found


def table_of(trips: Trips, length: Length, files: int) -> str:
    """
    Return a table of the lowest wall time of each tool.
    """
    least = {
        tool: min(found)
        for (far, size, tool), found in trips.items()
        if (far, size) == (length, files)
    }
    rows = [
        [tool, seconds(wall), times(wall / least[OURS])] for tool, wall in least.items()
    ]
    return table(["tool", "wall", "relative"], rows)


def budgets(trips: Trips, polls: Mapping[str, float]) -> list[Outcome]:
    """
    Return the outcomes of all budgets of the files that were measured.
    """
    length = Length(BUDGET_AT)
    found = []
    for files, tool, most in PARTS:
        peers = {
            name: min(walls)
            for key, walls in trips.items()
            if key[:2] == (length, files) and not (name := key[2]).startswith(OURS)
        }
        if not peers:
            continue
        best = min(peers, key=peers.__getitem__)
        part = min(trips[length, files, tool]) / peers[best]
        what = f"wall, {files:,}, {length}, vs. {best}"
        found.append(at_most_part(f"{tool}, cold", what, most, part))
    for name, count in polls.items():
        what = f"{name}, {length}"
        found.append(at_most("a poll", what, MOST_FOR_A_POLL, count, "round trips"))
    for files in dict.fromkeys(key[1] for key in trips):
        walls = [min(trips[length, files, name]) for name in (ROLE, OURS)]
        more = max(0.0, walls[0] - walls[1]) / BUDGET_AT
        what = f"wall, {files:,}, {length}, more than with keys"
        found.append(at_most("a role", what, MOST_FOR_A_ROLE, more, "round trips"))
    return found
