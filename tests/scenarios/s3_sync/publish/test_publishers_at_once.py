"""Concurrent publishers, whose requests are served in a random order."""

import json
import random
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from s3_sync.release.format import POINTER_KEY, read_pointer
from tests.conftest import Counts
from tests.support.aws.s3_refusals import signed_by
from tests.support.aws.writable_s3 import WritableS3
from tests.support.http.loopback import Exchange
from tests.support.s3_sync.publishing import (
    PREFIX,
    Publishing,
    check_every_release,
    read_release,
    write_files,
)
from tests.support.s3_sync.releases import make_release
from tests.support.waiting import wait_until

PUBLISHERS = [f"AKIAPUBLISHER000000{number}" for number in range(4)]


class Turnstile:
    """
    A server that answers one request at a time, chosen at random once all publishers wait.

    Attributes:
        turns: The revisions that were current, oldest first.
    """

    def __init__(self, server: WritableS3, seed: int) -> None:
        self.server = server
        self.turns: list[str] = []
        self._dice = random.Random(seed)
        self._waiting: dict[str, threading.Event] = {}
        server.on_write = self._look
        server.inject(self._wait)

    def run(self, processes: Mapping[str, subprocess.Popen[str]]) -> None:
        """Answer requests until all publishers have ended."""
        while running := self._when_all_wait(processes):
            self._waiting.pop(self._dice.choice(running)).set()
        self.server.heal()

    def _when_all_wait(self, processes: Mapping[str, subprocess.Popen[str]]) -> list[str]:
        def running() -> list[str]:
            return [name for name, process in processes.items() if process.poll() is None]

        wait_until(lambda: set(running()) <= self._waiting.keys(), "each waits or ends", 60, 0.002)
        return running()

    def _wait(self, exchange: Exchange) -> None:
        let_through, name = threading.Event(), signed_by(exchange.request) or ""
        self._waiting[name] = let_through
        assert let_through.wait(60)
        exchange.send(exchange.good())

    def _look(self) -> None:
        bodies = bodies_of(self.server)
        check_every_release(bodies)
        revision = read_pointer(bodies[PREFIX + POINTER_KEY], None, "", "")[0].revision
        if [revision] != self.turns[-1:]:
            self.turns.append(revision)


@pytest.fixture
def server() -> Iterator[WritableS3]:
    with WritableS3() as server:
        yield server


@pytest.mark.timeout(1_800)
def test_a_publisher_that_reports_success_has_published(
    server: WritableS3, tmp_path: Path, counts: Counts
) -> None:
    """A publisher only replaces a pointer that it has read."""
    first = Publishing(server, server.bucket, tmp_path)
    first.succeed("publish", write_files(tmp_path / "dags", {"a.py": b"first"}))
    conflicts = 0
    for seed in range(max(2, counts.histories // 2)):
        turnstile = Turnstile(server, seed)
        answers = publish_at_once(turnstile, tmp_path, seed)

        told = [one for one in answers.values() if one["result"] == "published"]
        failed = [one for one in answers.values() if one not in told]
        assert {"publish_conflict"} >= {one["reason"] for one in failed}
        before, *turns = turnstile.turns
        revisions = {one["revision"] for one in told}
        bodies = bodies_of(server)
        pointer = read_pointer(bodies[PREFIX + POINTER_KEY], None, "", "")[0]
        assert pointer.revision in revisions <= set(turns)
        assert pointer.revision == make_release(read_release(bodies)).revision
        history = [turn.revision for turn in (pointer.turn, *pointer.history)]
        assert [before, *turns] == history[len(turns) :: -1]
        assert revisions == set(turns)
        conflicts += len(failed)
    assert conflicts >= counts.histories


def publish_at_once(turnstile: Turnstile, folder: Path, seed: int) -> dict[str, Any]:
    """Let all publish different folders; return their reports by access key."""
    processes = {}
    for name in PUBLISHERS:
        home = folder / name
        files = write_files(home / "dags", {"a.py": f"{seed} {name}".encode()})
        publishing = Publishing(
            turnstile.server, turnstile.server.bucket, home, {"AWS_ACCESS_KEY_ID": name}
        )
        processes[name] = publishing.start("publish", files, "--output", "json")
    try:
        turnstile.run(processes)
        answers = {name: json.loads(one.communicate()[0]) for name, one in processes.items()}
        for name, answer in answers.items():
            assert processes[name].returncode == (0 if answer["result"] == "published" else 3)
        return answers
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()


def bodies_of(server: WritableS3) -> dict[str, bytes]:
    return {key: stored.body for key, stored in server.objects.items()}
