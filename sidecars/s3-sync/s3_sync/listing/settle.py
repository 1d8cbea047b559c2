"""
Detects when an upload in progress has settled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from s3_sync.digest import Content

# An object that changes for this many times the settle time is permanently busy, not an upload.
BUSY_TIMES = 4


class Settle:
    """
    Watches listings until all changed objects have stayed the same for a number of seconds.

    A listing shows some moment between its request and its response. So a change is known since
    the first response with it, and known to have lasted until the latest request.

    Attributes:
        disturber: A changed path, set once the wait exceeds the limit for busy objects: an endless
            series of new objects cannot be told from one long upload.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._asked_at = 0.0
        self._waiting_since: float | None = None
        self.disturber = ""
        # The previous listing, and the times of the first and last change of each unsettled path;
        # the empty path stands for a whole first listing.
        self._wanted: Mapping[str, Content] | None = None
        self._restless: dict[str, tuple[float, float]] = {}

    def ask(self) -> None:
        """
        Note that a listing is about to be requested.
        """
        self._asked_at = self._clock()

    def is_settled(
        self, wanted: Mapping[str, Content], *, is_published: bool, quiet_seconds: float
    ) -> bool:
        """
        Whether a listing may be acted upon; called after the response.

        Args:
            is_published: Whether it was acted upon last.
            quiet_seconds: The time since the newest object was written, according to the source:
                the bucket has been at rest for that long.
        """
        if self._seconds == 0:
            return True
        last = self._clock() - quiet_seconds
        for path in self._changed(wanted):
            began, _ = self._restless.get(path, (last, last))
            self._restless[path] = began, last
        self._restless = {
            path: (began, last)
            for path, (began, last) in self._restless.items()
            if self._asked_at - last < self._seconds
        }
        busy_seconds = BUSY_TIMES * self._seconds
        if is_published or all(
            last - began >= busy_seconds for began, last in self._restless.values()
        ):
            self._waiting_since, self.disturber = None, ""
            return True
        if self._waiting_since is None:
            self._waiting_since = self._clock()
        if not self.disturber and self._clock() - self._waiting_since >= busy_seconds:
            self.disturber = max(self._restless, key=lambda path: self._restless[path][1])
        return False

    def _changed(self, wanted: Mapping[str, Content]) -> list[str]:
        before, self._wanted = self._wanted, wanted
        if before is None:
            return [""]
        if before is wanted:
            return []
        return [path for path in {**before, **wanted} if before.get(path) != wanted.get(path)]
