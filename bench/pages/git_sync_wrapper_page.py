"""
The results of git-sync-wrapper and its peers, as tables, a plot, and budgets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.budgets import Outcome, at_most, at_most_part, at_most_seconds, none_of
from bench.git_siege import PROMISED, Siege
from bench.measure import Cost, least, median
from bench.report import Section, machine, seconds, table, times

PEER, OURS = "git-sync", "git-sync-wrapper"
POLL_PART = 1 / 2.5
IDLE_MIB = 44
FIRST_PUBLISH_SECONDS = 0.6
COLD_PART = 2.0
CHANGE_PART = 1.3
LOOKS = "It is one `git ls-remote`, started from Python."
STARTING = "The rest is the start of Python, and each file is linked, and read for its digest."
COMPARED = (
    "git-sync checks out all files; the wrapper compares each with its predecessor and links equal "
    "ones."
)


@dataclass(frozen=True)
class Poll:
    """
    The cost of one poll without a change.

    Args:
        processes: Processes and threads started for it; None if this machine cannot count them.
    """

    cost: Cost
    processes: float | None


@dataclass
class Results:
    """
    All results of the benchmark.

    Args:
        polls, cold, change: By number of files and tool, one for each turn.
        rss_mib: The memory of the wrapper alone, between polls.
        sieges: The results of readers, by tool.
    """

    polls: dict[tuple[int, str], list[Poll]] = field(default_factory=lambda: defaultdict(list))
    cold: dict[tuple[int, str], list[Cost]] = field(default_factory=lambda: defaultdict(list))
    change: dict[tuple[int, str], list[Cost]] = field(default_factory=lambda: defaultdict(list))
    rss_mib: float = 0.0
    sieges: dict[str, Siege] = field(default_factory=dict)

    def poll(self, files: int, name: str) -> Cost:
        return least(poll.cost for poll in self.polls[files, name])


def section(results: Results, versions: Mapping[str, str]) -> Section:
    """
    Return the section of the page.
    """
    return Section(
        OURS,
        {
            "machine": machine(versions),
            "poll": poll_table(results),
            "change": change_table(results),
            "readers": readers_table(results),
        },
        budgets(results),
    )


def budgets(results: Results) -> list[Outcome]:
    """
    Return the outcomes of all budgets.
    """
    outcomes = []
    for files, name in results.polls:
        if name == OURS:
            ratio = results.poll(files, OURS).cpu_seconds / results.poll(files, PEER).cpu_seconds
            what = f"{files:,} files vs. git-sync"
            promise = "poll without a change, CPU"
            outcomes.append(at_most_part(promise, what, POLL_PART, ratio, LOOKS))
    for promise, costs, most, because in (
        ("cold start, CPU", results.cold, COLD_PART, STARTING),
        ("one file changed, CPU", results.change, CHANGE_PART, COMPARED),
    ):
        for files in sorted({files for files, _ in costs}):
            ours, peer = (least(costs[files, name]).cpu_seconds for name in (OURS, PEER))
            what = f"{files:,} files vs. git-sync"
            outcomes.append(at_most_part(promise, what, most, ours / peer, because))
    siege = results.sieges[OURS]
    files = min(files for files, _ in results.cold)
    first = least(results.cold[files, OURS]).cpu_seconds
    return [
        *outcomes,
        none_of("reads of an incomplete tree", siege.happened, siege.failed, siege.trees, PROMISED),
        at_most("memory", "between polls, without git-sync", IDLE_MIB, results.rss_mib, "MiB"),
        at_most_seconds(
            "start",
            f"to the first publish of {files:,} files, git-sync included, CPU",
            FIRST_PUBLISH_SECONDS,
            first,
        ),
    ]


def poll_table(results: Results) -> str:
    """
    Return a table of polls by size and tool.
    """
    rows = []
    for (files, name), polls in results.polls.items():
        low = least(poll.cost for poll in polls)
        middle = median(poll.cost for poll in polls)
        processes = polls[-1].processes
        ours = results.poll(files, OURS).cpu_seconds
        rows.append(
            [
                _bold(name),
                f"{files:,}",
                seconds(low.cpu_seconds),
                seconds(middle.cpu_seconds),
                times(low.cpu_seconds / ours),
                "?" if processes is None else f"{processes:.1f}",
                f"{middle.rss_mib:.0f} MiB",
            ]
        )
    header = ["poll", "files", "CPU", "median", "relative", "processes started", "memory"]
    return table(header, rows)


def change_table(results: Results) -> str:
    """
    Return a table of cold starts and commits.
    """
    rows = []
    for what, found in (("cold", results.cold), ("one file changed", results.change)):
        for (files, name), costs in found.items():
            low, middle = least(costs), median(costs)
            rows.append(
                [
                    _bold(name),
                    what,
                    f"{files:,}",
                    seconds(low.cpu_seconds),
                    seconds(middle.cpu_seconds),
                    times(low.cpu_seconds / least(found[files, OURS]).cpu_seconds),
                    seconds(low.wall_seconds),
                ]
            )
    return table(["", "situation", "files", "CPU", "median", "relative", "wall"], rows)


def readers_table(results: Results) -> str:
    """
    Return a table of the results of readers.
    """
    rows = [
        [_bold(name), siege.happened, f"{siege.trees:,}", f"{siege.failed:,}"]
        for name, siege in results.sieges.items()
    ]
    return table(["", "events", "trees read", "incomplete or missing"], rows)


def _bold(name: str) -> str:
    return f"**{name}**" if name == OURS else name
