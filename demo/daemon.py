"""
A real sidecar as a process: what the demo asks it, and how it waits for it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.support.daemon import VENV_BIN, Event, SidecarProcess
from tests.support.waiting import PATIENCE_SECONDS, wait_until

T = TypeVar("T")

StepFailed = AssertionError
"""A check of the demo failed."""


class Daemon(SidecarProcess):
    """
    A process; a `with` statement starts it, and kills it if it still runs.

    Args:
        program: Its console script, or the path of another program.
        environment: All variables in addition to PATH and HOME.
        patience_seconds: The longest wait for a condition.
    """

    def __init__(
        self,
        program: str | Path,
        environment: Mapping[str, str | None],
        home: Path,
        arguments: Sequence[str] = (),
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        super().__init__(VENV_BIN / program, environment, home, arguments)
        self.patience_seconds = patience_seconds

    def wait_for(self, condition: Callable[[], T | None], what: str) -> T:
        """
        Return the first true value of a condition.

        Raises:
            AssertionError: It was not met in time, or the daemon ended; with the end of its log.
        """
        return wait_for(self, condition, what, self.patience_seconds)

    def find_event(self, name: str, **match: object) -> Event | None:
        """
        Return the last event with this name and these values.
        """
        found = self.find_events(name, **match)
        return found[-1] if found else None

    def readiness(self) -> dict[str, Any]:
        """
        Return the body of /readyz, with its status code as `code`.
        """
        answer = self.get("/readyz")
        return {**answer.json(), "code": answer.status}

    def url(self) -> str:
        """
        Return the address of its endpoint.
        """
        host, port = self.address()
        return f"http://{host}:{port}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """
        Stop it (SIGSTOP), and continue it afterwards.
        """
        self.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.send_signal(signal.SIGCONT)


def wait_for(
    daemon: SidecarProcess,
    condition: Callable[[], T | None],
    what: str,
    patience_seconds: float = PATIENCE_SECONDS,
) -> T:
    """
    Return the first true value of a condition that a process should fulfill.
    """

    def met() -> T | None:
        value = condition()
        assert value or daemon.is_running(), "the process has ended"
        return value

    try:
        value = wait_until(met, what, patience_seconds, step_seconds=0.02)
    except AssertionError as failure:
        raise AssertionError(f"{what}: {failure}\n{daemon.log()}") from None
    assert value is not None
    return value
