"""
When an upload in progress has settled.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Settle:
    """
    Watches the revisions of listings until one has stayed the same for a number of seconds.

    A listing shows some moment between its question and its answer. So a revision is known since
    the answer that brought it first, and known to be the same until the last question.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._revision = ""
        self._since = 0.0
        self._asked_at = 0.0

    def ask(self) -> None:
        """
        Note that a listing is about to be asked for.
        """
        self._asked_at = self._clock()

    def is_settled(self, revision: str, *, published: str, quiet_seconds: float) -> bool:
        """
        Whether a revision may be acted upon; called when its listing was answered.

        Args:
            published: The revision that was acted upon last; empty where none was.
            quiet_seconds: Since the newest object was written, as far as the source tells; so long
                a bucket is at rest already.
        """
        if self._seconds == 0 or revision == published:
            self._revision = ""
            return True
        if revision != self._revision:
            self._revision, self._since = revision, self._clock()
            self._since -= quiet_seconds
        return self._asked_at - self._since >= self._seconds
