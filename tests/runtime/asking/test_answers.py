"""The answers to requests for revisions that cannot be fetched."""

import os
from pathlib import Path

import pytest

from sidecar_runtime.asking.answers import Answers
from sidecar_runtime.asking.asked import Asked, AskMetrics
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.metrics import Metrics
from tests.runtime.recording import Log

ONE, OTHER = "1" * 40, "2" * 40


def test_a_fetch_that_timed_out_a_cycle_is_not_repeated_in_the_next() -> None:
    """The consumer gets the reason, and the next cycle fetches the other revisions."""
    asked = Asked()
    answers = Answers("/dags", AskMetrics(Metrics("s3-sync", "1", "2")), asked)
    for revision in (ONE, OTHER):
        asked.ask(revision)
    (first, *_) = answers.due(Fence())

    with pytest.raises(CycleAbandoned), answers.answering(first):
        raise CycleAbandoned

    assert [OTHER] == asked.waiting()
    failure = asked.ask(first)
    assert failure is not None and "cycle_timeout" == failure.reason


def test_a_store_without_sockets_is_reported_once(tmp_path: Path, log: Log) -> None:
    """Every cycle retries to create a missing socket."""
    answers = Answers("/dags", AskMetrics(Metrics("s3-sync", "1", "2")), Asked())

    def warnings_of_three_cycles(store: str) -> int:
        before = len(log.events("ask_socket_unavailable"))
        for _ in range(3):
            folder = os.open(store, os.O_RDONLY | os.O_DIRECTORY)
            answers.follow(folder, lambda _: False, Fence())
            os.close(folder)
        return len(log.events("ask_socket_unavailable")) - before

    stores = ["/proc", "/proc/self", "/proc/self", str(tmp_path), "/proc/self"]
    assert [1, 1, 0, 0, 1] == [warnings_of_three_cycles(store) for store in stores]
    answers.close()
