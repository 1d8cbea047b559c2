"""
The real loop in this process's main thread, with a scripted sidecar and short waits.

Tests send signals only after the first cycle has started: the loop's handlers are installed then.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from sidecar_runtime.errors import EXIT_DONE, SidecarError
from sidecar_runtime.health import Health, Outcome
from sidecar_runtime.http.endpoint import registry_of
from sidecar_runtime.loop import Loop, Pace
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.settings import CommonSettings
from tests.runtime.recording import CHANGED, Log, Script, settings_of
from tests.support.waiting import wait_until

DENIED = SidecarError("access_denied", "may not list", "allow it")
REFUSAL = SidecarError("revision_refused", "the gate refuses r2: a.py:3: what", "fix it")
REFUSED = Outcome("refused", "r1", problem=REFUSAL)
SETTLING = Outcome("settling", "r1")
PATIENCE_SECONDS = 60
# The waits of `Pace`, a fraction of a second long.
QUICK = Pace(backoff=lambda *_: 0.02, waiting_retry_seconds=0.05, tidy_seconds=0.05)
RESULTS = ("changed", "unchanged", "partial", "waiting", "settling", "refused", "error")


@dataclass
class Run:
    """A loop with its scripted sidecar, settings, health and metrics."""

    sidecar: Script
    settings: CommonSettings
    health: Health = field(default_factory=Health)
    metrics: Metrics = field(default_factory=lambda: Metrics("box", "1", "r"))
    pace: Pace = QUICK
    loop: Loop = field(init=False)
    _is_late: bool = False

    def __call__(self) -> int:
        """Run the loop and return its exit code; fail if it does not end before the deadline."""
        self.loop = Loop(self.sidecar, self.settings, self.health, self.metrics)
        self.loop.pace = self.pace
        watchdog = threading.Timer(PATIENCE_SECONDS, self._end_late)
        watchdog.start()
        try:
            return self.loop.run()
        finally:
            watchdog.cancel()
            watchdog.join()
            assert not self._is_late, "the loop did not end"

    def _end_late(self) -> None:
        self._is_late = True
        send(signal.SIGTERM)

    def until_stopped(self) -> None:
        """Run until the script is over."""
        assert self() == EXIT_DONE

    def until(self, results: int, act: Callable[[], object] = lambda: send(signal.SIGTERM)) -> None:
        """Run until `act`, called from another thread after that many cycles, ends the loop."""
        self.sidecar.rests = True  # the other thread may be late
        thread = when_idle(self, results, act)
        assert self() == EXIT_DONE
        thread.join()

    def count(self, result: str) -> float:
        labels = {"sidecar": "box", "result": result}
        registry = registry_of(self.metrics.families)
        return registry.get_sample_value("sidecar_cycles_total", labels) or 0

    def results(self) -> list[str]:
        return [cycle.outcome.result for cycle in reversed(self.health.past_cycles())]


def run(*steps: Any, pace: Pace = QUICK, **changes: Any) -> Run:
    """Return an unstarted loop; `changes` are settings, and the interval defaults to an hour."""
    return Run(Script(*steps), replace(settings_of(), **changes), pace=pace)


def failing_for(seconds: float) -> Pace:
    """Return the pace `QUICK`, but with this wait after failures."""
    return QUICK._replace(backoff=lambda *_: seconds)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture
def spend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """
    Return a function that moves the monotonic clock of this process ahead, by seconds.

    A step calls it to exceed a limit of the loop: the limit then passes after the step has begun,
    however late its thread starts.
    """
    real, ahead = time.monotonic, 0.0

    def move(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds
        send(signal.SIGUSR1)  # every signal ends the loop's wait, so it reads the clock again

    monkeypatch.setattr(time, "monotonic", lambda: real() + ahead)
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    yield move
    signal.signal(signal.SIGUSR1, before)


def hear(log: Log, number: signal.Signals) -> None:
    """Send a signal and wait until the loop has received it."""
    count = len(log.events("signal_received"))
    send(number)
    wait_until(
        lambda: len(log.events("signal_received")) > count, "the signal is heard", step_seconds=0
    )


def when_idle(one: Run, results: int, act: Callable[[], object]) -> threading.Thread:
    """Run `act` in another thread once that many cycles are recorded."""

    def wait() -> None:
        wait_until(lambda: sum(map(one.count, RESULTS)) >= results, "the cycles", PATIENCE_SECONDS)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def seconds_left(one: Run, results: int) -> float:
    """Run a loop for that many cycles; return the seconds until the next one."""
    left: list[float] = []

    def look() -> None:
        wait_until(lambda: one.health.next_cycle_in_seconds, "the next cycle is set")
        left.append(one.health.next_cycle_in_seconds or 0)
        send(signal.SIGTERM)

    one.until(results, look)
    return left[0]


def waits(event: threading.Event) -> Outcome:
    """Hang until an event, then return a changed outcome."""
    assert event.wait(PATIENCE_SECONDS)
    return CHANGED
