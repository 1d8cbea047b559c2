"""
A daemon with a scripted S3 server, the starting point of the behavior scenarios.
"""

import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests import Bodies, Facts, Given
from tests.support.aws.fake_s3 import FakeS3
from tests.support.daemon import Daemon, Event
from tests.support.http.loopback import Fault, Match
from tests.support.ledger.seen import Witness

FILES = {"a.py": b"print('a')\n", "pkg/b.py": b"print('b')\n", "pkg/empty.py": b""}
"""
The initial content under `dags/` in the bucket, by path in the target.
"""


_numbers = itertools.count(1)


def new_content() -> bytes:
    """
    Return new content at each call, always of the same size.
    """
    return f"content number {next(_numbers):08d}\n".encode()


def daemon_for(
    s3: FakeS3,
    target: Path,
    *,
    interval: str = "1h",
    arguments: tuple[str, ...] = (),
    settings: Given | None = None,
) -> Daemon:
    """
    Describe a daemon that reads from a scripted server, without starting it.
    """
    return Daemon(
        None,
        s3.bucket,
        target,
        "dags",
        interval,
        {**s3.environment(), **(settings or {})},
        arguments,
    )


def record_of(daemon: Daemon) -> Facts:
    """
    Return `published.json`, and let the ledger see its fields.
    """
    Witness(daemon.program).record(daemon.environment)
    found: Facts = json.loads((daemon.target / ".s3-sync/published.json").read_bytes())
    return found


def published(target: Path) -> Bodies:
    """
    Return the files of a target, without the daemon's own.
    """
    found = {}
    for here, _, names in os.walk(target):  # unlike rglob, tolerates files that vanish
        for name in names:
            path = Path(here, name)
            if ".s3-sync" not in path.relative_to(target).parts:
                with suppress(FileNotFoundError):
                    found[str(path.relative_to(target))] = path.read_bytes()
    return found


def staged(target: Path) -> list[Path]:
    """
    Return downloads that are in progress or were left behind.
    """
    return [path for path in (target / ".s3-sync/staging").rglob("*") if path.is_file()]


@dataclass(frozen=True)
class Running:
    """
    A daemon that has published `FILES` from a scripted server.
    """

    s3: FakeS3
    daemon: Daemon

    @property
    def published(self) -> Bodies:
        """
        The files in the target.
        """
        return published(self.daemon.target)

    def fail(self) -> Event:
        """
        Run a cycle that must fail or be partial; return the log line with the reason.
        """
        ended = self.daemon.sync()
        assert "reason" in ended, ended
        return ended

    def withstand(self, fault: Fault, match: Match | None = None) -> Event:
        """
        Assert that a change during a fault is published only after the fault, and then
        completely.

        Returns:
            The log line with the reason.
        """
        before = self.published
        self.s3.put("dags/a.py", new_content())
        self.s3.inject(fault, match)
        failed = self.fail()
        assert before == self.published
        assert self.daemon.is_ready()
        self.recover()
        assert self.s3.files() == self.published
        return failed

    def recover(self) -> Event:
        """
        Remove all faults, and run a cycle that must succeed; return its line.
        """
        after = len(self.daemon.events)
        self.s3.heal()
        self.daemon.sighup()
        return self.daemon.wait_for_event("cycle_finished", after=after)


@contextmanager
def running(target: Path, settings: Given | None = None) -> Iterator[Running]:
    """
    Run a daemon with a scripted server; after the first cycle, only SIGHUP triggers
    cycles.
    """
    with FakeS3() as s3:
        s3.put_all(FILES, "dags/")
        with daemon_for(s3, target, settings=settings) as daemon:
            daemon.wait_until_synced()
            yield Running(s3, daemon)
