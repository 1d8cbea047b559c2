"""
One cycle: poll → look → lock → portion → look → … until nothing differs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.logs import get_logger
from sync_perm.compare import Difference, Failure, General, Item, Kinds, Tables, compare, general
from sync_perm.connection import Source
from sync_perm.database import Database
from sync_perm.metrics import Reason
from sync_perm.pace import Pace
from sync_perm.passes import PORTION_ROWS, Means, Passes, Portion, Report
from sync_perm.reasons import failure
from sync_perm.roles import Defined, RoleFile, Wanted
from sync_perm.settings import Settings
from sync_perm.status import Status
from sync_perm.tables import Fingerprint, Reader

# Airflow is stopped a little before the cycle would be abandoned, so that it can report the cause.
PASS_SHARE = 0.9
# A DAG that was just serialized is left alone for so long: the parser is about to sync it, and
# Airflow 2 damages its tables if two processes do so at once.
QUIET_SECONDS = 5.0
# How long a DAG that a pass did not fix is left alone.
HELD_SECONDS = 600.0
# How many rows a log line lists.
NAMED_ROWS = 20

log = get_logger("cycle")


class Look(NamedTuple):
    """
    The tables at one time, and what differs.

    Args:
        general: The rows that belong to no DAG, which only Airflow can judge.
        difference: The rows of DAGs and of the roles file.
        wanted: What the roles file wants.
    """

    tables: Tables
    general: General
    difference: Difference
    wanted: Wanted

    @property
    def items(self) -> frozenset[Item]:
        return self.difference.items


class Scope(NamedTuple):
    """
    What is compared.

    Args:
        include_dags: Whether DAG permissions should be as Airflow would leave them.
        file: The roles file; None without one.
    """

    kinds: Kinds
    include_dags: bool
    file: RoleFile | None
    reader: Reader

    def poll(self, database: Database) -> Fingerprint:
        """
        Read a fingerprint that changes with any compared row.
        """
        selected_by = self.file.selected_by if self.file else frozenset[str]()
        return self.reader.fingerprint(
            database,
            dags=self.include_dags or bool(selected_by),
            selected_by=selected_by,
            file=self.file.revision if self.file else "",
        )

    def look(self, database: Database, defined: Defined | None) -> Look:
        """
        Read the tables and compare.

        Args:
            defined: What Airflow defines for its roles; None if that is not known yet.

        Raises:
            SidecarError: The database failed.
        """
        file = self.file
        selected_by = file.selected_by if file else frozenset[str]()
        tables = self.reader.read(
            database,
            dags=self.include_dags or bool(selected_by),
            places=not selected_by <= {"id"},
            names=file.document.roles if file else (),
        )
        of_airflow = tables if self.include_dags else tables.without_dags()
        found = compare(of_airflow, self.kinds)
        wanted = file.compare(tables, defined) if file else Wanted()
        difference = found._replace(
            items=found.items | wanted.items, wanted=found.wanted + wanted.size
        )
        return Look(tables, general(tables, self.kinds), difference, wanted)


@dataclass(slots=True)
class Memory:
    """
    What a cycle leaves to the next one, also in another thread.

    Args:
        synced: The general rows when Airflow's own sync last left them as they were.
        defined: What Airflow defines for its roles.
        stubborn: The rows of DAGs that passes did not fix, and why.
        retry_at: The monotonic time of the next try for them.
        error: Why the last pass failed, until one succeeds.
        pace: When the next pass may start.
    """

    synced: General | None = None
    defined: Defined | None = None
    stubborn: Mapping[Item, str] = field(default_factory=dict)
    retry_at: float = 0.0
    error: SidecarError | None = None
    pace: Pace = field(default_factory=Pace)

    @property
    def held(self) -> frozenset[Item]:
        """
        Return the stubborn rows that are not tried yet.
        """
        return frozenset(self.stubborn) if time.monotonic() < self.retry_at else frozenset()


def plan(look: Look, memory: Memory, *, has_file: bool) -> Portion | None:
    """
    Return the next portion of work; None if nothing differs.
    """
    items = look.items - memory.held
    dags = {item.dag_id for item in items if not item.is_of_file}
    tried = {item.dag_id for item in memory.stubborn}
    given = sorted(item for item in items if item.is_of_file)[:PORTION_ROWS]
    roles = memory.synced != look.general
    if not (dags or given or roles):
        return None
    # What a pass could not fix comes last, so that it keeps no other DAG waiting.
    ordered = sorted(dags, key=lambda dag_id: (dag_id in tried, dag_id))
    return Portion(roles, ordered, given, load=has_file and roles)


class Session:
    """
    The thread that runs cycles, and its connection.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        passes: Passes,
        scope: Scope,
        status: Status,
        memory: Memory,
    ) -> None:
        self._seconds = settings.timeout_seconds * PASS_SHARE
        self._source = source
        self._passes = passes
        self._scope = scope
        self._status = status
        self._memory = memory
        self._database: Database | None = None
        self._seen: Fingerprint | None = None
        self._due_at = 0.0

    def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle.

        Raises:
            SidecarError: The database or Airflow failed; rows written before that stay.
            CycleAbandoned: The fence was revoked.
        """
        until = time.monotonic() + self._seconds
        memory = self._memory
        if fence.is_asked_for:
            memory.synced, memory.retry_at = None, 0.0
            memory.pace.forgive()
        if self._scope.file:
            self._scope.file.refresh()
        try:
            fingerprint = self._poll(fence)
            is_due = fence.is_asked_for or time.monotonic() >= self._due_at
            if fingerprint == self._seen and not is_due:
                with fence:
                    self._status.confirm(fingerprint.revision)
                return self._outcome("unchanged", {})
            return self._reconcile(fence, until)
        except BaseException:
            self.close()  # the next cycle starts with a new connection
            raise

    def close(self) -> None:
        """
        Close the connection, and forget its fingerprint.
        """
        self._seen = None
        if self._database is not None:
            self._database.close()
            self._database = None

    def _poll(self, fence: Fence) -> Fingerprint:
        """
        Read the fingerprint; reconnect if the connection was lost while it was idle.

        Servers, PgBouncer and networks end such connections, so nothing is wrong.
        """
        if self._database is not None:
            try:
                return self._scope.poll(self._database)
            except SidecarError as error:
                if error.reason != "database_lost":
                    raise
                self._database.close()
        self._database = Database(self._source.read(fence))
        return self._scope.poll(self._database)

    def _look(self, fence: Fence) -> Look:
        """
        Compare the tables, and show the result.

        The fingerprint is taken first, so that the next poll notices changes during the comparison.

        Raises:
            CycleAbandoned: The fence was revoked, and the next cycle may have seen newer tables.
        """
        self._seen = self._poll(fence)
        assert self._database is not None
        look = self._scope.look(self._database, self._memory.defined)
        with fence:
            self._show(look)
        return look

    def _show(self, look: Look) -> None:
        """
        Show what differs, without the DAGs that passes did not fix: those are failing.
        """
        memory = self._memory
        memory.stubborn = {row: why for row, why in memory.stubborn.items() if row in look.items}
        not_fixed = {row.dag_id: Failure("not_fixed", why) for row, why in memory.stubborn.items()}
        self._status.show(
            look.difference._replace(
                items=look.items - memory.stubborn.keys(),
                failing={**not_fixed, **look.difference.failing},
            ),
            self._seen.revision if self._seen else "",
            is_synced=memory.synced == look.general,
        )
        if self._scope.file:
            self._status.show_file(self._scope.file, look.wanted)

    def _plan(self, look: Look) -> Portion | None:
        return plan(look, self._memory, has_file=self._scope.file is not None)

    def _reconcile(self, fence: Fence, until: float) -> Outcome:
        look = self._look(fence)
        work = self._plan(look)
        if work is None or self._memory.pace.wait_seconds > 0:
            return self._rest(look, look)
        if not fence.is_asked_for and not look.tables.fresh.isdisjoint(work.dags):
            fence.wait(QUIET_SECONDS)
        # Read again, because a command's URL may have been rotated since our connection was opened.
        with Database(self._source.read(fence)) as lock:
            lock.try_write()
            if not lock.try_lock():
                log.info("lock_waiting")
                self._status.metrics.lock_waits.inc()
                self._seen = None
                return Outcome("waiting", self._revision, {"holder": "another sync-perm"})
            return self._work(look, lock, fence, until)

    def _work(self, look: Look, lock: Database, fence: Fence, until: float) -> Outcome:
        """
        Run portions as long as they make the difference smaller.
        """
        if self._poll(fence) != self._seen:  # another sidecar had the lock until now
            look = self._look(fence)
        before = look
        while (work := self._plan(look)) is not None and not self._memory.pace.wait_seconds:
            seconds = until - time.monotonic()
            if seconds < min(1.0, self._seconds / 2):
                self._seen = None
                return Outcome("settling", self._revision, _changes(look, before))
            look = self._run(work, look, Means(lock.address, fence, seconds, lock.check_lock))
        return self._rest(look, before)

    def _run(self, work: Portion, look: Look, means: Means) -> Look:
        """
        Run one portion, look again, and remember what it did not fix.

        Raises:
            SidecarError: Airflow failed as a whole; rows written until then stay.
        """
        memory = self._memory
        reason = self._reason_for(work, is_asked=means.fence.is_asked_for)
        log.info("pass_started", reason=reason, roles=work.roles, dags=len(work.dags))
        if work.given:
            rows = _rows(work.given)
            log.info("roles_file_differs", differences=len(work.given), rows=rows)
        started = time.monotonic()
        error: SidecarError | None = None
        report = Report()
        try:
            report = self._passes.run(work, means)
        except SidecarError as found:
            error = found
        if report.logged:
            text = f"Airflow logged while it synced roles: {report.logged[-1]}"
            error = failure("pass_failed", text)
        memory.defined = report.defined or memory.defined
        after = self._look_after(work, look, report, means.fence, is_whole=error is None)
        facts: dict[str, Any] = {
            "reason": reason,
            "result": "error" if error else "success",
            "duration_seconds": round(time.monotonic() - started, 3),
            "cpu_seconds": round(self._passes.cpu_seconds, 3),
            "rows_left": len(after.items),
            "rows_wanted": after.difference.wanted,
        }
        self._status.show_pass(**facts)
        log.info("pass_finished", **facts)
        memory.error = error
        if error is not None:
            memory.pace.strike()
            raise error
        return after

    def _look_after(
        self, work: Portion, look: Look, report: Report, fence: Fence, *, is_whole: bool
    ) -> Look:
        """
        Look at what a portion has written.

        Roles are synced if Airflow's own sync has left all rows as they were: whatever it changed,
        or another process changed meanwhile, is judged by another run.

        Args:
            is_whole: Whether the portion reached its end.
        """
        memory = self._memory
        after = self._look(fence)
        changed = after.general.changes_since(look.general)
        if work.roles and is_whole and not changed:
            memory.synced = after.general
        tried = report.tried
        if self._passes.cli_because and is_whole:
            tried = dict.fromkeys(work.dags, "")
        if is_whole:
            kept = {
                item: tried.get(item.dag_id, "") or "still differs after a pass without an error"
                for item in look.items & after.items
                if item.dag_id in tried or item in work.given
            }
            if kept:
                memory.stubborn = {**memory.stubborn, **kept}
                memory.retry_at = time.monotonic() + HELD_SECONDS
                log.warning("difference_kept", rows=_rows(kept))
            written = (look.items - after.items) | changed
            if memory.pace.note(written):
                seconds = round(memory.pace.wait_seconds)
                log.warning("rows_undone", rows=_rows(written), retry_in_seconds=seconds)
            elif not written and kept:
                memory.pace.strike()
        with fence:
            self._show(after)
        self._status.metrics.changed.inc(sum(_changes(after, look).values()))
        return after

    def _reason_for(self, work: Portion, *, is_asked: bool) -> Reason:
        if work.roles and self._memory.synced is None:
            return "asked" if is_asked else "start"
        if work.roles:
            return "roles"
        return "dags" if work.dags else "file"

    def _rest(self, look: Look, before: Look) -> Outcome:
        """
        Return the outcome, and decide when to look again even without a change.

        Raises:
            SidecarError: The last pass failed and is waiting for its retry; its error again.
        """
        memory = self._memory
        self._due_at = memory.retry_at if memory.held else float("inf")
        if self._plan(look) is None:
            memory.error = None
        else:
            self._due_at = memory.pace.next_at
        if (error := memory.error) is not None:
            raise SidecarError(error.reason, error.message, error.advice)
        counts = _changes(look, before)
        return self._outcome("changed" if any(counts.values()) else "unchanged", counts)

    @property
    def _revision(self) -> str:
        return self._seen.revision if self._seen else ""

    def _outcome(
        self, result: Literal["changed", "unchanged"], counts: Mapping[str, int]
    ) -> Outcome:
        file, readiness = self._scope.file, self._status.readiness
        problem = file.problem if file else None
        if problem is None and not readiness.ready:
            problem = failure("permissions_differ", readiness.problem)
        if problem is None:
            return Outcome(result, self._revision, counts)
        return Outcome("partial", self._revision, counts if result == "changed" else {}, problem)


def _changes(now: Look, then: Look) -> dict[str, int]:
    """
    Return how many rows were added and removed.
    """
    held, had = now.tables.grants, then.tables.grants
    return {
        "permissions_added": len(now.tables.permissions - then.tables.permissions),
        "permissions_removed": len(then.tables.permissions - now.tables.permissions),
        "grants_added": sum(len(held[r] - had.get(r, frozenset())) for r in held),
        "grants_removed": sum(len(had[r] - held.get(r, frozenset())) for r in had),
        "broken_removed": max(0, then.tables.broken - now.tables.broken),
    }


def _rows(rows: Iterable[object]) -> list[str]:
    return sorted(map(str, (list(row) if isinstance(row, tuple) else row for row in rows)))[
        :NAMED_ROWS
    ]
