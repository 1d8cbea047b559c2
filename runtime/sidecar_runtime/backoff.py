"""
How long to wait after failures: exponential with full jitter.

Full jitter (a wait drawn from the whole range) spreads a fleet that failed together best; see
"Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import random
from collections.abc import Callable

BASE_SECONDS = 1.0
CAP_SECONDS = 60.0
FLOOR_SECONDS = 0.2


def backoff_seconds(
    failures: int, interval_seconds: float, draw: Callable[[float, float], float] = random.uniform
) -> float:
    """
    Return the seconds to wait after the given number of consecutive failures (1 or more).

    The range doubles with each failure up to a minute, or up to the interval where that is
    longer: a failing source is never asked less often than a healthy one, beyond a minute.
    """
    cap = max(CAP_SECONDS, interval_seconds)
    base = min(BASE_SECONDS, interval_seconds)
    ceiling: float = min(cap, base * 2 ** min(failures, 32))
    return max(FLOOR_SECONDS, draw(0.0, ceiling))
