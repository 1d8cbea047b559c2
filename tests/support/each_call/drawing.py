"""
Which calls a run tries.
"""

import random

import pytest

SAMPLE = 4
"""How many calls of each combination a short run tries."""


def points(calls: int, request: pytest.FixtureRequest, seed: str) -> list[int]:
    """
    Return the numbers of the calls to try, from 1: with `--full` all of them.
    """
    everything = list(range(1, calls + 1))
    if request.config.getoption("--full"):
        return everything
    return sorted(random.Random(seed).sample(everything, min(SAMPLE, calls)))
