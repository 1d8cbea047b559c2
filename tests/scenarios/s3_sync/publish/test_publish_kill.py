"""Publishers that are killed: the current release is always complete, and can be replaced."""

import contextlib
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.support.aws.writable_s3 import WritableS3
from tests.support.http.loopback import Exchange
from tests.support.s3_sync.publishing import (
    Publishing,
    check_every_release,
    read_release,
    write_files,
)
from tests.support.s3_sync.releases import AT, make_release
from tests.support.waiting import wait_until

# The requests of a publish.
REQUESTS = [
    "GET current.json",
    "GET releases",
    "GET releases",
    "HEAD bundles",
    "PUT bundles",
    "PUT releases",
    "PUT releases",
    "GET releases",
    "PUT releases",
    "PUT current.json",
    "GET releases",
    "HEAD bundles",
]
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


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Bucket]:
    """A bucket where the old release is current."""
    with Bucket() as bucket:
        bucket.put_all(make_release(OLD).objects(), "dags/", at=AT)
        yield bucket
        assert [] == bucket.problems
        assert all(files in (OLD, NEW) for files in bucket.shown)


def publishing(bucket: Bucket, folder: Path) -> Publishing:
    return Publishing(bucket, bucket.bucket, folder / "home")


def test_a_publish_makes_a_fixed_number_of_requests(bucket: Bucket, tmp_path: Path) -> None:
    publishing(bucket, tmp_path).succeed("publish", write_files(tmp_path / "dags", NEW))

    asked = [f"{request.method} {request.path.split('/')[3]}" for request in bucket.requests]
    assert REQUESTS == asked


@pytest.mark.usefixtures("only_in_full")
def test_a_publisher_killed_at_random_leaves_the_old_or_the_new_release(
    bucket: Bucket, tmp_path: Path, counts: Counts
) -> None:
    """test_publish_stop kills at each request; this test also between and within requests."""
    publisher = publishing(bucket, tmp_path)
    dice = random.Random(5)
    codes = []

    for number in range(counts.kills):
        folder = write_files(tmp_path / "dags", OLD if number % 2 else NEW)
        bucket.forget()
        process = publisher.start("publish", folder)
        kill_after(process, bucket, dice.randrange(len(REQUESTS)), dice.uniform(0, 0.02))
        codes.append(process.returncode)
        assert read_release(bucket.bodies()) in (OLD, NEW)

    assert -signal.SIGKILL in codes
    for files in (OLD, NEW):
        publisher.succeed("publish", write_files(tmp_path / "dags", files))
        assert files == read_release(bucket.bodies())


def kill_after(
    process: subprocess.Popen[str], bucket: Bucket, requests: int, seconds: float
) -> None:
    """Kill a process some seconds after a number of requests, unless it has ended before."""

    def is_time() -> bool:
        return len(bucket.requests) >= requests or process.poll() is not None

    wait_until(is_time, f"{requests} requests", timeout_seconds=60, step_seconds=0.002)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_publish_with_a_failure_code(
    bucket: Bucket, tmp_path: Path, number: signal.Signals
) -> None:
    publisher = publishing(bucket, tmp_path)
    bucket.inject(Exchange.hang, lambda request: request.method == "PUT", times=1)

    process = publisher.start("publish", write_files(tmp_path / "dags", NEW))
    bucket.wait_for(lambda request: request.method == "PUT", timeout=30)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)

    assert (128 + number, "") == (process.returncode, out), err
    assert OLD == read_release(bucket.bodies())
    assert [] == list((tmp_path / "home").glob("s3-sync-*"))
