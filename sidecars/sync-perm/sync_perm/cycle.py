"""
One cycle: poll → look → lock → one portion of work → look; the next follows while it
progresses.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Set
from contextlib import closing
from dataclasses import dataclass, field

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome, Readiness, Result, waits_for_holder
from sidecar_runtime.logs import get_logger
from sync_perm.airflow import PASS_SHARE, Airflow, Portion, Report
from sync_perm.compare import Failure, Item, Row, changed_grants
from sync_perm.config import Source
from sync_perm.database import Database
from sync_perm.reasons import failure
from sync_perm.roles import Defined
from sync_perm.status import Status
from sync_perm.tables import Look, Reader, try_write

# Of the roles file, at most this many rows at a time: about a minute, as for DAGs.
PORTION_ROWS = 2_000
# How long a DAG that two passes did not fix is left alone; one may have met another
# process that wrote the same rows at the same moment.
HELD_SECONDS = 600.0
# A pass that fails, or writes what others undo, is followed by a wait of 10, 20, 40, …
# seconds.
PAUSE_SECONDS = 5.0
MAX_PAUSE_SECONDS = 300.0
# Within ten minutes.
MOST_STRIKES = 6
# If a pass writes only what others wrote within this time, another process undoes it.
UNDONE_SECONDS = 600.0
# How many rows a log line lists.
NAMED_ROWS = 20

log = get_logger("cycle")


@dataclass(slots=True)
class Memory:
    """
    What a cycle leaves to the next one, also in another thread.

    Args:
        synced: The general rows when Airflow's own sync last left them as they were;
            None at the start, and when SIGHUP asks for that sync.
        defined: What Airflow defines for its roles.
        doubted: The rows that a pass did not fix.
        held: Those of them that another pass did not fix either, and why.
        held_until: The monotonic time of the next try for them.
        written: What passes wrote, and when.
        strikes: How many passes in a row failed, or wrote rows that had been undone.
        next_at: The monotonic time before which no pass starts.
        error: Why the last pass failed, until one succeeds.
    """

    synced: frozenset[Row] | None = None
    defined: Defined | None = None
    doubted: Set[Item] = frozenset()
    held: Mapping[Item, str] = field(default_factory=dict)
    held_until: float = 0.0
    written: list[tuple[float, frozenset[object]]] = field(default_factory=list)
    strikes: int = 0
    next_at: float = float("-inf")
    error: SidecarError | None = None

    def plan(self, look: Look) -> Portion | None:
        """
        Return the next portion of work; None if there is none now.
        """
        is_held = time.monotonic() < self.held_until
        items = look.difference.items - (self.held.keys() if is_held else set())
        dags = {item.dag_id for item in items if not item.is_of_file}
        # Roles first, because a DAG may name them.
        given = sorted((one for one in items if one.is_of_file), reverse=True)[
            :PORTION_ROWS
        ]
        roles = self.synced != look.general
        if not (dags or given or roles):
            return None
        # What a pass could not fix comes last, so that it keeps no other DAG waiting;
        # and so does, after a strike, the first one, because it may be what ended that
        # pass.
        tried = {item.dag_id for item in self.doubted}
        order = sorted(dags, key=lambda one: (one in tried, one))
        first = self.strikes % max(1, len(order))
        return Portion(roles, order[first:] + order[:first], given)

    def hold(
        self, work: Portion, report: Report, before: Set[Item], after: Set[Item]
    ) -> None:
        """
        Leave the rows of DAGs alone that a portion tried and did not fix, for the
        second time.

        If it fixed nothing, and each of several DAGs failed for the first time, the
        pass has failed: not they are wrong, but the database, such as one without
        space. Passes that fail for ten minutes say that they are wrong after all.
        """
        texts, known = (
            list(report.tried.values()),
            {item.dag_id for item in self.doubted},
        )
        is_new = self.strikes < MOST_STRIKES and known.isdisjoint(report.tried)
        if before <= after and len(texts) > 1 and all(texts) and is_new:
            self.error = failure("pass_failed", texts[0])
            return
        given = {one for one in work.given if one.dag_id}
        given |= {
            one for one in before if one.dag_id in report.tried and not one.is_of_file
        }
        missed = given.intersection(after)
        if again := missed & self.doubted:
            why = "still differs after a pass without an error"
            self.held = {
                **self.held,
                **{one: report.tried.get(one.dag_id) or why for one in again},
            }
            self.held_until = time.monotonic() + HELD_SECONDS
        self.doubted |= missed

    def judge(self, rows: frozenset[object]) -> None:
        """
        Judge what a good pass wrote, if anything: once again is an accident, or a
        person who tries something; the third time, another process undoes it.
        """
        now = time.monotonic()
        self.written = [one for one in self.written if one[0] > now - UNDONE_SECONDS]
        times = sum(frozenset() < rows <= written for _, written in self.written)
        self.written.append((now, rows))
        if times > 1:
            named = sorted(map(str, rows))[:NAMED_ROWS]
            log.warning("rows_undone", rows=named, seconds=self.strike())
        else:
            self.strikes = 0

    def strike(self) -> float:
        """
        Let the next pass wait; return for how long.
        """
        self.strikes += 1
        seconds = min(MAX_PAUSE_SECONDS, PAUSE_SECONDS * 2.0 ** min(self.strikes, 10))
        self.next_at = time.monotonic() + seconds
        return seconds


@dataclass(frozen=True, slots=True)
class SyncPerm:
    """
    The sidecar that the loop runs: what outlives a cycle and its thread.

    Args:
        seconds: How long a cycle may take.
    """

    seconds: float
    source: Source
    airflow: Airflow
    reader: Reader
    status: Status
    memory: Memory = field(default_factory=Memory)

    def begin(self) -> Session:
        """
        Return a session for the calling thread; the memory outlives it.
        """
        return Session(self)

    def readiness(self) -> Readiness:
        return self.status.readiness

    def details(self) -> dict[str, object]:
        return self.status.details


class Session:
    """
    The thread that runs cycles, and its connection.
    """

    def __init__(self, sidecar: SyncPerm) -> None:
        self._of = sidecar
        self._memory = sidecar.memory
        self._database: Database | None = None
        self._seen = ""
        self._due_at = 0.0

    def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle, with at most one portion of work.

        Raises:
            SidecarError: The database or Airflow failed; rows written before that stay.
            CycleAbandoned: The fence was revoked.
        """
        memory, file = self._memory, self._of.reader.file
        if fence.is_asked_for:
            memory.synced = None
            memory.held_until = memory.next_at = self._due_at = 0.0
        if file:
            file.refresh()
        try:
            if self._poll(fence) != self._seen or time.monotonic() >= self._due_at:
                return self._reconcile(fence)
            with fence:
                self._of.status.confirm()
            return self._outcome(0)
        except BaseException:
            self.close()  # the next cycle starts with a new connection
            raise

    def close(self) -> None:
        """
        Close the connection, and forget its fingerprint.
        """
        self._seen = ""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _reconcile(self, fence: Fence) -> Outcome:
        look, memory, written = self._look(fence), self._memory, 0
        if memory.plan(look) and time.monotonic() >= memory.next_at:
            # Read again, because a command's URL may have been rotated since we
            # connected.
            with closing(Database(self._of.source.read(fence))) as lock:
                try_write(lock)
                if not lock.try_lock():
                    self._seen = ""
                    return waits_for_holder("another sync-perm")
                # another sidecar had the lock until now
                if self._poll(fence) != self._seen:
                    look = self._look(fence)
                if work := memory.plan(look):
                    look, written = self._run(work, look, lock, fence)
        # When to look again, even without a change.
        self._due_at = memory.held_until if memory.held else float("inf")
        if memory.plan(look) is None:
            memory.error = None
            return self._outcome(written)
        self._due_at = memory.next_at
        if error := memory.error:  # until its retry, which is no further failure
            seconds = memory.next_at - time.monotonic()
            error.retry_within_seconds = error.retry_after_seconds = seconds
            raise error
        if time.monotonic() < memory.next_at:
            return self._outcome(written)
        problem = self._of.status.readiness.problem
        return Outcome(
            "waiting",
            self._seen[:12],
            {"rows_written": written},
            why=problem or failure("permissions_differ", "rows are left to change"),
        )

    def _poll(self, fence: Fence) -> str:
        """
        Read the fingerprint; reconnect if the connection was lost while it was idle.

        Servers, PgBouncer and networks end such connections, so nothing is wrong.
        """
        if self._database is not None:
            try:
                return self._of.reader.poll(self._database)
            except SidecarError as error:
                if error.reason != "database_lost":
                    raise
                self._database.close()
        self._database = Database(self._of.source.read(fence))
        return self._of.reader.poll(self._database)

    def _look(self, fence: Fence) -> Look:
        """
        Compare the tables.

        The fingerprint is taken first, so that the next poll notices changes during the
        comparison.
        """
        self._seen = self._poll(fence)
        assert self._database is not None
        look = self._of.reader.look(self._database, self._memory.defined)
        self._show(look, fence)
        return look

    def _show(self, look: Look, fence: Fence) -> None:
        """
        Show what differs, but for the DAGs that passes did not fix: those are failing.

        Raises:
            CycleAbandoned: The fence was revoked, and the next cycle may have seen
                newer tables.
        """
        memory, difference = self._memory, look.difference
        with fence:
            memory.doubted &= difference.items
            memory.held = {
                one: memory.held[one] for one in memory.held.keys() & memory.doubted
            }
            failing = {
                one.dag_id: Failure("not_fixed", why)
                for one, why in memory.held.items()
            }
            difference = difference._replace(
                items=difference.items - memory.held.keys(),
                failing={**failing, **difference.failing},
            )
            is_synced = memory.synced == look.general
            file = self._of.reader.file
            self._of.status.show(
                difference, self._seen[:12], is_synced=is_synced, file=file
            )

    def _run(
        self, work: Portion, look: Look, lock: Database, fence: Fence
    ) -> tuple[Look, int]:
        """
        Run one portion and look again; return how many rows it has written.

        Roles are synced if Airflow's own sync has left all rows as they were: whatever
        it changed, or another process changed meanwhile, is judged by another run.

        If Airflow fails as a whole, the memory keeps the error; rows written until then
        stay.

        Raises:
            SidecarError: The database failed.
        """
        memory = self._memory
        reason = "roles" if work.roles else "dags" if work.dags else "file"
        reason = "start" if work.roles and memory.synced is None else reason
        counts = {"dags": len(work.dags), "file_rows": len(work.given)}
        log.info("pass_started", reason=reason, roles=work.roles, **counts)
        started, seconds = time.monotonic(), self._of.seconds * PASS_SHARE
        report, memory.error = None, None
        try:
            report = self._of.airflow.run(
                work, lock.address, fence, seconds, lock.check_lock
            )
            memory.defined = report.defined or memory.defined
            if report.logged:
                text = f"Airflow logged while it synced roles: {report.logged[-1]}"
                raise failure("pass_failed", text)
        except SidecarError as error:
            memory.error = error
            memory.strike()
        after = self._look(fence)
        rows = changed_grants(look.tables.grants, after.tables.grants)
        if rows:
            log.info("grants_changed", rows=rows[:NAMED_ROWS], count=len(rows))
        written = (look.difference.items - after.difference.items) | (
            look.general ^ after.general
        )
        if report and memory.error is None:
            if work.roles and look.general == after.general:
                memory.synced = after.general
            memory.hold(work, report, look.difference.items, after.difference.items)
            if report.refused:
                memory.error = failure("pass_failed", report.refused[0])
            # Airflow did not write it
            if (not written and memory.plan(after)) or memory.error:
                memory.strike()
            else:
                memory.judge(written)
            self._show(after, fence)
        facts = {
            "reason": reason,
            "result": "error" if memory.error else "success",
            "duration_seconds": round(time.monotonic() - started, 3),
            "rows_left": len(after.difference.items),
            "rows_wanted": after.difference.wanted,
        }
        self._of.status.show_pass(facts, written=len(written))
        return after, len(written)

    def _outcome(self, written: int) -> Outcome:
        file = self._of.reader.file
        problem = file.problem if file else None
        problem = problem or self._of.status.readiness.problem
        counts = {"rows_written": written} if written else {}
        result: Result = "partial" if problem else "changed" if written else "unchanged"
        return Outcome(result, self._seen[:12], counts, problem)
