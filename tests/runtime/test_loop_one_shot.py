"""
The loop of an init container: it ends with its first success, or gives up at its deadline.
"""

import threading
import time

import pytest

from sidecar_runtime.errors import EXIT_DONE, GaveUp, SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome
from tests.runtime.looping import DENIED, REFUSED, SETTLING, run, waits
from tests.runtime.recording import CHANGED, UNCHANGED, WAITING, Log

pytestmark = pytest.mark.usefixtures("quick")


def test_a_one_shot_ends_with_its_first_success(log: Log) -> None:
    for outcome in (CHANGED, UNCHANGED):
        one = run(outcome, one_shot=True)

        assert one() == EXIT_DONE
        assert one.sidecar.cycles == 1


def test_a_one_shot_tries_again_after_failures_and_while_another_owns_the_target(log: Log) -> None:
    one = run(DENIED, WAITING, DENIED, CHANGED, one_shot=True)

    assert one() == EXIT_DONE
    assert ["error", "waiting", "error", "changed"] == one.results()


def test_a_one_shot_gives_up_at_its_deadline_and_names_the_last_failure(log: Log) -> None:
    one = run(*[DENIED] * 1000, one_shot=True, one_shot_deadline_seconds=0.3, interval_seconds=0.1)
    began = time.monotonic()

    with pytest.raises(GaveUp) as caught:
        one()

    assert 0.3 <= time.monotonic() - began < 3
    assert caught.value.reason == "one_shot_deadline"
    assert caught.value.exit_code == 3
    assert caught.value.message == "access_denied: may not list"
    assert caught.value.advice == "allow it"


def test_a_cycle_that_gives_up_ends_the_loop(log: Log) -> None:
    one = run(DENIED, GaveUp("failure_limit", "too many", "look there"), CHANGED)

    with pytest.raises(GaveUp, match="too many"):
        one()

    assert ["error", "error"] == one.results()


def test_a_one_shot_that_never_gets_the_target_names_who_has_it(log: Log) -> None:
    waiting = Outcome("waiting", counts={"holder": "pid 7 on other-pod"})
    one = run(*[waiting] * 1000, one_shot=True, one_shot_deadline_seconds=0.2)

    with pytest.raises(GaveUp, match=r"another process keeps the target .*: pid 7 on other-pod"):
        one()


def test_a_one_shot_gives_up_at_its_deadline_while_a_cycle_hangs(log: Log) -> None:
    released = threading.Event()
    one = run(lambda _: waits(released), one_shot=True, one_shot_deadline_seconds=0.2)

    with pytest.raises(GaveUp, match="no success in time"):
        one()
    released.set()


def test_a_one_shot_goes_on_while_its_revision_is_refused_or_comes_to_rest(log: Log) -> None:
    one = run(SETTLING, REFUSED, REFUSED, UNCHANGED, one_shot=True, interval_seconds=0.1)

    assert one() == EXIT_DONE
    assert one.sidecar.cycles == 4


def test_a_one_shot_whose_revision_is_refused_gives_up_and_says_why(log: Log) -> None:
    one = run(*[REFUSED] * 1000, one_shot=True, one_shot_deadline_seconds=0.3, interval_seconds=0.1)

    with pytest.raises(GaveUp) as caught:
        one()

    assert ("one_shot_deadline", 3) == (caught.value.reason, caught.value.exit_code)
    assert "revision_refused: the gate refuses r2: a.py:3: what" == caught.value.message
    assert "mend it" == caught.value.advice


def test_a_one_shot_whose_source_never_comes_to_rest_says_so(log: Log) -> None:
    one = run(*[SETTLING] * 1000, one_shot=True, one_shot_deadline_seconds=0.3)

    with pytest.raises(GaveUp, match="has not come to rest in time"):
        one()


def test_a_one_shot_that_gives_up_names_what_its_cycle_waits_for(log: Log) -> None:
    released = threading.Event()

    def hang(fence: Fence) -> Outcome:
        fence.blame = SidecarError("kdc_hung", "no answer", "ask it")
        return waits(released)

    one = run(hang, one_shot=True, one_shot_deadline_seconds=0.2)

    with pytest.raises(GaveUp) as caught:
        one()
    released.set()

    assert ("one_shot_deadline", "kdc_hung: no answer", "ask it") == (
        caught.value.reason,
        caught.value.message,
        caught.value.advice,
    )
