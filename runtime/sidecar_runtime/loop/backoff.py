"""
Waits between cycles, and after failures: exponential backoff with full jitter.

Full jitter (a wait drawn from the whole range) best spreads a fleet that failed together; see
"Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

LEAST_SECONDS = 0.05


def draw_interval(interval_seconds: float, jitter_seconds: float) -> float:
    """
    Return interval ± jitter, in seconds.
    """
    jitter = random.uniform(-jitter_seconds, jitter_seconds)
    return max(LEAST_SECONDS, interval_seconds + jitter)


class Backoff(NamedTuple):
    """
    The range of waits after a failure, in seconds.

    Args:
        base_seconds: The range after the first failure is twice this, or twice the interval
            if that is shorter.
        cap_seconds: The upper limit of the range, or the interval if that is longer.
        floor_seconds: The shortest wait, regardless of the draw.
        draw: Draws a value from a range.
    """

    base_seconds: float = 1.0
    cap_seconds: float = 60.0
    floor_seconds: float = 0.2
    draw: Callable[[float, float], float] = random.uniform

    def seconds(self, failures: int, interval_seconds: float) -> float:
        """
        Return the seconds to wait after the given number of consecutive failures (1 or more).

        The range doubles with each failure up to a minute, or up to the interval if that is
        longer. The wait therefore never exceeds a minute, or the interval if that is longer.
        """
        cap = max(self.cap_seconds, interval_seconds)
        base = min(self.base_seconds, interval_seconds)
        ceiling: float = min(cap, base * 2 ** min(failures, 32))
        return max(self.floor_seconds, self.draw(0.0, ceiling))
