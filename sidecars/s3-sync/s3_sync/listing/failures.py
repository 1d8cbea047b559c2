"""
Which files fail again and again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.logs import get_logger

# After this many failed cycles in a row nothing waits for a path any more.
FAILED_CYCLES = 3
NAMED_PATHS = 50

log = get_logger("cycle")


class Failures:
    """
    For how many cycles in a row each path has failed.
    """

    def __init__(self) -> None:
        self._times: dict[str, int] = {}

    @property
    def paths(self) -> Collection[str]:
        """
        What failed in the last cycle.
        """
        return self._times.keys()

    def note(self, failed: Mapping[str, SidecarError]) -> None:
        """
        Count a cycle's failures, and name each the first time.
        """
        before, self._times = self._times, {}
        for path, error in failed.items():
            self._times[path] = before.get(path, 0) + 1
            if path not in before and len(self._times) <= NAMED_PATHS:
                log.warning("object_failed", path=path, reason=error.reason, error=error.message)

    def given_up(self, wanted: Collection[str]) -> set[str]:
        """
        Return the paths that nothing waits for any more.

        One object that cannot be read must not keep deleted DAGs alive, or pods from starting,
        indefinitely. Where all fail it is not the objects.
        """
        stubborn = {path for path, times in self._times.items() if times >= FAILED_CYCLES}
        return stubborn if len(stubborn) < len(wanted) else set()
