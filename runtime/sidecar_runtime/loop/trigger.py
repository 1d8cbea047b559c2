"""
What APScheduler gets: a moment from now on, and a job that only puts an event.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

from apscheduler.executors.debug import DebugExecutor
from apscheduler.triggers.base import BaseTrigger

LEAST_SECONDS = 0.05


def draw_interval(interval_seconds: float, jitter_seconds: float) -> float:
    """
    Return interval ± jitter, in seconds.
    """
    jitter = random.uniform(-jitter_seconds, jitter_seconds)
    return max(LEAST_SECONDS, interval_seconds + jitter)


class Every(BaseTrigger):  # type: ignore[misc]
    """
    Fires at now + interval ± jitter.

    APScheduler's own IntervalTrigger counts up from the last fire time, one interval at a time:
    a clock that is set from 1970 to today would keep it busy indefinitely.
    """

    def __init__(self, interval_seconds: float, jitter_seconds: float) -> None:
        self._interval_seconds = interval_seconds
        self._jitter_seconds = jitter_seconds

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        if previous is None:
            return now
        return now + timedelta(seconds=draw_interval(self._interval_seconds, self._jitter_seconds))


class AtOnce(DebugExecutor):  # type: ignore[misc]
    """
    Runs the job where it is due, as it only puts an event: no pool, and no record of the run.
    """

    def submit_job(self, job: Any, run_times: object) -> None:
        job.func()
