"""
Support for the tests of the runtime: the written log, and a scripted sidecar.
"""

import io
import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import pytest

from sidecar_runtime import logs
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.health import About, Outcome, Readiness, waits_for_holder
from sidecar_runtime.metrics import Metric
from sidecar_runtime.settings import CommonSettings, load
from tests import Facts
from tests.support.machine.clocks import Clock

Event = Facts
Step = Outcome | BaseException | Callable[[Fence], Outcome]

CHANGED = Outcome("changed", "r1", {"files_published": 1})
UNCHANGED = Outcome("unchanged", "r1")
WAITING = waits_for_holder("pid 7 on other-pod")
ABOUT = About(
    "box-sync",
    "1.2.3",
    "box://source",
    "/target",
    pod={"name": "box-0", "namespace": "airflow", "node": ""},
    settings={"INTERVAL": "5s"},
)


class Log:
    """The JSON lines that were written since the fixture started."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    def events(self, name: str) -> list[Event]:
        """Return the lines with this event name."""
        lines = [json.loads(line) for line in self._stream.getvalue().splitlines()]
        return [line for line in lines if line["event"] == name]


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Restore the root logger's handlers and level afterwards."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    level = root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def log() -> Iterator[Log]:
    """The log of the code under test, from level debug on."""
    stream = io.StringIO()
    with handlers_kept():
        logs.configure("debug", stream)
        # At level debug, botocore logs thousands of lines.
        logging.getLogger("botocore").setLevel(logging.INFO)
        yield Log(stream)


@pytest.fixture(autouse=True)
def handlers_restored(log: Log, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The loop of a process ends with it, and leaves its log, signal handlers and pipe."""
    read, write = os.pipe()
    monkeypatch.setattr("sidecar_runtime.SIGNALS_READ", read)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    yield
    os.close(signal.set_wakeup_fd(-1))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


@pytest.fixture
def fence() -> Fence:
    """A fence that is not revoked."""
    return Fence()


@pytest.fixture
def revoked() -> Fence:
    """A fence that is already revoked."""
    fence = Fence()
    fence.revoke()
    return fence


@pytest.fixture
def clock() -> Clock:
    """A clock that the test controls."""
    return Clock()


class Script:
    """
    A sidecar whose cycles follow a script, one step each; after the last step it sends
    SIGTERM.

    A step is an outcome to return, an exception to raise, or a function to call.

    Attributes:
        rests: Whether a cycle after the last step only waits for its revocation.
    """

    def __init__(
        self,
        *steps: Step,
        ready: Readiness = Readiness("r1", 1_700_000_000.0, None),  # noqa: B008 - immutable
        details: Facts | None = None,
    ) -> None:
        self._steps = list(steps)
        self._ready = ready
        self._details = details or {}
        self.cycles = 0
        self.rests = False

    def begin(self) -> Self:
        """Begin a session; all sessions follow the same script."""
        return self

    def cycle(self, fence: Fence) -> Outcome:
        """Run the next step."""
        if not self._steps:
            revoked = threading.Event()
            fence.on_revoke(revoked.set)
            if not self.rests:
                self.cycles += 1
                os.kill(os.getpid(), signal.SIGTERM)
            revoked.wait()
            raise CycleAbandoned
        self.cycles += 1
        step = self._steps.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step(fence) if callable(step) else step

    def readiness(self) -> Readiness:
        return self._ready

    def details(self) -> Facts:
        return self._details


READY = Script()


def value_of(series: Metric) -> float:
    """Return the value of a counter or gauge."""
    ((_, _, value, *_),) = series._child_samples()
    return float(value)


def settings_of(**environment: str) -> CommonSettings:
    """
    Return the common settings with these variables, without prefix; INTERVAL defaults
    to 1h.
    """
    environ = {
        "INTERVAL": environment.pop("INTERVAL", "1h"),
        "X_HTTP_BIND": "127.0.0.1:0",
    }
    environ |= {f"X_{name}": value for name, value in environment.items()}
    settings, _ = load(CommonSettings, "X_", environ)
    return settings
