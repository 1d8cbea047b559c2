"""What becomes of a question whose answer does not come."""

import pytest

from sidecar_runtime.asking.answers import Answers
from sidecar_runtime.asking.asked import Asked, AskMetrics
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.metrics import Metrics

ONE, OTHER = "1" * 40, "2" * 40


def test_what_took_a_whole_cycle_does_not_take_the_next_one_too() -> None:
    """Who waits hears why, and the others are next."""
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
