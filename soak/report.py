"""
The tables of a soak: during the run, at its end, and for its page in the docs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.report import REFERENCE, machine, table, version_of, write_part
from soak.flat import growth_per_hour
from soak.post import Post
from soak.station import Station

PAGE = REFERENCE / "soak.md"
MIB = 1024
MOST_FLAWS = 50


@dataclass(frozen=True)
class Run:
    """
    A finished soak.

    Args:
        left_out: Why sidecars were skipped, by name.
    """

    minutes: float
    seed: str
    stations: Sequence[Station]
    left_out: Mapping[str, str]

    @property
    def flaws(self) -> list[str]:
        """
        All flaws, each with the name of its sidecar.
        """
        return [f"{s.name}: {flaw}" for s in self.stations for flaw in s.flaws]


def so_far(stations: Sequence[Station], minutes: float) -> str:
    """
    Return the interim results.
    """
    lines = [f"after {minutes:.1f} minutes"]
    for station in stations:
        tally = station.tally
        lines.append(
            f"  {station.name:17} {tally.rounds:5} rounds  {_ends_of(station):4} kills and"
            f" restarts  {_reads_of(station):9,} reads  {len(station.flaws):3} flaws  recovery:"
            f" median {tally.median_seconds:.1f} s, max {max(tally.converged, default=0):.1f} s"
        )
    return "\n".join(lines)


def rounds_table(run: Run) -> str:
    """
    Return a table of the events and results of each station.
    """
    header = (
        "sidecar",
        "rounds",
        "faults",
        "SIGKILL",
        "SIGTERM, restart",
        "SIGSTOP",
        "SIGHUP",
        "reads",
        "changes read",
        "health probes",
        "unanswered in 5 s",
        "slowest answer",
        "recovery, median",
        "longest",
        "flaws",
    )
    rows = []
    for station in run.stations:
        tally = station.tally
        blows = [str(tally.blows[name]) for name in ("SIGKILL", "SIGTERM", "SIGSTOP", "SIGHUP")]
        rows.append(
            (
                station.name,
                str(tally.rounds),
                str(tally.faults.total()),
                *blows,
                f"{_reads_of(station):,}" if station.readers else "-",
                f"{sum(reader.changes for reader in station.readers):,}",
                f"{sum(post.probes for post in station.posts):,}",
                str(sum(post.unanswered for post in station.posts)),
                f"{max((post.slowest_seconds for post in station.posts), default=0.0):.2f} s",
                f"{tally.median_seconds:.1f} s",
                f"{max(tally.converged, default=0):.1f} s",
                str(len(station.flaws)),
            )
        )
    return table(header, rows)


def processes_table(run: Run) -> str:
    """
    Return a table of each spared process's resources in the first and last third of the run.
    """
    header = (
        "process",
        "cycles",
        "memory, MiB",
        "MiB per hour",
        "descriptors",
        "threads",
        "children",
        "zombies",
        "files on its volume",
        "log lines",
    )
    rows = [
        (_name_of(station, post), *_figures(post))
        for station in run.stations
        for post in station.posts
        if post.is_spared
    ]
    return table(header, rows)


def _figures(post: Post) -> list[str]:
    series = post.series()

    def ends(name: str, unit: float = 1, digits: int = 0) -> str:
        if not series[name].is_judged:
            return "too short"
        first, last = series[name].ends
        return f"{first / unit:.{digits}f} → {last / unit:.{digits}f}"

    slope = growth_per_hour(post.samples)
    return [
        f"{post.cycles:,}",
        ends("memory in KiB", MIB, 1),
        "too short" if slope is None else f"{slope:+.2f}",
        *(ends(name) for name in ("descriptors", "threads", "children", "zombies")),
        ends("files on its volume") if post.folder else "-",
        f"{post.lines:,}",
    ]


def kinds_table(run: Run) -> str:
    """
    Return a table with the number of changes and faults of each kind.
    """

    def shown(counter: Counter[str]) -> str:
        return ", ".join(f"{name} {count}" for name, count in sorted(counter.items()) if count)

    rows = [
        (station.name, shown(station.tally.changes), shown(station.tally.faults))
        for station in run.stations
    ]
    header, rule, *lines = table(("sidecar", "changes", "faults"), rows).splitlines()
    return "\n".join([header, rule.replace("--:", "---"), *lines]) + "\n"


def summary(run: Run) -> str:
    """
    Return all tables as Markdown.
    """
    engines = {station.name: station.engine() for station in run.stations if station.engine()}
    facts = [
        f"{run.minutes:g} minutes, `SEED={run.seed}`, {len(run.flaws)} flaws.",
        machine({"git": version_of("git", "--version")}),
        *(f"Beside {name}: {engine}." for name, engine in engines.items()),
        *(f"Skipped: {name}: {reason}." for name, reason in run.left_out.items()),
    ]
    flaws = "".join(f"- {flaw}\n" for flaw in run.flaws[:MOST_FLAWS])
    parts = ["\n".join(facts) + "\n", rounds_table(run), processes_table(run), kinds_table(run)]
    return "\n".join([*parts, flaws] if flaws else parts)


def write_page(run: Run) -> None:
    """
    Write the summary of a run into the documentation.
    """
    write_part("soak", summary(run), PAGE)


def _name_of(station: Station, post: Post) -> str:
    return station.name if post.name == "spared" else f"{station.name}: {post.name}"


def _ends_of(station: Station) -> int:
    return station.tally.blows["SIGKILL"] + station.tally.blows["SIGTERM"]


def _reads_of(station: Station) -> int:
    return sum(reader.reads for reader in station.readers)
