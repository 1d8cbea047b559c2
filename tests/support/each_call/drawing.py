"""
Which calls a run tries.
"""

import random
from collections.abc import Callable

import pytest

KINDS = ("crash", "EIO", "ENOSPC", "EACCES", "revoke")
SAMPLE = 2
"""How many calls of each combination a short run tries."""

_counted: dict[str, int] = {}


def points(calls: int, request: pytest.FixtureRequest, seed: str) -> list[int]:
    """
    Return the numbers of the calls to try, from 1: with `--full` all of them.
    """
    everything = list(range(1, calls + 1))
    if request.config.getoption("--full"):
        return everything
    return sorted(random.Random(seed).sample(everything, min(SAMPLE, calls)))


def at_each_call(
    attempt: Callable[[int], int], request: pytest.FixtureRequest, kind: str
) -> None:
    """
    Try a publish with a fault at each call, or at a few; whatever the kind of the fault,
    it takes the same calls.

    Args:
        attempt: Publishes with a fault at this call, or without one (0); returns how
            many calls that took.
    """
    name = request.function.__qualname__
    if name not in _counted:
        _counted[name] = attempt(0)
    assert _counted[name] > 3
    for at in points(_counted[name], request, kind):
        attempt(at)
