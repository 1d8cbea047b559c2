"""
Triggers the loop: an APScheduler job that only puts an event into the queue.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.executors.debug import DebugExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from sidecar_runtime.loop.backoff import draw_interval


class Schedule:
    """
    Triggers immediately, and then every interval ± jitter.
    """

    def __init__(
        self, trigger: Callable[[], object], interval_seconds: float, jitter_seconds: float
    ) -> None:
        self._scheduler = BackgroundScheduler(executors={"default": AtOnce()}, timezone=UTC)
        self._job = self._scheduler.add_job(
            trigger,
            Every(interval_seconds, jitter_seconds),
            coalesce=True,
            misfire_grace_time=None,
            max_instances=1,
        )

    def start(self) -> None:
        """
        Start the scheduler.
        """
        self._scheduler.start()

    def move(self, in_seconds: float) -> None:
        """
        Set the next trigger, in seconds from now; later triggers follow at the usual interval.
        """
        self._job.modify(next_run_time=datetime.now(UTC) + timedelta(seconds=in_seconds))

    def stop(self) -> None:
        """
        Stop the scheduler.
        """
        self._scheduler.shutdown(wait=False)


class Every(BaseTrigger):  # type: ignore[misc]
    """
    Fires at now + interval ± jitter.

    APScheduler's own IntervalTrigger counts up from the last fire time, one interval at a time.
    A clock that is set from 1970 to today would keep it busy indefinitely.
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
    Runs the job in the scheduler's thread, without a pool or a record: it only puts an event.
    """

    def submit_job(self, job: Any, run_times: object) -> None:
        job.func()
