"""
The loop when a cycle takes too long: the cycle is abandoned and cannot publish.
"""

import signal
import threading
from collections.abc import Callable

from sidecar_runtime.errors import EXIT_DONE
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.health import Outcome
from tests.runtime.loop.looping import (
    PATIENCE_SECONDS,
    QUICK,
    run,
    send,
    waits,
)
from tests.runtime.recording import CHANGED, UNCHANGED, Log
from tests.support.waiting import wait_until

LIMIT_SECONDS = 5.0
Spend = Callable[[float], None]


def hangs(spend: Spend, released: threading.Event) -> Callable[[Fence], Outcome]:
    """Return a step that exceeds the limit, and ends when it is released."""

    def step(_: Fence) -> Outcome:
        spend(LIMIT_SECONDS)
        return waits(released)

    return step


def test_a_cycle_that_takes_too_long_is_abandoned_and_cannot_publish(
    log: Log, spend: Spend
) -> None:
    came: list[object] = []
    is_over = threading.Event()

    def late(fence: Fence) -> Outcome:
        revoked = threading.Event()
        fence.on_revoke(revoked.set)
        spend(LIMIT_SECONDS)
        assert revoked.wait(PATIENCE_SECONDS)
        try:
            with fence:
                came.append("published")
        except CycleAbandoned as error:
            came.append(error)
        is_over.set()
        return CHANGED

    def after(_: Fence) -> Outcome:
        assert is_over.wait(PATIENCE_SECONDS)
        return UNCHANGED

    one = run(late, after, timeout_seconds=LIMIT_SECONDS)
    one.health.expect_cycle(0, 60)

    one.until(2)

    assert [CycleAbandoned] == [type(one) for one in came]
    assert ["error", "unchanged"] == one.results()
    assert (0, 1) == (one.count("changed"), one.count("error"))
    (failed,) = log.events("cycle_failed")
    assert "cycle_timeout" == failed["reason"]
    assert "the cycle took longer than X_TIMEOUT (5 s) and was abandoned" == failed["error"]
    assert failed["advice"].endswith("or raise X_TIMEOUT.")


def test_is_not_alive_and_starts_no_cycle_while_an_abandoned_one_hangs(log: Log) -> None:
    released = threading.Event()
    pace = QUICK._replace(liveness_grace_seconds=1.0)
    goes_on = [CHANGED] * int(PATIENCE_SECONDS / 0.1)
    one = run(
        lambda _: waits(released), *goes_on, pace=pace, timeout_seconds=0.2, interval_seconds=0.1
    )

    def look() -> None:
        wait_until(lambda: not one.health.is_alive, "it is not alive", PATIENCE_SECONDS)
        assert 1 == one.sidecar.cycles
        released.set()
        wait_until(lambda: one.health.is_alive, "it is alive again", PATIENCE_SECONDS)
        send(signal.SIGTERM)

    thread = threading.Thread(target=look)
    thread.start()
    assert one() == EXIT_DONE
    thread.join()
