"""An object that is rewritten constantly delays only itself."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.aws.fake_s3 import FakeS3, is_list
from tests.support.daemon import Daemon
from tests.support.http.loopback import Exchange
from tests.support.s3_sync.snapshots import consumed
from tests.support.waiting import wait_until

REWRITE_SECONDS = 0.25
LIST_SECONDS = 0.3
BUSY = "busy.py"


@contextmanager
def rewritten(s3: FakeS3) -> Iterator[list[bytes]]:
    """Rewrite an object constantly; yield all contents that were written."""
    written = [b"# busy 0\n"]
    s3.put(f"dags/{BUSY}", written[0])
    is_over = threading.Event()

    def rewrite() -> None:
        for number in itertools.count(1):
            if is_over.wait(REWRITE_SECONDS):
                return
            written.append(b"# busy %d\n" % number)
            s3.put(f"dags/{BUSY}", written[-1])

    thread = threading.Thread(target=rewrite)
    thread.start()
    try:
        yield written
    finally:
        is_over.set()
        thread.join()


def slow(exchange: Exchange) -> None:
    """Delay a listing, so that it is older than the object when it arrives."""
    answer = exchange.good()
    exchange.pause(LIST_SECONDS)
    exchange.send(answer)


def wait_for_three_cycles(daemon: Daemon) -> None:
    """Wait for the end of the current cycle and of two more, failed or not."""

    def count() -> float:
        samples = daemon.metrics().items()
        return sum(value for name, value in samples if name.startswith("sidecar_cycles_total{"))

    before = count()
    wait_until(lambda: count() >= before + 3, "three cycles", 60)


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize(
    "settings",
    [
        {"S3_SYNC_LAYOUT": "in-place"},
        {"S3_SYNC_LAYOUT": "snapshot"},
        {"S3_SYNC_LAYOUT": "snapshot", "S3_SYNC_GATE": "syntax"},
    ],
    ids=lambda settings: "-".join(settings.values()),
)
def test_syncs_other_objects_while_one_object_is_rewritten_constantly(
    settings: dict[str, str], counts: Counts, s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    s3.inject(slow, is_list)
    with rewritten(s3) as written:
        daemon = start(settings, interval="0.1")
        daemon.address(60)
        daemon.wait_until_ready(60)
        ends_at = time.monotonic() + counts.busy_seconds
        others = {path: body for path, body in consumed(target).items() if path != BUSY}
        for number in itertools.count():
            path, body = f"other/{number % 4}.py", b"# other %d\n" % number
            s3.put(f"dags/{path}", body)
            others[path] = body
            if number % 4 == 3:  # also delete one
                gone = f"other/{(number + 2) % 4}.py"
                s3.delete(f"dags/{gone}")
                del others[gone]
            wait_for_three_cycles(daemon)
            assert others == shown(target, written)
            assert 200 == daemon.get("/readyz").status
            if time.monotonic() > ends_at:
                break
    assert number >= 1

    wait_until(lambda: consumed(target).get(BUSY) == written[-1], "the last body is published", 60)
    wait_until(lambda: daemon.status()["revision"], "the revision is complete", 60)
    assert [] == daemon.stray_lines


def shown(target: Path, written: list[bytes]) -> dict[str, bytes]:
    """Return the other files; assert that the busy one is missing or one of its versions."""
    found = consumed(target)
    assert found.pop(BUSY, written[0]) in written
    return found
