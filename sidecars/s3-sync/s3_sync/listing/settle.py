"""
When an upload in progress has settled.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Settle:
    """
    Watches the revisions of listings until one has stayed the same for a number of seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._revision = ""
        self._since = 0.0

    def is_settled(self, revision: str, *, published: str, quiet_seconds: float) -> bool:
        """
        Whether a revision may be acted upon.

        Args:
            published: The revision that is published; empty where nothing is, and then a bucket
                that has long been quiet is not waited for.
            quiet_seconds: Since the newest object was written, by the source's own clock.
        """
        if self._seconds == 0 or revision == published:
            self._revision = ""
            return True
        if revision != self._revision:
            self._revision, self._since = revision, self._clock()
            if not published:
                self._since -= quiet_seconds
        return self._clock() - self._since >= self._seconds
