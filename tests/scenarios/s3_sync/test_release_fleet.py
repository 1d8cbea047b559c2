"""
A fleet on one bucket while releases and rollbacks happen: every reader has the right revision at
every moment, none sees a mix, and each asks no more often than it must.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Counts
from tests.support.publishing import Publishing, write_files
from tests.support.revisions import make_revision
from tests.support.servers import S3Server
from tests.support.shelf import RELEASE

ROOT = Path(__file__).parents[3]
PROCESSES = 3
TURNS = 7


class Publisher:
    """
    CI: publishes folders and rolls back, by the command.

    Attributes:
        periods: Which revision may have been current from when to when, by the machine's monotonic
            clock; the last is open.
    """

    def __init__(self, server: S3Server, bucket: str, folder: Path) -> None:
        self._commands = Publishing(server, bucket, folder)
        self._folder = folder / "checkout"
        self._names: dict[str, int] = {}
        self.periods: list[list[float]] = []

    def publish(self, number: int) -> None:
        """Publish a revision whose every file says its number."""
        self._run(number, "publish", write_files(self._folder, make_revision(number)))

    def roll_back(self) -> None:
        """Go back to what was current before."""
        self._run(None, "rollback")

    def _run(self, number: int | None, *arguments: str | Path) -> None:
        began = time.monotonic()
        revision = self._commands.succeed(*arguments)["revision"]
        if number is not None:
            self._names[revision] = number
        if self.periods:
            self.periods[-1][1] = time.monotonic()
        self.periods.append([began, float("inf"), self._names[revision]])

    def current_between(self, began: float, ended: float) -> set[int]:
        """The revisions that may have been current at some moment in this time."""
        return {int(n) for start, end, n in self.periods if start <= ended and end >= began}


@dataclass
class Fleet:
    """Processes full of readers."""

    server: S3Server
    bucket: str
    folder: Path
    seen: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @contextmanager
    def running(self, kind: str, readers: int) -> Iterator[list[subprocess.Popen[str]]]:
        """Let that many readers run, in a few processes."""
        processes: list[subprocess.Popen[str]] = []
        shares = [len(range(start, readers, PROCESSES)) for start in range(PROCESSES)]
        environment = {
            **self.server.environment(),
            **RELEASE,
            "PATH": "/usr/bin:/bin",
            "AWS_BUCKET": self.bucket,
            "KEY_PATH": "dags",
        }
        try:
            for number, share in enumerate(shares):
                folder = str(self.folder / f"{kind}{number}")
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "tests.support.fleet", kind, str(share), folder],
                        cwd=ROOT,
                        env={**environment, "HOME": str(self.folder)},
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                    )
                )
            yield processes
        finally:
            for process in processes:
                process.kill()
                process.communicate()

    def gather(self, kind: str, processes: list[subprocess.Popen[str]], given: str = "") -> None:
        """Let them come to their end, and keep what they saw."""
        self.seen[kind] = []
        for process in processes:
            output, _ = process.communicate(given, timeout=900)
            assert 0 == process.returncode
            self.seen[kind].append(json.loads(output.splitlines()[-1]))

    def total(self, kind: str, what: str) -> dict[str, int]:
        """Add up what all processes counted."""
        total: dict[str, int] = {}
        for seen in self.seen[kind]:
            for name, value in seen[what].items():
                total[name] = total.get(name, 0) + value
        return total


def judge(fleet: Fleet, publisher: Publisher, readers: int, name: str) -> None:
    """Compare what all saw with what was current."""
    looks = {
        kind: [look for one in seen for look in one["looks"]] for kind, seen in fleet.seen.items()
    }
    wrong = [
        (kind, look)
        for kind, all_looks in looks.items()
        for look in all_looks
        if look[2] not in publisher.current_between(look[0], look[1])
    ]
    revisions = {look[2] for all_looks in looks.values() for look in all_looks}
    polls, fetches = fleet.total("poll", "requests"), fleet.total("once", "requests")
    print(f"{name}: {readers} + {readers} readers, {len(publisher.periods)} times another release")
    print(f"{len(looks['poll'])} polls: {polls}; {len(looks['once'])} fetches: {fetches}")

    for kind in fleet.seen:
        assert {} == fleet.total(kind, "failures")
        assert [] == [flaw for seen in fleet.seen[kind] for flaw in seen["flaws"]]
    assert [] == wrong
    assert 0 == sum(seen["behind"] for seen in fleet.seen["poll"])
    assert readers == len(looks["once"])
    assert len(revisions) >= 3, "too few releases were seen by anybody"
    # One request for a poll, three for a fetch; never a listing.
    assert {"pointer", "manifest", "bundle"} >= {k for k, v in {**polls, **fetches}.items() if v}
    assert len(looks["poll"]) == polls["pointer"]
    assert readers == fetches["pointer"] == fetches["manifest"] == fetches["bundle"]


@pytest.mark.timeout(3_600)
def test_every_reader_has_the_right_revision_at_every_moment(
    fast_server: S3Server, counts: Counts, tmp_path: Path
) -> None:
    """Release and roll back while many readers poll and as many fetch once."""
    chance = random.Random(7)
    readers = counts.readers
    bucket = fast_server.new_bucket("fleet")
    publisher = Publisher(fast_server, bucket, tmp_path)
    fleet = Fleet(fast_server, bucket, tmp_path)
    publisher.publish(1)
    with fleet.running("poll", readers) as pollers, fleet.running("once", readers) as fetchers:
        turn = 1
        while turn < TURNS or any(process.poll() is None for process in fetchers):
            turn += 1
            if turn > 3 and chance.random() < 0.3:
                publisher.roll_back()
            else:
                publisher.publish(turn)
            time.sleep(chance.uniform(0, 0.6))  # readers need the processor, too
        fleet.gather("once", fetchers)
        last = int(publisher.periods[-1][2])
        fleet.gather("poll", pollers, f"{last}\n")
    judge(fleet, publisher, readers, fast_server.name)
