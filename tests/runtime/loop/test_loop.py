"""
The loop in normal operation: schedule, log and metrics.
"""

import time
from collections.abc import Callable

from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.http.endpoint import registry_of
from tests.runtime.loop.looping import DENIED, run, seconds_left
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


def test_the_first_success_after_failures_is_logged_at_info(log: Log) -> None:
    run(DENIED, DENIED, UNCHANGED, UNCHANGED, interval_seconds=0.1).until_stopped()

    first, second = log.events("cycle_finished")
    assert ("info", 2) == (first["level"], first["failures_before"])
    assert ("debug", 0) == (second["level"], second["failures_before"])


def test_metrics_distinguish_success_from_publish(log: Log) -> None:
    began = time.time()
    one = run(UNCHANGED)
    one.until(1)

    def sample(name: str) -> float | None:
        return registry_of(one.metrics.families).get_sample_value(name, {"sidecar": "box"})

    assert (sample("sidecar_last_success_timestamp_seconds") or 0) >= began
    assert sample("sidecar_last_publish_timestamp_seconds") == 0
    assert sample("sidecar_cycle_duration_seconds_count") == 1


def test_pods_of_a_fleet_do_not_cycle_in_step(log: Log) -> None:
    pods = [run(CHANGED) for _ in range(3)]

    left = {seconds_left(pod, 1) for pod in pods}

    interval_seconds = pods[0].settings.interval_seconds
    assert 3 == len(left)
    assert interval_seconds * 0.8 < min(left) <= max(left) < interval_seconds * 1.2


def test_the_interval_is_from_start_to_start_even_of_a_long_cycle(
    log: Log, spend: Callable[[float], None]
) -> None:
    def takes_a_while(_: Fence) -> Outcome:
        spend(1000.0)
        return CHANGED

    one = run(takes_a_while, interval_seconds=900.0, timeout_seconds=1e6)

    assert seconds_left(one, 1) < one.settings.interval_seconds
