"""
Requests for revisions: the socket's answers, the pending revisions, and remembered failures.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar_runtime.asking import FAILED_SECONDS, MOST, NAME, Answers, Asked, AskMetrics
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.metrics import Metrics
from tests.support.airflow.asking import ask
from tests.support.machine.clocks import Clock

THERE, AWAY, GONE, FAILED = (f"sha256-{letter * 64}" for letter in "abcd")
HOSTILE = [
    "/revisions/../../../etc/passwd",
    "/revisions/",
    "/revisions/current",
    f"/revisions/sha256-{'A' * 64}",
    f"/revisions/sha256-{'a' * 63}",
    f"/revisions/sha256-{'a' * 64}/..",
    f"/revisions/sha256-{'a' * 64}?x=1",
    f"/revisions/sha256-{'a' * 64}%00",
    f"/revisions/{'a' * 5000}",
    f"/revisions/{'a' * 64}",
    "/revisions/%2e%2e",
    "/revisions/\N{LATIN SMALL LETTER A WITH DIAERESIS}",
    f"/other/sha256-{'a' * 64}",
    "/metrics",
    "/",
]
FAILURE = SidecarError("release_missing", "there is none")


@pytest.fixture
def asked(clock: Clock) -> Asked:
    return Asked(clock)


def test_each_revision_is_pending_once_in_the_order_of_requests(asked: Asked) -> None:
    woken: list[None] = []
    asked.wake = lambda: woken.append(None)

    assert [None] * 4 == [asked.ask(name) for name in ("b", "a", "b", "a")]

    assert ["b", "a"] == list(asked.waiting)
    assert 2 == len(woken)


def test_a_failure_is_returned_until_it_expires(asked: Asked, clock: Clock) -> None:
    asked.ask("a")
    asked.settle("a", FAILURE)
    clock.seconds += FAILED_SECONDS - 0.1

    assert FAILURE is asked.ask("a") and [] == list(asked.waiting)

    clock.seconds += 0.2
    assert asked.ask("a") is None and ["a"] == list(asked.waiting)


def test_refuses_requests_beyond_the_limit_of_pending_revisions(asked: Asked) -> None:
    """Otherwise memory and requests to the source would grow with the requests of consumers."""
    for number in range(MOST):
        assert asked.ask(str(number)) is None

    refused = asked.ask("one more")
    assert refused is not None and "request_limit" == refused.reason
    assert "one more" not in list(asked.waiting)

    asked.settle("0")
    assert asked.ask("one more") is None


# --- the socket


def answers_of(asked: Asked) -> Answers:
    return Answers("/dags", AskMetrics(Metrics("s3-sync", "1", "2")), asked)


@pytest.fixture
def store(tmp_path: Path, asked: Asked) -> Iterator[int]:
    """A folder whose socket is served; it contains the revision THERE."""
    store = os.open(tmp_path, os.O_RDONLY)
    answers = answers_of(asked)
    answers.follow(store, lambda name: name == THERE, Fence())
    yield store
    answers.close()
    os.close(store)


def test_answers_with_a_status_code_for_each_state(
    asked: Asked, store: int, tmp_path: Path
) -> None:
    asked.settle(GONE, FAILURE)
    asked.settle(FAILED, SidecarError("endpoint_unreachable", "nobody answers"))

    assert [
        (200, {"name": THERE}),
        (202, {"state": "on its way"}),
        (404, {"reason": "release_missing", "error": "there is none"}),
        (503, {"reason": "endpoint_unreachable", "error": "nobody answers"}),
    ] == [ask(tmp_path, f"/revisions/{name}") for name in (THERE, AWAY, GONE, FAILED)]
    assert [AWAY] == list(asked.waiting)


def test_refuses_invalid_paths_and_requests_no_revision(
    asked: Asked, store: int, tmp_path: Path
) -> None:
    assert dict.fromkeys(HOSTILE, 404) == {path: ask(tmp_path, path)[0] for path in HOSTILE}
    assert 405 == ask(tmp_path, f"/revisions/{THERE}", "DELETE")[0]
    assert [] == list(asked.waiting) and [NAME] == os.listdir(tmp_path)


def test_a_fetch_that_timed_out_a_cycle_is_not_repeated_in_the_next(asked: Asked) -> None:
    """The consumer gets the reason, and the next cycle fetches the other revisions."""
    answers = answers_of(asked)
    for revision in (THERE, AWAY):
        asked.ask(revision)
    (first, *_) = answers.due(Fence())

    with pytest.raises(CycleAbandoned), answers.answering(first):
        raise CycleAbandoned

    assert [AWAY] == list(asked.waiting)
    failure = asked.ask(first)
    assert failure is not None and "cycle_timeout" == failure.reason
