"""
The loop of a one-shot: it ends with its first success, or gives up at its deadline.
"""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from sidecar_runtime.errors import EXIT_DONE, GaveUp, SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome
from tests.runtime.loop.looping import DENIED, REFUSED, SETTLING, run, waits
from tests.runtime.recording import CHANGED, UNCHANGED, WAITING, Log
from tests.support.raising import raised

HELD = Outcome("waiting", counts={"holder": "pid 7 on other-pod"})
ADVICE = "Find out what the cycle waits on, or raise X_ONE_SHOT_DEADLINE."


@pytest.mark.parametrize(
    "steps",
    [[DENIED, WAITING, DENIED, CHANGED], [SETTLING, REFUSED, REFUSED, UNCHANGED]],
    ids=["failures, and another owns the target", "refused, or comes to rest"],
)
def test_a_one_shot_retries_until_it_succeeds(log: Log, steps: list[Any]) -> None:
    one = run(*steps, one_shot=True, interval_seconds=0.1)

    assert one() == EXIT_DONE
    assert one.sidecar.cycles == 4


@pytest.mark.parametrize(
    ("end", "message", "advice"),
    [
        (DENIED, "access_denied: may not list", "allow it"),
        (REFUSED, "revision_refused: the gate refuses r2: a.py:3: what", "fix it"),
        (SETTLING, "no cycle succeeded in time: settling", ADVICE),
        (HELD, "no cycle succeeded in time: waiting pid 7 on other-pod", ADVICE),
        (HELD._replace(problem=DENIED), "access_denied: may not list", "allow it"),
    ],
    ids=["failure", "refused", "settling", "waiting", "waiting, and its own poll fails"],
)
def test_a_one_shot_gives_up_at_its_deadline_with_the_last_cause(
    log: Log, end: Any, message: str, advice: str
) -> None:
    one = run(*[end] * 1000, one_shot=True, one_shot_deadline_seconds=3.0, interval_seconds=0.1)

    with pytest.raises(GaveUp, match=f"^{message}$") as caught:
        one()

    assert "one_shot_deadline" == caught.value.reason
    assert (3, advice) == (caught.value.exit_code, caught.value.advice)


@pytest.mark.parametrize(
    ("blame", "message", "advice"),
    [
        (None, "no cycle succeeded in time: none has ended", ADVICE),
        (SidecarError("kdc_hung", "no answer", "ask it"), "kdc_hung: no answer", "ask it"),
    ],
)
def test_a_one_shot_gives_up_during_a_hung_cycle_with_its_cause(
    log: Log,
    spend: Callable[[float], None],
    blame: SidecarError | None,
    message: str,
    advice: str,
) -> None:
    released = threading.Event()

    def hang(fence: Fence) -> Outcome:
        fence.blame = blame
        spend(5.0)
        return waits(released)

    error = raised(GaveUp, run(hang, one_shot=True, one_shot_deadline_seconds=5.0))
    released.set()

    assert "one_shot_deadline" == error.reason
    assert (message, advice) == (error.message, error.advice)
