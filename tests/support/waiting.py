"""Waits for a condition with a deadline; tests use this instead of `sleep`."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 60.0
"""
A generous limit for conditions that take a second, because ten tests may share the CPU.
"""


def wait_until(
    condition: Callable[[], T],
    what: str,
    timeout_seconds: float = PATIENCE_SECONDS,
    step_seconds: float | None = None,
) -> T:
    """
    Return the first true value of a condition.

    Args:
        condition: Called repeatedly.
        what: The condition in words, for the failure message.
        timeout_seconds: How long to wait.
        step_seconds: The pause between two calls. `None`: it grows with the wait,
            because each call (a request, a query) takes milliseconds of CPU from the
            process under test.

    Raises:
        AssertionError: The condition did not become true in time.
    """
    began = time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        waited = time.monotonic() - began
        if waited > timeout_seconds:
            raise AssertionError(f"not within {timeout_seconds} s: {what}")
        time.sleep(
            min(0.02 + waited / 20, 0.25) if step_seconds is None else step_seconds
        )
