"""
The resources of a long-lived process, and whether they stay constant.

The median of the last third of a run is compared with the median of the first. Python first touches
most of its memory within minutes, so memory samples from that time are ignored.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measure import children_of

WARM_UP_SECONDS = 120.0
LEAST_SAMPLES = 30
MIB = 1024


@dataclass(frozen=True)
class Sample:
    """
    The resources of a process at one moment.

    Args:
        seconds: Time since its start.
        rss_kib: Resident memory.
        children: Its direct children, including zombies.
        files: The number of files, folders and links on its volume, if it has one.
    """

    seconds: float
    rss_kib: int
    descriptors: int
    threads: int
    children: int
    zombies: int
    files: int


def sample(pid: int, seconds: float, folder: Path | None) -> Sample:
    """
    Sample a process.

    Raises:
        OSError: The process has ended.
    """
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    children = children_of(pid)
    return Sample(
        seconds,
        rss_kib=int(status["VmRSS"].split()[0]),
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        threads=int(status["Threads"]),
        children=len(children),
        zombies=sum(map(_is_zombie, children)),
        files=0 if folder is None else sum(len(f) + len(n) for _, f, n in os.walk(folder)),
    )


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


@dataclass(frozen=True)
class Series:
    """
    One figure of a process over a run.

    Args:
        allowed: Returns the maximum growth for the first median.
    """

    name: str
    values: Sequence[float]
    allowed: Callable[[float], float]

    @property
    def is_judged(self) -> bool:
        """
        Whether there are enough samples for a verdict.
        """
        return len(self.values) >= LEAST_SAMPLES

    @property
    def ends(self) -> tuple[float, float]:
        """
        The medians of the first and the last third.
        """
        third = max(1, len(self.values) // 3)
        first, last = self.values[:third] or [0], self.values[-third:] or [0]
        return statistics.median(first), statistics.median(last)

    @property
    def flaw(self) -> str:
        """
        The description of a growing figure; empty if it does not grow.
        """
        first, last = self.ends
        allowed = self.allowed(first)
        if not self.is_judged or last - first <= allowed:
            return ""
        return f"{self.name} grew from {first:,.0f} to {last:,.0f}; {allowed:,.0f} more is allowed"


def series_of(samples: Sequence[Sample], connections: int = 0) -> dict[str, Series]:
    """
    Return the figures that must stay constant, by name.

    Args:
        connections: The number of connections that the process may keep open or close.
    """
    warm = [one for one in samples if one.seconds >= WARM_UP_SECONDS]

    def made(name: str, values: Sequence[float], allowed: Callable[[float], float]) -> Series:
        return Series(name, values, allowed)

    found = [
        made("memory in KiB", [s.rss_kib for s in warm], lambda first: max(MIB, first * 0.03)),
        made("descriptors", [s.descriptors for s in samples], lambda _: 2 + connections),
        made("threads", [s.threads for s in samples], lambda _: 2),
        made("children", [s.children for s in samples], lambda _: 0),
        made("zombies", [s.zombies for s in samples], lambda _: 0),
        made("files on its volume", [s.files for s in samples], lambda first: 50 + first / 2),
    ]
    return {series.name: series for series in found}


def growth_per_hour(samples: Sequence[Sample]) -> float | None:
    """
    Return the memory growth in MiB per hour, the slope after the warm-up; None if too short.
    """
    warm = [one for one in samples if one.seconds >= WARM_UP_SECONDS]
    if len(warm) < LEAST_SAMPLES:
        return None
    slope = statistics.linear_regression(
        [one.seconds for one in warm], [one.rss_kib for one in warm]
    ).slope
    return slope * 3600 / MIB
