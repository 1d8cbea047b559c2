"""
Fixtures for the tests of the loop.
"""

import signal
from collections.abc import Iterator

import pytest

from tests.runtime.loop.looping import spend

__all__ = ["spend"]


@pytest.fixture(autouse=True)
def handlers_restored() -> Iterator[None]:
    """The loop of a process ends with it, and leaves its signal handlers."""
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
