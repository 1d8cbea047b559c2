"""
One cycle: poll → look → lock → portion → look → … until nothing differs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome, Readiness
from sidecar_runtime.logs import get_logger
from sync_perm.compare import Difference, Failure, Item, Kinds, Tables, compare, general
from sync_perm.connection import Address, Source
from sync_perm.database import Database
from sync_perm.pace import Pace
from sync_perm.passes import COMMAND_SECONDS, PORTION_ROWS, Means, Passes, Portion, Report
from sync_perm.reasons import failure
from sync_perm.roles import Defined, RoleFile, Wanted
from sync_perm.status import Status
from sync_perm.tables import Reader

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
        notes: Selections of the roles file that have no effect.
    """

    tables: Tables
    general: frozenset[tuple[str | int, ...]]
    difference: Difference
    notes: tuple[str, ...]

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

    @property
    def selected_by(self) -> frozenset[str]:
        return self.file.selected_by if self.file else frozenset()

    @property
    def reads_dags(self) -> bool:
        return self.include_dags or bool(self.selected_by)

    def poll(self, database: Database) -> str:
        """
        Read a fingerprint that changes with any compared row.

        Raises:
            SidecarError: The database failed.
        """
        revision = self.file.revision if self.file else ""
        return self.reader.fingerprint(
            database, dags=self.reads_dags, selected_by=self.selected_by, file=revision
        )

    def look(self, database: Database, defined: Defined | None) -> Look:
        """
        Read the tables and compare.

        Args:
            defined: What Airflow defines for its roles; None if that is not known yet.

        Raises:
            SidecarError: The database failed.
        """
        tables = self.reader.read(
            database,
            dags=self.reads_dags,
            places=not self.selected_by <= {"id"},
            names=self.file.document.roles if self.file else (),
        )
        found = compare(tables if self.include_dags else replace(tables, dags={}), self.kinds)
        wanted = self.file.compare(tables, defined) if self.file else Wanted()
        items, size = found.items | wanted.items, found.wanted + wanted.size
        difference = found._replace(items=items, wanted=size)
        return Look(tables, general(tables, self.kinds), difference, wanted.notes)

    def look_once(self, address: Address, passes: Passes | None) -> Look:
        """
        Compare the tables as the daemon does, for a command.

        Args:
            passes: Lets Airflow tell what it defines; None if that is not needed.

        Raises:
            SidecarError: Airflow or the database failed.
        """
        work, means = Portion(load=True), Means(address, Fence(), COMMAND_SECONDS)
        defined = passes.run(work, means).defined if passes else None
        if self.file:
            self.file.refresh()
        with closing(Database(address)) as database:
            return self.look(database, defined)


@dataclass(slots=True)
class Memory:
    """
    What a cycle leaves to the next one, also in another thread.

    Args:
        synced: The general rows when Airflow's own sync last left them as they were.
        defined: What Airflow defines for its roles.
        stubborn: The rows that passes did not fix, and why.
        retry_at: The monotonic time of the next try for them.
        error: Why the last pass failed, until one succeeds.
        pace: When the next pass may start.
    """

    synced: frozenset[tuple[str | int, ...]] | None = None
    defined: Defined | None = None
    stubborn: Mapping[Item, str] = field(default_factory=dict)
    retry_at: float = 0.0
    error: SidecarError | None = None
    pace: Pace = field(default_factory=Pace)

    def plan(self, look: Look) -> Portion | None:
        """
        Return the next portion of work; None if there is none now.
        """
        is_held = time.monotonic() < self.retry_at
        unfit = {Item("file_role", "", (role,)) for role in look.tables.unfit}
        items = look.items - unfit - (self.stubborn.keys() if is_held else set())
        dags = {item.dag_id for item in items if not item.is_of_file}
        given = sorted(item for item in items if item.is_of_file)[:PORTION_ROWS]
        roles = self.synced != look.general
        if not (dags or given or roles):
            return None
        # What a pass could not fix comes last, so that it keeps no other DAG waiting.
        tried = {item.dag_id for item in self.stubborn}
        return Portion(roles, sorted(dags, key=lambda one: (one in tried, one)), given)


