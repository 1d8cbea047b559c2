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
from typing import Any

import pytest

from sidecar_runtime import logs
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.health import Outcome, Readiness
from sidecar_runtime.settings import CommonSettings, load
from tests.support.machine.clocks import Clock

Event = dict[str, Any]
Step = Outcome | BaseException | Callable[[Fence], Outcome]

CHANGED = Outcome("changed", "r1", {"files_published": 1})
UNCHANGED = Outcome("unchanged", "r1")
WAITING = Outcome("waiting")


class Log:
    """The JSON lines that were written since the fixture started."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    def events(self, name: str | None = None) -> list[Event]:
        """Return all lines, or those with this event name."""
        lines = [json.loads(line) for line in self._stream.getvalue().splitlines()]
        return [line for line in lines if name is None or line["event"] == name]

    def text(self) -> str:
        """Return the raw text of the container's log."""
        return self._stream.getvalue()


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Restore the root logger's handlers and level afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def log() -> Iterator[Log]:
    """The log of the code under test, from level debug on."""
    stream = io.StringIO()
    with handlers_kept():
        logs.configure("debug", "json", stream)
        # At level debug, botocore logs thousands of lines.
        logging.getLogger("botocore").setLevel(logging.INFO)
        yield Log(stream)


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
    A sidecar whose cycles follow a script, one step each; after the last step it sends SIGTERM.

    A step is an outcome to return, an exception to raise, or a function to call.

    Attributes:
        rests: Whether a cycle after the last step only waits for its revocation.
    """

    def __init__(self, *steps: Step) -> None:
        self._steps = list(steps)
        self.cycles = 0
        self.rests = False
        self.sessions: list[ScriptSession] = []

    def begin(self) -> "ScriptSession":
        """Return another session; all sessions follow the same script."""
        self.sessions.append(ScriptSession(self))
        return self.sessions[-1]

    def step(self, fence: Fence) -> Outcome:
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
        """Return that it is ready, published one second after the epoch."""
        return Readiness(True, "r1", 1.0)

    def details(self) -> dict[str, object]:
        """Return no facts."""
        return {}


class ScriptSession:
    """The session of a script."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.is_closed = False

    def cycle(self, fence: Fence) -> Outcome:
        """Run the next step of the script."""
        assert not self.is_closed
        return self._script.step(fence)

    def close(self) -> None:
        """Record that it was closed."""
        self.is_closed = True


def settings_of(**environment: str) -> CommonSettings:
    """Return the common settings with these variables, without prefix; INTERVAL defaults to 1h."""
    environ = {"INTERVAL": environment.pop("INTERVAL", "1h"), "X_HTTP_BIND": "127.0.0.1:0"}
    environ |= {f"X_{name}": value for name, value in environment.items()}
    settings, _ = load(CommonSettings, "X_", environ)
    return settings
