"""
The results of s3-sync and its peers, as tables, plots, and budgets.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import s5cmd

from bench.budgets import Outcome, at_most, at_most_part, at_most_seconds
from bench.measure import Cost, least, median
from bench.report import Plot, Section
from bench.report import machine, seconds, table, times, version_of
from tests.support.daemon import VENV_BIN

OURS = "s3-sync"
RELEASE = "s3-sync, release"
RELEASE_SNAPSHOT = "s3-sync, release, snapshot"
RELEASES = "releases"
SNAPSHOT = {"S3_SYNC_LAYOUT": "snapshot"}
FROM_RELEASES = {"S3_SYNC_SOURCE": "release", "KEY_PATH": RELEASES}
LAYOUTS: Mapping[str, Mapping[str, str]] = {
    OURS: {},
    "s3-sync, snapshot": SNAPSHOT,
    RELEASE: FROM_RELEASES,
    RELEASE_SNAPSHOT: FROM_RELEASES | SNAPSHOT,
}


class Place(StrEnum):
    """
    The target of the files, and the transport.
    """

    MEMORY = "memory"
    DISK = "disk"
    TLS = "tls"


SITUATIONS = {
    "cold": "Cold start into an empty folder",
    "poll": "Poll that finds no change",
    "change": "One file changed, one deleted",
}

Costs = Mapping[tuple[str, str], list[Cost]]


@dataclass
class Results:
    """
    All results of the benchmark.

    Args:
        disk: The file system of `Place.DISK`.
        costs: By place and number of files, then by tool and situation.
        requests: By number of files, then by tool and situation.
    """

    disk: str
    costs: dict[tuple[Place, int], Costs] = field(default_factory=dict)
    requests: dict[int, Mapping[tuple[str, str], Counter[str]]] = field(default_factory=dict)

    def least(self, place: Place, files: int, tool: str, situation: str) -> Cost:
        return least(self.costs[place, files][tool, situation])

    def files(self, place: Place) -> list[int]:
        """
        Return the numbers of files that were measured at a place.
        """
        return sorted(files for where, files in self.costs if where == place)

    def tools(self) -> list[str]:
        """
        Return the names of all tools, s3-sync first.
        """
        costs = next(iter(self.costs.values()))
        peers = [tool for tool, _ in costs if tool not in LAYOUTS]
        return [*LAYOUTS, *dict.fromkeys(peers)]


@dataclass(frozen=True)
class Budget:
    """
    The highest allowed ratio of the cost of s3-sync to that of a peer ("rclone": its best mode).

    Args:
        because: The reason, if it is missed.
    """

    situation: str
    files: int
    peer: str
    most: float
    figure: str = "CPU"
    tool: str = OURS
    because: str = ""


PYTHON = (
    "The start of Python, and the child that reads credentials with botocore, take longer than the "
    "whole run of rclone."
)
START = "Much of it is the start of Python."
DOWNLOADS = "Each file is a separate request, which costs CPU in Python."
REQUEST = "It is a whole cycle, in a process with cold caches."
EDITED = "Its page is read again, and the 10 pages are merged and compared."
COMPARED = "10,000 rows are compared with published files, and a sixth of the files is inspected."
LINKED = "A snapshot of 10,000 files needs 10,000 hard links."
KNOWN = "It keeps an entry for each file."
BUDGETS = [
    # 200 ms, compared with the 78 ms of rclone when the budget was set.
    Budget("cold", 100, "rclone", 200 / 78, because=START),
    Budget("cold", 1_000, "aws s3 sync", 1 / 6, because=START),
    Budget("cold", 1_000, "s5cmd", 0.6),
    Budget("cold", 1_000, "rclone", 1.2, because=START),
    Budget("cold", 1_000, "aws s3 sync", 1, "wall"),
    Budget("cold", 1_000, "s5cmd", 1, "wall"),
    Budget("cold", 10_000, "aws s3 sync", 1 / 14, because=DOWNLOADS),
    Budget("cold", 10_000, "s5cmd", 1 / 5),
    Budget("cold", 10_000, "rclone", 0.6, because=DOWNLOADS),
    Budget("cold", 10_000, "aws s3 sync", 1, "wall"),
    Budget("cold", 10_000, "s5cmd", 1, "wall"),
    Budget("poll", 1_000, "aws s3 sync", 1 / 80),
    Budget("poll", 1_000, "s5cmd", 1 / 25),
    Budget("poll", 1_000, "rclone", 1 / 12),
    Budget("poll", 10_000, "aws s3 sync", 1 / 25),
    Budget("poll", 10_000, "s5cmd", 1 / 20),
    Budget("poll", 10_000, "rclone", 1 / 4),
    Budget("cold", 1_000, "aws s3 sync", 1 / 5, tool=RELEASE),
    Budget("cold", 1_000, "rclone", 1.4, tool=RELEASE),
    Budget("cold", 10_000, "aws s3 sync", 1 / 20, tool=RELEASE),
    Budget("cold", 10_000, "rclone", 0.4, tool=RELEASE),
    *(
        Budget("cold", files, peer, 1, "wall", RELEASE, PYTHON if peer == "rclone" else "")
        for files in (1_000, 10_000)
        for peer in ("aws s3 sync", "s5cmd", "rclone")
    ),
    Budget("poll", 1_000, "aws s3 sync", 1 / 1_000, tool=RELEASE, because=REQUEST),
    Budget("poll", 10_000, "aws s3 sync", 1 / 2_000, tool=RELEASE, because=REQUEST),
]
# Absolute budgets; the first is the cost of a change beyond a poll of the same files.
EDIT_SECONDS = 0.010
EDIT_FILES = 10_000
RELEASE_EDIT_SECONDS = {RELEASE: 0.012, RELEASE_SNAPSHOT: 0.100}
FIRST_PUBLISH_SECONDS = 0.2
FIRST_PUBLISH_FILES = 100
IDLE_MIB = 48
IMAGE_MB = 60


def section(
    results: Results,
    image: Outcome,
    airflow: Path | None = None,
    missing: Mapping[str, str] | None = None,
) -> Section:
    """
    Return the section of the page.

    Args:
        image: The outcome of the image's size.
        airflow: The environment with S3DagBundle; None = it is missing.
        missing: Peers that were not measured, with the reason.
    """
    found = {"machine": machine(versions(airflow)) + f" The disk is {results.disk}.\n"}
    for place in Place:
        if results.files(place):
            found[str(place)] = "\n".join(
                table_of(results, place, situation, files)
                for situation in SITUATIONS
                for files in results.files(place)
            )
    if results.requests:
        found["requests"] = requests(results)
    plots = [
        Plot(situation, f"{title}: CPU (logarithmic)", bars(results, situation))
        for situation, title in SITUATIONS.items()
        if results.files(Place.MEMORY)
    ]
    return Section(OURS, found, [*budgets(results), image], plots, missing or {})


def versions(airflow: Path | None) -> dict[str, str]:
    """
    Return the versions of all programs.
    """
    bundle = {}
    if airflow is not None:
        python = airflow / "bin" / "python"
        for name in ("apache-airflow-core", "apache-airflow-providers-amazon"):
            said = f"import importlib.metadata as m; print(m.version({name!r}))"
            bundle[name] = version_of(python, "-c", said)
    return {
        "aws": version_of(VENV_BIN / "aws", "--version"),
        "s5cmd": version_of(Path(s5cmd.__file__).parent / "bin" / "s5cmd", "version"),
        "rclone": version_of(VENV_BIN / "rclone", "version"),
        **bundle,
        OURS: version_of(VENV_BIN / "s3-sync", "--version"),
    }


def table_of(results: Results, place: Place, situation: str, files: int) -> str:
    """
    Return a table of the costs of all tools in one situation.
    """
    ours = results.least(place, files, OURS, situation).cpu_seconds
    rows = []
    for tool in results.tools():
        costs = results.costs[place, files].get((tool, situation))
        if not costs:
            continue
        low, middle = least(costs), median(costs)
        rows.append(
            [
                f"**{tool}**" if tool in LAYOUTS else tool,
                seconds(low.cpu_seconds),
                seconds(middle.cpu_seconds),
                times(low.cpu_seconds / ours),
                seconds(low.wall_seconds),
                seconds(middle.wall_seconds),
                f"{low.rss_mib:.0f} MiB",
            ]
        )
    heading = f"{SITUATIONS[situation]}, {files:,} files"
    header = [heading, "CPU", "median", "relative", "wall", "median", "memory"]
    return table(header, rows)


def bars(results: Results, situation: str) -> dict[str, dict[str, float]]:
    """
    Return the bars of a plot: CPU seconds by tool, by number of files.
    """
    return {
        f"{files:,} files": {
            tool: results.least(Place.MEMORY, files, tool, situation).cpu_seconds
            for tool in reversed(results.tools())
            if results.costs[Place.MEMORY, files].get((tool, situation))
        }
        for files in results.files(Place.MEMORY)
    }


def requests(results: Results) -> str:
    """
    Return a table of the requests of each tool.
    """
    rows = []
    for files, counts in sorted(results.requests.items()):
        for tool in results.tools():
            if (tool, "cold") not in counts:
                continue
            name = f"**{tool}**" if tool in LAYOUTS else tool
            cold = counts[tool, "cold"]["connections"]
            of_each = [_kinds(counts[tool, situation]) for situation in SITUATIONS]
            rows.append([name, f"{files:,}", *of_each, f"{cold:,}"])
    return table(["", "files", *SITUATIONS, "connections, cold"], rows)


def _kinds(counts: Counter[str]) -> str:
    kinds = [kind for kind in ("LIST", "GET", "HEAD") if counts[kind]]
    return ", ".join(f"{counts[kind]:,} {kind}" for kind in kinds)


# --- budgets


def budgets(results: Results) -> list[Outcome]:
    """
    Return the outcomes of all budgets except that of the image.
    """
    if not results.files(Place.MEMORY):
        return []
    return [*_ratios(results), *_absolutes(results)]


def _ratios(results: Results) -> Iterator[Outcome]:
    for budget in BUDGETS:
        if budget.files not in results.files(Place.MEMORY):
            continue
        peers = [tool for tool in results.tools() if tool.startswith(budget.peer)]

        def figure(tool: str, budget: Budget = budget) -> float:
            cost = results.least(Place.MEMORY, budget.files, tool, budget.situation)
            return cost.cpu_seconds if budget.figure == "CPU" else cost.wall_seconds

        best = min(peers, key=figure)
        source = "listing" if budget.tool == OURS else "release"
        situation = {"cold": "cold start", "poll": "poll without a change"}[budget.situation]
        yield at_most_part(
            f"{source}, {situation}, {budget.figure}",
            f"{budget.files:,} files vs. {best}",
            budget.most,
            figure(budget.tool) / figure(best),
            budget.because,
        )


def _absolutes(results: Results) -> Iterator[Outcome]:
    measured = results.files(Place.MEMORY)

    def middle(files: int, tool: str, situation: str) -> Cost:
        return median(results.costs[Place.MEMORY, files][tool, situation])

    if EDIT_FILES in measured:
        promise = f"one of {EDIT_FILES:,} files changed, CPU"
        edit, unchanged = (
            middle(EDIT_FILES, OURS, situation).cpu_seconds for situation in ("edit", "unchanged")
        )
        yield at_most_seconds(
            promise, "listing, beyond a poll", EDIT_SECONDS, edit - unchanged, EDITED
        )
        for tool, most in RELEASE_EDIT_SECONDS.items():
            is_direct = tool == RELEASE
            what = "release, in place" if is_direct else "release, snapshot"
            because = COMPARED if is_direct else LINKED
            spent = middle(EDIT_FILES, tool, "edit").cpu_seconds
            yield at_most_seconds(promise, what, most, spent, because)
    if FIRST_PUBLISH_FILES in measured:
        first = results.least(Place.MEMORY, FIRST_PUBLISH_FILES, OURS, "cold").cpu_seconds
        what = f"to the first publish of {FIRST_PUBLISH_FILES} files, CPU"
        yield at_most_seconds("start", what, FIRST_PUBLISH_SECONDS, first, START)
    for tool, files in itertools.product((OURS, RELEASE), measured):
        what = f"{'listing' if tool == OURS else 'release'}, {files:,} files"
        yield at_most("memory", what, IDLE_MIB, middle(files, tool, "poll").rss_mib, "MiB", KNOWN)


def file_system_of(folder: Path) -> str:
    """
    Return the type of a folder's file system.
    """
    found = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if folder.resolve().is_relative_to(mount) and len(mount) > len(found[0]):
            found = (mount, kind)
    return found[1]
