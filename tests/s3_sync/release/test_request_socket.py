"""
Requests of consumers for older releases: the limits, and the socket.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from s3_sync.release.request_socket import (
    MOST,
    MOST_UNKNOWN,
    NAME,
    PERIOD_SECONDS,
    RequestSocket,
)
from sidecar_runtime import rate_limit
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned
from sidecar_runtime.metrics import Metric, Metrics
from tests.runtime.recording import Log
from tests.support.airflow.asking import ask as ask_socket
from tests.support.machine.clocks import Clock

THERE, AWAY = (f"sha256-{letter * 64}" for letter in "ab")
HOSTILE = [
    "/revisions/../../../etc/passwd",
    "/revisions/current",
    f"/revisions/sha256-{'A' * 64}",
    f"/revisions/sha256-{'a' * 63}",
    f"/revisions/sha256-{'a' * 64}/..",
    f"/revisions/sha256-{'a' * 64}?x=1",
    f"/revisions/{'a' * 5000}",
    "/revisions/\N{LATIN SMALL LETTER A WITH DIAERESIS}",
    f"/other/sha256-{'a' * 64}",
]


def counter() -> Callable[[str], Metric]:
    count: Callable[[str], Metric] = Metrics("s3-sync").counter(
        "asked_total", "…", "result"
    )
    return count


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rate_limit, "monotonic", clock)
    return clock


@pytest.fixture
def asked(clock: Clock) -> RequestSocket:
    return RequestSocket(counter())


@pytest.mark.parametrize(("is_known", "most"), [(True, MOST), (False, MOST_UNKNOWN)])
def test_refuses_requests_beyond_the_limit_of_pending_revisions(
    clock: Clock, asked: RequestSocket, log: Log, *, is_known: bool, most: int
) -> None:
    """
    Otherwise memory, the log and requests to the source would grow with the requests of
    consumers.
    """
    numbers = itertools.count()
    for pause, more in zip(
        (0, PERIOD_SECONDS, PERIOD_SECONDS / 2, most * PERIOD_SECONDS),
        (0, 1, 1, most + 1),
        strict=True,
    ):
        clock.seconds += pause
        for _turn in range(100):
            refused = asked.ask(f"{next(numbers)}", is_known=is_known)
        assert refused and "request_limit" == refused.reason
        assert most + more == len(asked.waiting)
    assert 3 == len(log.events("requested_revision_unavailable"))
    assert asked.ask("of the other kind", is_known=not is_known) is None


def test_logs_again_only_what_has_changed_about_a_revision(
    asked: RequestSocket, log: Log
) -> None:
    for reason in ("release_missing", "release_missing", "access_denied"):
        with asked.answering(AWAY):
            raise SidecarError(reason, "…")

    assert ["release_missing", "access_denied"] == [
        event["reason"] for event in log.events("requested_revision_unavailable")
    ]


# --- the socket


@pytest.fixture
def store(tmp_path: Path, asked: RequestSocket) -> Iterator[int]:
    """A folder whose socket is served; it contains the revision THERE."""
    store = os.open(tmp_path, os.O_RDONLY)
    asked.follow(store, lambda name: name == THERE, lambda name: name == AWAY)
    yield store
    asked.close()
    os.close(store)


def test_refuses_invalid_paths_and_requests_no_revision(
    asked: RequestSocket, store: int, tmp_path: Path
) -> None:
    assert dict.fromkeys(HOSTILE, 404) == {
        path: ask_socket(tmp_path, path)[0] for path in HOSTILE
    }
    assert 405 == ask_socket(tmp_path, f"/revisions/{THERE}", "DELETE")[0]
    assert [] == list(asked.waiting) and [NAME] == os.listdir(tmp_path)


def test_a_fetch_that_timed_out_a_cycle_is_not_repeated_in_the_next(
    asked: RequestSocket,
) -> None:
    """The consumer gets the reason, and the next cycle fetches the other revisions."""
    for revision in (THERE, AWAY):
        asked.ask(revision, is_known=True)
    first = next(iter(asked.waiting))

    with pytest.raises(CycleAbandoned), asked.answering(first):
        raise CycleAbandoned

    assert [AWAY] == list(asked.waiting)
    failure = asked.ask(first, is_known=True)
    assert failure and "cycle_timeout" == failure.reason
