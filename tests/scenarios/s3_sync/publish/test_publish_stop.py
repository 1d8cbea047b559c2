"""
Commands that write releases, stopped at each of their requests.

They never report success, lose nothing, and complete the work when they run again.
"""

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.support.aws.writable_s3 import WritableS3
from tests.support.http.loopback import Exchange
from tests.support.s3_sync.forked import Forked, ForkServer
from tests.support.s3_sync.publishing import (
    PREFIX,
    Publishing,
    check_every_release,
    read_release,
    write_files,
)
from tests.support.s3_sync.releases import AT, make_release

OLD = {"a.py": b"print('old')\n" * 50, "sql/b.sql": b"select 1;\n" * 500}
NEW = {"a.py": b"print('new')\n" * 50, "c.py": b"print('c')\n" * 400}


class Bucket(WritableS3):
    """A bucket that checks all its releases after every write."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[dict[str, bytes]] = []
        self.problems: list[Exception] = []
        self.on_write = self._look

    def bodies(self) -> dict[str, bytes]:
        return {key: stored.body for key, stored in self.objects.items()}

    def _look(self) -> None:
        try:
            check_every_release(self.bodies())
            if "dags/current.json" in self.objects:
                self.shown.append(read_release(self.bodies()))
        except (AssertionError, KeyError, ValueError) as problem:
            self.problems.append(problem)


OTHER = {"other.py": b"print('other')\n"}
OLD_REVISION = make_release(OLD).revision
SIGNALS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 128 + signal.SIGTERM}


@dataclass(frozen=True)
class Deed:
    """A command, and the current release before and after it."""

    arguments: Callable[[Bucket, Path], list[str]]
    before: dict[str, bytes]
    after: dict[str, bytes]


DEEDS = {
    "publish": Deed(lambda bucket, dags: ["publish", str(dags)], OLD, NEW),
    "promote": Deed(
        lambda bucket, dags: [
            "promote", f"s3://{bucket.bucket}/dev", f"s3://{bucket.bucket}/{PREFIX}",
        ],
        OLD,
        NEW,
    ),
    "rollback": Deed(lambda bucket, dags: ["rollback", OLD_REVISION], NEW, OLD),
    "prune-releases": Deed(
        lambda bucket, dags: ["prune-releases", "--keep-count", "0", "--keep-for", "0s"], OLD, OLD
    ),
    "pin": Deed(lambda bucket, dags: ["pin", OLD_REVISION], OLD, OLD),
}  # fmt: skip


class Scene:
    """A bucket that is restored before each run of a command."""

    def __init__(
        self, bucket: Bucket, server: ForkServer, deed: Deed, folder: Path
    ) -> None:
        self.bucket = bucket
        self._server = server
        self._folder = folder
        self._arguments = deed.arguments(bucket, write_files(folder / "dags", NEW))
        self._environment = Publishing(bucket, bucket.bucket, folder).environment
        there = {"dev": NEW, "dags": deed.before}
        for place, files in there.items():
            bucket.put_all(make_release(files).objects(), f"{place}/", at=AT)
        for files in (OLD, OTHER):
            for name, body in make_release(files).objects().items():
                if name != "current.json":
                    bucket.put(f"dags/{name}", body, at=AT)
        self._objects = dict(bucket.objects)

    def restore(self) -> None:
        self.bucket.heal()
        self.bucket.forget()
        self.bucket.objects = dict(self._objects)

    def start(self) -> Forked:
        return self._server.start(
            self._arguments, self._environment, self._folder / "said"
        )

    def stop_at(
        self, number: int, stopping: signal.Signals, *, is_done: bool
    ) -> Forked:
        """
        Run the command, and stop it at a request.

        Args:
            is_done: Whether the server executes that request; the answer is lost in
                either case.
        """
        began = threading.Event()

        def stop(exchange: Exchange) -> None:
            began.wait(30)
            if is_done:
                exchange.good()
            os.kill(command.pid, stopping)
            exchange.reset()

        self.bucket.inject(stop, lambda _: len(self.bucket.requests) == number, times=1)
        command = self.start()
        began.set()
        return command

    def keys(self) -> set[str]:
        return set(self.bucket.objects)


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    """
    A bucket in which every write must leave the complete old or new release current.
    """
    with Bucket() as bucket:
        yield bucket
        assert [] == bucket.problems
        assert all(files in (OLD, NEW) for files in bucket.shown)


@pytest.mark.parametrize("name", DEEDS)
def test_a_command_stopped_at_any_request_loses_nothing_and_can_be_repeated(
    bucket: Bucket, forks: ForkServer, tmp_path: Path, counts: Counts, name: str
) -> None:
    deed = DEEDS[name]
    scene = Scene(bucket, forks, deed, tmp_path)
    assert 0 == (command := scene.start()).wait(), command.err
    requests, keys = len(bucket.requests), scene.keys()
    assert deed.after == read_release(bucket.bodies())
    ways = list(itertools.product(SIGNALS, (False, True)))

    for number in range(1, requests + 1):
        for turn in range(counts.stops):
            stopping, is_done = ways[(number + turn) % len(ways)]
            scene.restore()
            command = scene.stop_at(number, stopping, is_done=is_done)
            at = f"{stopping.name} at request {number}, {is_done=}"
            assert SIGNALS[stopping] == command.wait(), f"{at}: {command.err}"
            assert "" == command.out, at
            assert read_release(bucket.bodies()) in (deed.before, deed.after), at
            bucket.heal()
            assert 0 == (command := scene.start()).wait(), f"{at}: {command.err}"
            assert deed.after == read_release(bucket.bodies()), at
            check_every_release(bucket.bodies())
            assert keys == scene.keys(), at
