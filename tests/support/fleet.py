"""
Many readers of releases in one process, which look at their own tree after each cycle.

As a program, `python fleet.py poll|once COUNT FOLDER`, with the settings of s3-sync in the
environment but for DEST_PATH, which each reader has below FOLDER; every second one has the layout
snapshot. `once` fetches into an empty folder, with new readers. `poll` runs cycles until a line
comes on standard input, the number of the last revision, and all are there. What was seen is
printed as one line of JSON.
"""

import json
import os
import selectors
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from s3_sync.metrics import SyncMetrics
from s3_sync.settings import load_settings
from s3_sync.sidecar import S3Sync
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from tests.support.revisions import Flaw, read_revision

GIVE_UP_SECONDS = 120


@dataclass
class Seen:
    """
    What the readers of one process saw.
    """

    looks: list[tuple[float, float, int]] = field(default_factory=list)
    """When a cycle began and ended by the machine's monotonic clock, and the revision that its
    reader then had; -1: none."""
    failures: dict[str, int] = field(default_factory=dict)
    """By reason."""
    flaws: list[str] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)
    """By operation."""
    behind: int = 0
    """Readers that never came to the last revision."""


class Reader:
    """
    One s3-sync with a target of its own.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.target = folder / f"reader{number}"
        layout = "snapshot" if number % 2 else "in-place"
        self._root = self.target / "current" if number % 2 else self.target
        environment = {"DEST_PATH": str(self.target), "S3_SYNC_LAYOUT": layout}
        settings, _ = load_settings({**os.environ, **environment})
        self.metrics = SyncMetrics("test", "test")
        self._session = S3Sync(settings, self.metrics).begin()

    def cycle(self, seen: Seen) -> int:
        """
        Run one cycle, look at the whole tree, and write down what was seen.
        """
        began = time.monotonic()
        try:
            self._session.cycle(Fence())
        except SidecarError as error:
            reason = str(error.reason)
            seen.failures[reason] = seen.failures.get(reason, 0) + 1
        ended, number = time.monotonic(), -1
        if self._root.exists():
            try:
                number = read_revision(str(self._root.resolve()), (".s3-sync",))
            except (Flaw, OSError, ValueError) as flaw:
                seen.flaws.append(f"{self.target.name}: {flaw!r}")
        seen.looks.append((began, ended, number))
        return number

    def close(self, seen: Seen) -> None:
        """
        End, and add up the requests.
        """
        self._session.close()
        for family in self.metrics.registry.collect():
            for sample in family.samples:
                if sample.name == "s3_sync_requests_total":
                    operation = sample.labels["operation"]
                    seen.requests[operation] = seen.requests.get(operation, 0) + int(sample.value)


def fetch(count: int, folder: Path) -> Seen:
    """
    Let one reader after the other fill an empty folder.
    """
    seen = Seen()
    for number in range(count):
        reader = Reader(folder, number)
        reader.cycle(seen)
        reader.close(seen)
        shutil.rmtree(reader.target)
    return seen


def poll(count: int, folder: Path) -> Seen:
    """
    Let all readers run cycles, until all have what they are told to wait for.
    """
    seen = Seen()
    readers = [Reader(folder, number) for number in range(count)]
    last, deadline = None, float("inf")
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            numbers = [reader.cycle(seen) for reader in readers]
            seen.behind = sum(number != last for number in numbers)
            if last is not None and (not seen.behind or time.monotonic() > deadline):
                break
            if last is None and selector.select(0):
                last, deadline = int(sys.stdin.readline()), time.monotonic() + GIVE_UP_SECONDS
    for reader in readers:
        reader.close(seen)
    return seen


if __name__ == "__main__":
    run = {"poll": poll, "once": fetch}[sys.argv[1]]
    print(json.dumps(asdict(run(int(sys.argv[2]), Path(sys.argv[3])))))
