"""
APScheduler, which triggers the regular cycles of a daemon.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger


class Trigger(BaseTrigger):  # type: ignore[misc]
    """
    Fires again after the seconds that it asks for each time.
    """

    def __init__(self, seconds_to_next: Callable[[], float]) -> None:
        self._seconds_to_next = seconds_to_next

    def get_next_fire_time(self, _: datetime | None, now: datetime) -> datetime:
        return now + timedelta(seconds=self._seconds_to_next())


def start_scheduler(
    tick: Callable[[], None], seconds_to_next: Callable[[], float]
) -> BackgroundScheduler:
    """
    Start APScheduler, which triggers the cycles of a daemon: its job only puts an
    event.

    Its own interval trigger lists each time that it missed: 200 million, if a node that
    boots in 1970 gets the date later.

    The job runs in the scheduler's own thread (``debug``), because a pool is joined at
    exit: a job that sleeps 6 s delays SIGTERM by 6 s (measured).

    Raises:
        RuntimeError: No thread can be started.
    """
    scheduler = BackgroundScheduler(
        executors={"default": {"type": "debug"}}, timezone=UTC
    )
    scheduler.start()
    scheduler.add_job(
        tick, Trigger(seconds_to_next), id="cycle", misfire_grace_time=None
    )
    return scheduler
