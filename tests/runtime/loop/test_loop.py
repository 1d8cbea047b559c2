"""
The loop in normal operation: schedule, log and metrics.
"""

import time
from collections.abc import Callable
from unittest.mock import Mock

import pytest

from sidecar_runtime import loop
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome
from tests.runtime.loop.looping import QUICK, run, seconds_left
from tests.runtime.recording import CHANGED, UNCHANGED, Log


def test_cycles_run_at_the_interval(log: Log) -> None:
    one = run(CHANGED, UNCHANGED, UNCHANGED, CHANGED, interval_seconds=0.1)
    began = time.monotonic()

    one.until_stopped()

    assert time.monotonic() - began >= 2 * one.settings.interval_seconds
    assert (2, 2) == (one.count("changed"), one.count("unchanged"))
    assert len(one.sidecar.sessions) == 1


def test_logs_a_changed_cycle_at_info_and_an_unchanged_one_at_debug(log: Log) -> None:
    run(CHANGED, UNCHANGED, interval_seconds=0.1).until_stopped()

    changed, unchanged = log.events("cycle_finished")
    assert changed.pop("duration_seconds") >= 0
    expected = {"level": "info", "result": "changed", "revision": "r1", "files_published": 1}
    assert expected.items() <= changed.items()
    assert ("debug", "unchanged") == (unchanged["level"], unchanged["result"])


def test_the_interval_is_from_start_to_start_even_of_a_long_cycle(
    log: Log, spend: Callable[[float], None]
) -> None:
    def takes_a_while(_: Fence) -> Outcome:
        spend(1000.0)
        return CHANGED

    one = run(takes_a_while, interval_seconds=900.0, timeout_seconds=1e6)

    assert seconds_left(one, 1) < one.settings.interval_seconds


def test_cycles_continue_if_the_scheduler_is_silent(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It uses the wall clock: if that is set back by a day, it is silent for a day."""
    monkeypatch.setattr(loop, "start_scheduler", lambda _: Mock())
    pace = QUICK._replace(clock_grace_seconds=0.05)

    run(CHANGED, CHANGED, pace=pace, interval_seconds=0.1).until_stopped()

    assert 2 == len(log.events("cycle_finished"))
