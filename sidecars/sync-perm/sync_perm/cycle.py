"""
One cycle: poll → compare → lock → compare again → pass → compare.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Literal

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.logs import get_logger
from sync_perm.airflow.passes import AirflowPasses, Misfit
from sync_perm.comparison import Comparison, Look
from sync_perm.database.connection import Source
from sync_perm.database.database import Database
from sync_perm.database.fingerprint import Fingerprint
from sync_perm.database.lock import PassLock
from sync_perm.difference import Item
from sync_perm.metrics import PermMetrics
from sync_perm.pace import PassHistory
from sync_perm.plan import Pass
from sync_perm.settings import Settings
from sync_perm.status import Status

# The passes of one cycle: a second pass fixes rows that a race with Airflow itself removed.
PASSES = 2
# A pass is stopped a little before the cycle would be abandoned, so that it can report the cause.
PASS_SHARE = 0.9
# Of that time, reading the definition leaves the rest to a pass.
DEFINITION_SHARE = 0.5
UNREAD = (
    "what this Airflow grants to its own roles could not be read, so it was not compared, and no "
    "role of the file inherits it"
)
# How many rows a log line lists.
NAMED_ROWS = 20

log = get_logger("cycle")


class Session:
    """
    The state of the thread that runs cycles: its connection, and when it last read the tables.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        passes: AirflowPasses,
        comparison: Comparison,
        *,
        metrics: PermMetrics,
        status: Status,
        history: PassHistory,
    ) -> None:
        self._settings = settings
        self._source = source
        self._passes = passes
        self._comparison = comparison
        self._metrics = metrics
        self._status = status
        self._history = history
        self._database: Database | None = None
        self._seen: Fingerprint | None = None
        self._read_at = 0.0
        self._began_at = 0.0
        self._affordable_at = float("inf")
        history.wants_full |= settings.one_shot

    def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle.

        Raises:
            SidecarError: The database or the pass failed; rows written before that stay.
            CycleAbandoned: The fence was revoked.
        """
        self._began_at = time.monotonic()
        self._history.wants_full |= fence.is_asked_for
        if self._comparison.file:
            self._comparison.file.refresh()
        try:
            fingerprint = self._fingerprint(fence)
            if not self._is_due(fingerprint):
                with fence:
                    if self._status.readiness.ready:
                        self._status.confirm(fingerprint.revision)
                return self._outcome("unchanged")
            return self._reconcile(fence)
        except BaseException:
            self.close()  # the next cycle starts with a new connection
            raise

    def close(self) -> None:
        """
        Close the connection, and forget its fingerprint.
        """
        self._seen = None
        self._disconnect()

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _open(self, fence: Fence) -> Database:
        if self._database is None:
            self._database = Database(self._source.read(fence))
        return self._database

    def _fingerprint(self, fence: Fence) -> Fingerprint:
        """
        Poll the tables; reconnect if the connection was lost while it was idle.

        Servers, PgBouncer and networks end such connections, so nothing is wrong.
        """
        if self._database is not None:
            try:
                return self._comparison.fingerprint(self._database)
            except SidecarError as error:
                if error.reason != "database_lost":
                    raise
                self._disconnect()
        return self._comparison.fingerprint(self._open(fence))

    def _is_due(self, fingerprint: Fingerprint) -> bool:
        return (
            fingerprint != self._seen
            or self._history.wants_full
            or self._comparison.wants_retry
            or self._may_define
            or time.monotonic() >= self._affordable_at
            or time.monotonic() - self._read_at > self._history.pace.resync_seconds
        )

    def _look(self, fence: Fence) -> Look:
        """
        Compare the tables, and show the result.

        The fingerprint is taken first, so that the next poll notices changes during the comparison.

        Raises:
            CycleAbandoned: The fence was revoked, and the next cycle may have seen newer tables.
        """
        self._seen = self._fingerprint(fence)
        self._read_at = time.monotonic()
        self._affordable_at = float("inf")
        look = self._comparison.look(self._open(fence))
        with fence:
            self._show(look)
        return look

    def _show(self, look: Look) -> None:
        self._status.show_file(self._comparison.file, look.wanted)
        self._status.show_differences(
            look.shown, look.failing, self._revision, is_defined=look.is_defined
        )

    @property
    def _may_define(self) -> bool:
        is_due = time.monotonic() >= self._history.define_at
        return self._comparison.wants_definition and is_due

    def _define(self, fence: Fence) -> None:
        """
        Read the roles' definition. Until that succeeds, the result of a pass replaces it.

        Raises:
            CycleAbandoned: The fence was revoked; the next cycle reads the definition.
        """
        seconds = self._seconds_left() * DEFINITION_SHARE
        try:
            empty = self._passes.write_empty(self._open(fence).address, fence, seconds)
        except SidecarError as error:
            log.warning("definition_unread", reason=error.reason, error=error.message)
            unread = SidecarError(error.reason, f"{UNREAD}: {error.message}", error.advice)
            self._history.note_unread(unread, is_final=isinstance(error, Misfit))
        else:
            cpu_seconds = round(self._passes.last_cpu_seconds, 3)
            log.info("definition_read", grants=empty.grant_count, cpu_seconds=cpu_seconds)
            self._comparison.define(empty)
            self._history.unread = None
        self._status.show_unread(self._history.unread, self._passes.unimported)

    def _reconcile(self, fence: Fence) -> Outcome:
        if self._may_define:
            self._define(fence)
        look = self._look(fence)
        work = self._plan(look)
        if work is None:
            self._history.is_settled = True
            self._history.settle(look.tables.roles)
            return self._outcome("unchanged")
        if work.reason != "asked":
            if not self._has_settled(look):
                self._seen = None
                return self._outcome("settling")
            if self._is_postponed(look):
                return self._outcome("unchanged")
        self._wait_for_turn(work, fence)
        # Read again, because a command's URL may have been rotated since our connection was opened.
        with PassLock(self._source.read(fence)) as lock:
            lock.try_write()
            if not lock.try_acquire():
                log.info("lock_waiting")
                self._metrics.lock_waits.inc()
                self._seen = None
                return self._outcome("waiting", holder="another sync-perm")
            return self._fix(lock, fence)

    def _has_settled(self, look: Look) -> bool:
        """
        Return whether the missing rows of roles have stopped changing.
        """
        history, now = self._history, time.monotonic()
        lacking = frozenset(item for item in look.items if not item.dag_id)
        if lacking != history.lacking:
            history.lacking, history.lacking_since = lacking, now
        return history.is_settled or now - history.lacking_since >= history.pace.settle_seconds

    def _is_postponed(self, look: Look) -> bool:
        """
        Return whether passes have used up their share of a core, because rows keep changing.

        Raises:
            SidecarError: The last pass failed; its error again.
        """
        history = self._history
        history.notice(look.tables.roles, is_fresh=bool(self._comparison.fresh))
        self._affordable_at = history.affordable_at(look.items)
        seconds = self._affordable_at - time.monotonic()
        if seconds > 0 and history.postponed_until != self._affordable_at:
            history.postponed_until = self._affordable_at
            rows = _rows(look.items)
            log.warning("pass_postponed", seconds=round(seconds, 1), rows=rows)
        if seconds > 0:
            self._repeat_error()
        return seconds > 0

    def _plan(self, look: Look) -> Pass | None:
        return self._comparison.plan(look, is_asked=self._history.wants_full)

    def _fix(self, lock: PassLock, fence: Fence) -> Outcome:
        """
        Compare again under the lock, and run the passes that are still needed.
        """
        before = look = self._look(fence)
        work = self._plan(look)
        stubborn = look.items
        for _ in range(PASSES):
            if work is None:
                break
            self._run(work, look.items, lock, fence)
            look = self._look(fence)
            stubborn &= look.items
            work = self._plan(look)
        if work is not None:
            with fence:
                look = self._comparison.keep(stubborn, look)
                self._show(look)
            if stubborn:
                log.warning("difference_kept", rows=_rows(stubborn))
            if look.items != stubborn:
                self._read_at = float("-inf")  # new differences: left to the next cycle
        self._history.settle(look.tables.roles)
        counts = look.changes_since(before)
        self._metrics.changed.inc(sum(counts.values()))
        return self._outcome("changed" if any(counts.values()) else "unchanged", **counts)

    def _run(self, work: Pass, items: frozenset[Item], lock: PassLock, fence: Fence) -> None:
        """
        Run one pass for the differences, and record its result.
        """
        log.info("pass_started", reason=work.reason, roles=work.roles, dags=len(work.dags))
        if work.given:
            rows = _rows(work.given)
            log.info("roles_file_differs", differences=len(work.given), rows=rows)
        started = time.monotonic()
        result = "error"
        try:
            failed = self._passes.run(work, lock.address, lock, fence, self._seconds_left())
            result = "success"
            self._history.failures, self._history.last_error = 0, None
            self._history.is_settled = True
            self._history.wants_full &= work.reason != "asked"
        except SidecarError as error:
            self._history.failures += 1
            self._history.last_error = error
            raise
        finally:
            cpu = self._passes.last_cpu_seconds
            self._history.note_pass(items if result == "success" else frozenset(), cpu)
            seconds = self._history.ended_at - started
            self._metrics.count_pass(work.reason, result)
            self._metrics.pass_cpu.set(cpu)
            self._metrics.pass_duration.set(seconds)
            facts = {
                "reason": work.reason,
                "result": result,
                "duration_seconds": round(seconds, 3),
                "cpu_seconds": round(cpu, 3),
            }
            self._status.show_mode(self._passes.cli_because)
            self._status.show_pass(**facts)
            log.info("pass_finished", **facts)
        self._comparison.learn(work, failed)

    def _seconds_left(self) -> float:
        """
        Return how many seconds Airflow may take in this cycle.
        """
        elapsed = time.monotonic() - self._began_at
        return max(1.0, self._settings.timeout_seconds * PASS_SHARE - elapsed)

    def _wait_for_turn(self, work: Pass, fence: Fence) -> None:
        """
        Wait until a pass may start; a cycle that SIGHUP triggered does not wait.

        Raises:
            SidecarError: The last pass failed and is waiting for its retry; its error again.
            CycleAbandoned: The fence was revoked.
        """
        if fence.is_asked_for:
            return
        wait_seconds = self._history.next_at - time.monotonic()
        if wait_seconds > 0:
            self._repeat_error()
        if self._comparison.fresh.intersection(work.every_dag):
            wait_seconds = max(wait_seconds, self._history.pace.quiet_seconds)
        fence.wait(wait_seconds)

    def _repeat_error(self) -> None:
        if error := self._history.last_error:
            raise SidecarError(error.reason, error.message, error.advice)

    @property
    def _revision(self) -> str:
        return self._seen.revision if self._seen else ""

    def _outcome(
        self,
        result: Literal["changed", "unchanged", "settling", "waiting"],
        **counts: int | str,
    ) -> Outcome:
        file = self._comparison.file
        problem = file.problem if file else None
        if result in ("settling", "waiting"):
            return Outcome(result, self._revision, counts, problem)
        problem = problem or self._find_missing() or self._find_unread()
        if problem is None:
            return Outcome(result, self._revision, counts)
        return Outcome("partial", self._revision, counts if result == "changed" else {}, problem)

    def _find_missing(self) -> SidecarError | None:
        """
        Return the failure for remaining differences; None without any.
        """
        readiness = self._status.readiness
        if readiness.ready:
            return None
        return SidecarError(
            "permissions_differ",
            readiness.problem,
            "Look for difference_kept or pass_postponed in the log: another process writes these "
            "rows, or Airflow does not write them.",
        )

    def _find_unread(self) -> SidecarError | None:
        """
        Return why the definition is unread; None if it will never be read, and the file does not
        need it: otherwise a one-shot would never end.
        """
        is_final = self._history.define_at == float("inf")
        return None if is_final and not self._comparison.is_inherited else self._history.unread


def _rows(items: Iterable[Item]) -> list[list[object]]:
    return [list(item) for item in sorted(items)[:NAMED_ROWS]]
