"""
The loop in normal operation: schedule, log, metrics and glances.
"""

import time
from dataclasses import replace

from sidecar_runtime.fence import Fence
from sidecar_runtime.http.endpoint import registry_of
from sidecar_runtime.loop.loop import Pace
from tests.runtime.loop.looping import DENIED, Run, run
from tests.runtime.recording import CHANGED, UNCHANGED, Log, Script, ScriptSession, settings_of


def test_the_default_waits() -> None:
    """All other tests use shorter waits. The last two keep a shutdown under the promised second."""
    pace, fence = Pace(), Fence()

    assert (2.0, 2.0) == (pace.waiting_retry_seconds, pace.clock_grace_seconds)
    assert 60.0 == pace.liveness_grace_seconds
    assert (0.2, 0.4) == (pace.tidy_seconds, fence._in_flight_seconds)


def test_cycles_run_at_the_interval(log: Log) -> None:
    one = run(CHANGED, UNCHANGED, UNCHANGED, CHANGED, interval_seconds=0.1)
    began = time.monotonic()

    one.until_stopped()

    assert time.monotonic() - began >= 3 * one.settings.interval_seconds
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


# --- glances


class Glancer(Script):
    """A script whose session sees a change at its first glance only."""

    def begin(self) -> ScriptSession:
        session = super().begin()
        self.glances = 0

        def glance() -> bool:
            self.glances += 1
            return self.glances > 1

        session.glance = glance  # type: ignore[attr-defined]
        session.can_wait_for_news = False  # type: ignore[attr-defined]
        return session


def test_glances_count_as_cycles_and_a_change_triggers_one() -> None:
    script = Glancer(CHANGED, UNCHANGED)
    settings = replace(settings_of(), interval_seconds=0.1)
    glanced = Run(script, settings, glances=15)
    glanced.until_stopped()

    # The first glance sees a change and triggers cycle 2; cycle 3 follows after quiet glances.
    quiet = script.glances - 1
    assert (3, 1) == (script.cycles, glanced.count("changed"))
    assert 1 + quiet == glanced.count("unchanged")
    assert 1 <= quiet <= 15
    durations = "sidecar_cycle_duration_seconds_count"
    labels = {"sidecar": "box"}
    assert 3 + quiet == registry_of(glanced.metrics.families).get_sample_value(durations, labels)
