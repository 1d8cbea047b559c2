"""
Fixtures for the tests of the loop.
"""

import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.runtime.loop.looping import send


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
