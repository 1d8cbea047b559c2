"""
The loop of a one-shot: it ends with its first success, or gives up at its deadline.
"""

from typing import Any

import pytest

from sidecar_runtime.errors import EXIT_DONE, GaveUp
from sidecar_runtime.health import Outcome
from tests.runtime.loop.looping import DENIED, REFUSED, SETTLING, run
from tests.runtime.recording import CHANGED, UNCHANGED, WAITING, Log

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
