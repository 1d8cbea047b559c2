"""
When an upload in progress has settled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from s3_sync.digest import Content

# What keeps changing for this many times the time to settle is always busy, and no upload.
BUSY_TIMES = 4


class Settle:
    """
    Watches listings until all that has changed has stayed the same for a number of seconds.

    A listing shows some moment between its question and its answer. So a change is known since
    the answer that brought it first, and known to have lasted until the last question.

    Attributes:
        disturber: A path that has changed, where all has been waiting for longer than for what is
            always busy: of new ones without end nobody can tell whether they are one upload.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._asked_at = 0.0
        self._waiting_since: float | None = None
        self.disturber = ""
        # The listing before, and of what has not rested yet when its first and last change came;
        # the empty path is all of a listing that has none before it.
        self._wanted: Mapping[str, Content] | None = None
        self._restless: dict[str, tuple[float, float]] = {}

    def ask(self) -> None:
        """
        Note that a listing is about to be asked for.
        """
        self._asked_at = self._clock()

    def is_settled(
        self, wanted: Mapping[str, Content], *, is_published: bool, quiet_seconds: float
    ) -> bool:
        """
        Whether a listing may be acted upon; called when it was answered.

        Args:
            is_published: Whether it is what was acted upon last.
            quiet_seconds: Since the newest object was written, as far as the source tells; so long
                a bucket is at rest already.
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
