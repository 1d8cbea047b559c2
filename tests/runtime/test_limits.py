"""
The limits of cycles: how many may fail, how long one may take, how old the heartbeat
may be.
"""

import signal

import pytest

from sidecar_runtime.errors import GaveUp
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome
from tests.runtime.recording import CHANGED
from tests.runtime.test_loop import DENIED, RESTING, SETTLING, run, send
from tests.support.machine.clocks import Clock
from tests.support.raising import raised


@pytest.mark.parametrize("limit", [1, 3])
def test_ends_with_the_failure_that_reaches_the_limit(limit: int) -> None:
    """A wait between them is neither a failure nor a success."""
    one = run(*[DENIED] * (limit - 1), SETTLING, *[DENIED] * 9, max_failures=limit)

    assert raised(GaveUp, one).reason == "failure_limit"
    assert limit + 1 == one.sidecar.cycles


def test_a_one_shot_gives_up_in_time_also_if_it_is_asked_without_end() -> None:
    def cycle(fence: Fence) -> Outcome:
        for _turn in range(60):
            one.loop.wake()
            fence.wait(0.05)
        return CHANGED

    one = run(cycle, one_shot=True, one_shot_deadline_seconds=0.2)

    assert "one_shot_deadline" == raised(GaveUp, one).reason


def test_a_cycle_that_ends_is_a_heartbeat_also_if_it_has_failed(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar_runtime.health.monotonic", clock)

    def cycle(_: Fence) -> Outcome:
        clock.seconds += 10_000.0
        raise DENIED

    one = run(cycle, pace=RESTING)

    one.until(1)

    assert one.health.beat_age_seconds == 0.0


def test_is_alive_until_the_next_cycle_is_a_minute_later_than_it_may_be(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar_runtime.health.monotonic", clock)
    one = run(CHANGED, timeout_seconds=600.0)
    seen: list[bool] = []

    def look() -> None:
        latest = one.health.next_cycle_within_seconds + 600.0 + 60.0
        for seconds in (latest - 1, latest + 1):
            clock.seconds += seconds
            seen.append(one.health.is_alive)
            clock.seconds -= seconds
        send(signal.SIGTERM)

    one.until(1, look)

    assert [True, False] == seen
