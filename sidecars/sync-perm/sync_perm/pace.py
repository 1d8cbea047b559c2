"""
Decides when a pass may start: after a quiet time, with backoff, and within a share of a core.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar_runtime.errors import SidecarError
from sync_perm.difference import Item

# What has failed is retried after 10, 20, 40, … seconds, up to this limit.
MAX_PAUSE_SECONDS = 300.0
# Rows wait at most this long, or as long as the CPU of the last pass takes to be paid back.
MAX_WAIT_SECONDS = 900.0
# After this many passes for the same rows in ten minutes, another process must be changing them.
CONTESTED_PASSES = 2
CONTESTED_SECONDS = 600.0
# The most rows of a pass that are remembered for that; no one edits more by hand at once.
REMEMBERED_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Pace:
    """
    The waits that no setting changes, in seconds.

    Args:
        resync_seconds: How often the tables are read without a change of the fingerprint.
        quiet_seconds: From the end of a pass to the start of the next, and from a DAG's change to
            a pass for it. The parser syncs the DAGs that it writes, and Airflow 2 damages its
            tables if two processes do so at once.
        settle_seconds: How long the missing rows of roles must stay the same before the first pass
            of a process: the web server beside it writes the same rows at its own start.
        core_share: The share of a core that passes may take in the long run.
        damage_seconds: The CPU that passes may take beyond it for lost rows; zero for rows that
            are lost repeatedly.
        news_seconds: The same, if DAGs or roles were added since.
    """

    resync_seconds: float = 3600.0
    quiet_seconds: float = 5.0
    settle_seconds: float = 5.0
    core_share: float = 0.05
    damage_seconds: float = 20.0
    news_seconds: float = 120.0


@dataclass(slots=True)
class PassHistory:
    """
    The history of passes in this process; times are monotonic seconds.
    """

    pace: Pace
    ended_at: float = float("-inf")
    failures: int = 0
    last_error: SidecarError | None = None
    wants_full: bool = False
    """SIGHUP or a one-shot requested a full pass, and none has succeeded since."""
    is_settled: bool = False
    """Whether nothing differed once, or a pass has succeeded."""
    lacking: frozenset[Item] | None = None
    """The missing rows of roles at the last look before that, unchanged since ``lacking_since``."""
    lacking_since: float = 0.0
    debt_seconds: float = 0.0
    """The CPU of passes beyond the share of a core, at the end of the last pass."""
    last_cpu_seconds: float = 0.0
    """The CPU of the last pass."""
    written: deque[tuple[float, frozenset[Item]]] = field(default_factory=deque)
    """The rows that recent passes have written, and when."""
    postponed_until: float = 0.0
    """The time that was logged last."""
    roles: frozenset[str] = frozenset()
    """The roles when nothing differed last, or at the end of the last pass."""
    has_news: bool = True
    """Whether DAGs or roles were added since."""
    unread: SidecarError | None = None
    """Why the roles' definition could not be read."""
    unread_times: int = 0
    """How often in a row."""
    define_at: float = float("-inf")
    """The time before which it is not read again."""
    clock: Callable[[], float] = time.monotonic

    @property
    def next_at(self) -> float:
        """
        Return the time before which no pass starts.
        """
        return self.ended_at + self._pause(self.failures)

    def _pause(self, failures: int) -> float:
        return min(MAX_PAUSE_SECONDS, self.pace.quiet_seconds * 2.0**failures)

    def note_unread(self, error: SidecarError, *, is_final: bool) -> None:
        """
        Record that the roles' definition could not be read.

        Args:
            is_final: Whether another attempt would fail for the same cause.
        """
        self.unread = error
        self.unread_times += 1
        pause = float("inf") if is_final else self._pause(self.unread_times)
        self.define_at = self.clock() + pause

    def affordable_at(self, items: frozenset[Item]) -> float:
        """
        Return the time from which a pass for these rows stays within the share of a core.

        A wait that is long enough to pay for the last pass adds nothing to the debt, so the debt
        never exceeds ``news_seconds`` plus that pass. Over any period, passes take at most their
        share, plus that amount once.
        """
        since = self.clock() - CONTESTED_SECONDS
        passes = [written for at, written in self.written if at >= since]
        is_contested = bool(items) and all(
            sum(item in written for written in passes) >= CONTESTED_PASSES for item in items
        )
        if is_contested:
            allowed = 0.0
        else:
            allowed = self.pace.news_seconds if self.has_news else self.pace.damage_seconds
        longest = max(MAX_WAIT_SECONDS, self.last_cpu_seconds / self.pace.core_share)
        return self.ended_at + min(longest, (self.debt_seconds - allowed) / self.pace.core_share)

    def notice(self, roles: frozenset[str], *, is_fresh: bool) -> None:
        """
        Record whether a look has found new roles or DAGs.

        Args:
            is_fresh: Whether DAGs were serialized again.
        """
        self.has_news |= is_fresh or not roles <= self.roles

    def settle(self, roles: frozenset[str]) -> None:
        """
        Record that nothing differs, or that a pass has ended.
        """
        self.roles, self.has_news = roles, False

    def note_pass(self, items: frozenset[Item], cpu_seconds: float) -> None:
        """
        Record that a pass for these rows has just ended.
        """
        now = self.clock()
        repaid = (now - self.ended_at) * self.pace.core_share
        self.debt_seconds = max(0.0, self.debt_seconds - repaid) + cpu_seconds
        self.last_cpu_seconds = cpu_seconds
        self.ended_at = now
        while self.written and self.written[0][0] < now - CONTESTED_SECONDS:
            self.written.popleft()
        if 0 < len(items) <= REMEMBERED_ROWS:
            self.written.append((now, items))