@dataclass(frozen=True, slots=True)
class SyncPerm:
    """
    The sidecar that the loop runs: what outlives a cycle and its thread.

    Args:
        seconds: How long a cycle may take.
    """

    seconds: float
    source: Source
    passes: Passes
    scope: Scope
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
        self._seconds = sidecar.seconds * PASS_SHARE
        self._database: Database | None = None
        self._seen = ""
        self._due_at = 0.0

    def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle.

        Raises:
            SidecarError: The database or Airflow failed; rows written before that stay.
            CycleAbandoned: The fence was revoked.
        """
        until, memory = time.monotonic() + self._seconds, self._memory
        if fence.is_asked_for:
            memory.synced, memory.retry_at, self._due_at = None, 0.0, 0.0
            memory.pace.next_at = float("-inf")
        if self._of.scope.file:
            self._of.scope.file.refresh()
        try:
            if self._poll(fence) != self._seen or time.monotonic() >= self._due_at:
                return self._reconcile(fence, until)
            with fence:
                self._of.status.confirm(self._revision)
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

    def _poll(self, fence: Fence) -> str:
        """
        Read the fingerprint; reconnect if the connection was lost while it was idle.

        Servers, PgBouncer and networks end such connections, so nothing is wrong.
        """
        if self._database is not None:
            try:
                return self._of.scope.poll(self._database)
            except SidecarError as error:
                if error.reason != "database_lost":
                    raise
                self._database.close()
        self._database = Database(self._of.source.read(fence))
        return self._of.scope.poll(self._database)

    def _look(self, fence: Fence) -> Look:
        """
        Compare the tables.

        The fingerprint is taken first, so that the next poll notices changes during the comparison.
        """
        self._seen = self._poll(fence)
        assert self._database is not None
        look = self._of.scope.look(self._database, self._memory.defined)
        self._show(look, fence)
        return look

    def _show(self, look: Look, fence: Fence) -> None:
        """
        Show what differs, but for the DAGs that passes did not fix: those are failing.

        Raises:
            CycleAbandoned: The fence was revoked, and the next cycle may have seen newer tables.
        """
        memory = self._memory
        items, failing, _ = look.difference
        with fence:
            memory.stubborn = {one: why for one, why in memory.stubborn.items() if one in items}
            not_fixed = {
                one.dag_id: Failure("not_fixed", why)
                for one, why in memory.stubborn.items()
                if one.dag_id
            }
            shown = frozenset(i for i in items if not (i.dag_id and i in memory.stubborn))
            difference = look.difference._replace(items=shown, failing={**not_fixed, **failing})
            is_synced = memory.synced == look.general
            self._of.status.show(difference, self._revision, is_synced=is_synced)
            if self._of.scope.file:
                self._of.status.show_file(self._of.scope.file, look.notes)

    def _reconcile(self, fence: Fence, until: float) -> Outcome:
        look, memory = self._look(fence), self._memory
        work = memory.plan(look)
        if work is None or memory.pace.wait_seconds > 0:
            return self._rest(look, 0)
        if not fence.is_asked_for and not look.tables.fresh.isdisjoint(work.dags):
            fence.wait(QUIET_SECONDS)
        # Read again, because a command's URL may have been rotated since our connection was opened.
        with closing(Database(self._of.source.read(fence))) as lock:
            lock.try_write()
            if not lock.try_lock():
                log.info("lock_waiting")
                self._of.status.metrics.lock_waits.inc()
                self._seen = ""
                return Outcome("waiting", self._revision, {"holder": "another sync-perm"})
            if self._poll(fence) != self._seen:  # another sidecar had the lock until now
                look = self._look(fence)
            written = 0
            while (work := memory.plan(look)) is not None and not memory.pace.wait_seconds:
                seconds = until - time.monotonic()
                if seconds < self._seconds / 10:
                    self._seen = ""
                    return Outcome("settling", self._revision, {"rows_written": written})
                means = Means(lock.address, fence, seconds, lock.check_lock)
                look, count = self._run(work, look, means)
                written += count
        return self._rest(look, written)

    def _run(self, work: Portion, look: Look, means: Means) -> tuple[Look, int]:
        """
        Run one portion and look again; return how many rows it has written.

        Roles are synced if Airflow's own sync has left all rows as they were: whatever it changed,
        or another process changed meanwhile, is judged by another run.

        Raises:
            SidecarError: Airflow failed as a whole; rows written until then stay.
        """
        memory, fence = self._memory, means.fence
        reason = "roles" if work.roles else "dags" if work.dags else "file"
        if work.roles and memory.synced is None:
            reason = "asked" if fence.is_asked_for else "start"
        log.info("pass_started", reason=reason, roles=work.roles, dags=len(work.dags))
        if work.given:
            log.info("roles_file_differs", differences=len(work.given), rows=_rows(work.given))
        started, report, memory.error = time.monotonic(), Report(), None
        try:
            report = self._of.passes.run(work, means, tells=self._of.scope.file is not None)
            if report.logged:
                text = f"Airflow logged while it synced roles: {report.logged[-1]}"
                raise failure("pass_failed", text)
        except SidecarError as error:
            memory.pace.strike()
            memory.error = error
        memory.defined = report.defined or memory.defined
        after = self._look(fence)
        written = (look.items - after.items) | (look.general ^ after.general)
        if memory.error is None:
            if work.roles and look.general == after.general:
                memory.synced = after.general
            if memory.pace.note(written):
                log.warning("rows_undone", rows=_rows(written), seconds=memory.pace.wait_seconds)
            self._keep(work, report, look.items & after.items)
            self._show(after, fence)
        facts = {
            "reason": reason,
            "result": "error" if memory.error else "success",
            "duration_seconds": round(time.monotonic() - started, 3),
            "cpu_seconds": round(self._of.passes.cpu_seconds, 3),
            "rows_left": len(after.items),
            "rows_wanted": after.difference.wanted,
        }
        self._of.status.show_pass(facts, written=len(written))
        log.info("pass_finished", **facts)
        if memory.error is not None:
            raise memory.error
        return after, len(written)

    def _keep(self, work: Portion, report: Report, items: frozenset[Item]) -> None:
        """
        Remember the rows that a portion tried and did not fix.
        """
        tried = dict.fromkeys(work.dags, "") if self._of.passes.cli_because else report.tried
        kept = {
            item: tried.get(item.dag_id) or "still differs after a pass without an error"
            for item in items
            if (item in work.given if item.is_of_file else item.dag_id in tried)
        }
        if kept:
            self._memory.stubborn = {**self._memory.stubborn, **kept}
            self._memory.retry_at = time.monotonic() + HELD_SECONDS
            log.warning("difference_kept", rows=_rows(kept))

    def _rest(self, look: Look, written: int) -> Outcome:
        """
        Return the outcome, and decide when to look again even without a change.

        Raises:
            SidecarError: The last pass failed and is waiting for its retry; its error again.
        """
        memory = self._memory
        self._due_at = memory.retry_at if memory.stubborn else float("inf")
        if memory.plan(look) is None:
            memory.error = None
        else:
            self._due_at = memory.pace.next_at
        if (error := memory.error) is not None:
            raise SidecarError(error.reason, error.message, error.advice)
        return self._outcome(written)

    @property
    def _revision(self) -> str:
        return self._seen[:12]

    def _outcome(self, written: int) -> Outcome:
        file, readiness = self._of.scope.file, self._of.status.readiness
        problem = file.problem if file else None
        if problem is None and not readiness.ready:
            problem = failure("permissions_differ", readiness.problem)
        counts = {"rows_written": written} if written else {}
        result: Literal["changed", "unchanged"] = "changed" if written else "unchanged"
        return Outcome("partial" if problem else result, self._revision, counts, problem)


def _rows(rows: Iterable[object]) -> list[str]:
    return sorted(map(str, rows))[:NAMED_ROWS]
