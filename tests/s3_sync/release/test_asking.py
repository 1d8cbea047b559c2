"""
Requests of consumers for older releases: the limits, and the socket.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from s3_sync.release.asking import MOST, MOST_UNKNOWN, NAME, PERIOD_SECONDS, Asked
from sidecar_runtime import allowance
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
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
    count: Callable[[str], Metric] = Metrics("s3-sync", "1", "2").counter(
        "asked_total", "…", "result"
    )
    return count


@pytest.fixture
def asked() -> Asked:
    return Asked(counter())


class Flood:
    """Consumers that request revisions, at times that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        monkeypatch.setattr(allowance, "monotonic", self.clock)
        self.asked = Asked(counter())
        self._numbers = itertools.count()

    def fetched(self, seconds: float = 0.0, *, is_known: bool) -> int:
        """
        Request a hundred other revisions after some seconds; return how many of them a
        cycle has to fetch, which fails.
        """
        self.clock.seconds += seconds
        for _turn in range(100):
            refused = self.asked.ask(f"{next(self._numbers)}", is_known=is_known)
        assert refused is not None and "request_limit" == refused.reason
        waiting = list(self.asked.due(Fence()))
        for revision in waiting:
            with self.asked.answering(revision):
                raise SidecarError("release_missing", "it does not exist")
        return len(waiting)


@pytest.fixture
def flood(monkeypatch: pytest.MonkeyPatch) -> Flood:
    return Flood(monkeypatch)


@pytest.mark.parametrize(("is_known", "most"), [(True, MOST), (False, MOST_UNKNOWN)])
def test_refuses_requests_beyond_the_limit_of_pending_revisions(
    flood: Flood, log: Log, *, is_known: bool, most: int
) -> None:
    """
    Otherwise memory, the log and requests to the source would grow with the requests of
    consumers.
    """
    pauses = (0, 0, PERIOD_SECONDS, PERIOD_SECONDS / 2)
    assert [most, 0, 1, 0] == [
        flood.fetched(seconds, is_known=is_known) for seconds in pauses
    ]
    said = log.events("requested_revision_unavailable")
    limits = [event for event in said if event["reason"] == "request_limit"]
    assert (most + 1 + 2, 2) == (len(said), len(limits))
    assert most == flood.fetched(most * PERIOD_SECONDS, is_known=is_known)


def test_invented_revisions_do_not_hold_up_one_that_the_source_has_told_of(
    flood: Flood,
) -> None:
    assert MOST_UNKNOWN == flood.fetched(is_known=False)

    assert flood.asked.ask("known", is_known=True) is None
    assert ["known"] == list(flood.asked.due(Fence()))


def test_logs_again_only_what_has_changed_about_a_revision(
    asked: Asked, log: Log
) -> None:
    for reason in ("release_missing", "release_missing", "access_denied"):
        with asked.answering(AWAY):
            raise SidecarError(reason, "…")

    said = log.events("requested_revision_unavailable")
    assert ["release_missing", "access_denied"] == [event["reason"] for event in said]


# --- the socket


@pytest.fixture
def store(tmp_path: Path, asked: Asked) -> Iterator[int]:
    """A folder whose socket is served; it contains the revision THERE."""
    store = os.open(tmp_path, os.O_RDONLY)
    asked.follow(store, lambda name: name == THERE, lambda name: name == AWAY)
    yield store
    asked.close()
    os.close(store)


def test_refuses_invalid_paths_and_requests_no_revision(
    asked: Asked, store: int, tmp_path: Path
) -> None:
    assert dict.fromkeys(HOSTILE, 404) == {
        path: ask_socket(tmp_path, path)[0] for path in HOSTILE
    }
    assert 405 == ask_socket(tmp_path, f"/revisions/{THERE}", "DELETE")[0]
    assert [] == list(asked.waiting) and [NAME] == os.listdir(tmp_path)


def test_a_fetch_that_timed_out_a_cycle_is_not_repeated_in_the_next(
    asked: Asked,
) -> None:
    """The consumer gets the reason, and the next cycle fetches the other revisions."""
    for revision in (THERE, AWAY):
        asked.ask(revision, is_known=True)
    (first, *_) = asked.due(Fence())

    with pytest.raises(CycleAbandoned), asked.answering(first):
        raise CycleAbandoned

    assert [AWAY] == list(asked.waiting)
    failure = asked.ask(first, is_known=True)
    assert failure is not None and "cycle_timeout" == failure.reason
