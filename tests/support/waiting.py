"""Waiting for a condition with a deadline: the only place in the tests that sleeps."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T], what: str, timeout_seconds: float = 15.0, step_seconds: float = 0.02
) -> T:
    """
    Return the first true value of a condition.

    Args:
        condition: Called again and again.
        what: What is waited for, as the message of the failure.
        timeout_seconds: How long to wait.
        step_seconds: The pause between two calls.

    Raises:
        AssertionError: The condition was not true in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_seconds} s: {what}")
        time.sleep(step_seconds)
