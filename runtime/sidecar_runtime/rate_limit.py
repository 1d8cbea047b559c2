"""
How often something may happen that other processes cause.
"""

from time import monotonic


class RateLimit:
    """
    Allows an action a number of times at once, and then once in a period; what was used
    comes back with time.

    Args:
        burst: How many times at once.
        period_seconds: The time in which one more comes back.
    """

    def __init__(self, burst: int, period_seconds: float) -> None:
        self._earlier_seconds = (burst - 1) * period_seconds
        self._period_seconds = period_seconds
        self._whole_at = monotonic()
        """When all that was used has come back."""

    @property
    def wait_seconds(self) -> float:
        """
        The time until the action is allowed; 0 if it is allowed now.
        """
        return max(0.0, self._whole_at - self._earlier_seconds - monotonic())

    def use(self) -> None:
        """
        Note that the action happens.
        """
        self._whole_at = max(self._whole_at, monotonic()) + self._period_seconds
