"""
When a pass may begin: after a quiet time, after failures, and within a share of a core.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar_runtime.errors import SidecarError
from sync_perm.difference import Item

# A failed pass is repeated after 10, 20, 40, … seconds, up to this.
MAX_PAUSE_SECONDS = 300.0
# Rows wait no longer than this, or than it takes to pay for the last pass.
MAX_WAIT_SECONDS = 900.0
# Rows that come back after this many passes within ten minutes are someone else's doing.
CONTESTED_PASSES = 2
CONTESTED_SECONDS = 600.0
# How many rows of a pass are remembered for that; more at once is not what a person edits.
REMEMBERED_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Pace:
    """
    The waits that no setting changes, in seconds.

    Args:
        resync_seconds: The tables are read this often without a change of the fingerprint.
        quiet_seconds: From the end of a pass to the start of the next, and from a DAG's change to
            a pass for it: the parser syncs the DAGs that it writes, and Airflow 2 damages its
            tables when two do so at once.
        settle_seconds: The first pass of a process begins when what roles lack has stayed the same
            for so long: the web server beside it writes the same rows at its own start.
        core_share: What passes may take of a core in the long run, whoever edits the tables.
        damage_seconds: CPU that passes may take beyond it for rows that were lost, none for rows
            that are lost again and again.
        news_seconds: The same, where DAGs or roles have come since.
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
    How passes went, for as long as the process lives; moments are monotonic seconds.
    """

    pace: Pace
    ended_at: float = float("-inf")
    failures: int = 0
    last_error: SidecarError | None = None
    wants_full: bool = False
    """A person asked for a full pass, and none has succeeded since."""
    is_settled: bool = False
    """Nothing differed once, or a pass has succeeded."""
    lacking: frozenset[Item] | None = None
    """What roles lacked at the last look before that, since ``lacking_since``."""
    lacking_since: float = 0.0
    debt_seconds: float = 0.0
    """CPU of passes that is beyond the share of a core, when the last one ended."""
    last_cpu_seconds: float = 0.0
    """CPU of the last one."""
    written: deque[tuple[float, frozenset[Item]]] = field(default_factory=deque)
    """The rows that passes have written a short while ago, and when."""
    postponed_until: float = 0.0
    """The moment that was logged last."""
    roles: frozenset[str] = frozenset()
    """The roles when nothing differed last, or a pass had ended."""
    has_news: bool = True
    """DAGs or roles have come since."""
    clock: Callable[[], float] = time.monotonic

    @property
    def next_at(self) -> float:
        """
        Return the moment before which no pass begins.
        """
        return self.ended_at + min(MAX_PAUSE_SECONDS, self.pace.quiet_seconds * 2.0**self.failures)

    def affordable_at(self, items: frozenset[Item]) -> float:
        """
        Return the moment from which a pass for these rows stays within the share of a core.

        Whoever waits for as long as the last pass costs adds nothing to the debt, which never
        exceeds ``news_seconds`` and that pass. So passes take, of any time, the share, and once so
        much.
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
        Take what a look has found that may be new.

        Args:
            is_fresh: DAGs were serialized again.
        """
        self.has_news |= is_fresh or not roles <= self.roles

    def settle(self, roles: frozenset[str]) -> None:
        """
        Note that nothing differs, or that a pass has ended.
        """
        self.roles, self.has_news = roles, False

    def note_pass(self, items: frozenset[Item], cpu_seconds: float) -> None:
        """
        Note that a pass for these rows has ended now.
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
