"""
One cycle: poll → look → decide → lock → one pass → look; the next follows while it
progresses.
"""

import time
from contextlib import closing
from dataclasses import dataclass

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome, Readiness, Result, waits_for_holder
from sidecar_runtime.logs import get_logger
from sync_perm.airflow import PASS_SHARE, Airflow, Work
from sync_perm.airflow_config import Source
from sync_perm.compare import changed_grants
from sync_perm.database import END_HOLDER, Database
from sync_perm.plan import Done, Memory, Wait, decide, forget_fixed, learn, written
from sync_perm.readiness import Status
from sync_perm.reasons import failure
from sync_perm.tables import Look, Reader, try_write

# How many rows a log line lists.
NAMED_ROWS = 20
# Before it has looked, whatever is to be done is due.
DUE = Done(0.0)

log = get_logger("cycle")


@dataclass(frozen=True, slots=True)
class SyncPerm:
    """
    The sidecar that the loop runs.

    Args:
        seconds: How long a cycle may take.
    """

    seconds: float
    source: Source
    airflow: Airflow
    reader: Reader
    status: Status

    def begin(self) -> "Session":
        """
        Return a session for the calling thread.
        """
        return Session(self)

    def readiness(self) -> Readiness:
        return self.status.readiness

    def details(self) -> dict[str, object]:
        return self.status.details


class Session:
    """
    The thread that runs cycles: its connection, and what it remembers.
    """

    def __init__(self, sidecar: SyncPerm) -> None:
        self._of = sidecar
        self._memory = Memory()
        self._database: Database | None = None
        self._seen = ""
        self._left: Wait | Done = DUE

    def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle, with at most one pass.

        Raises:
            SidecarError: The database or Airflow failed; rows written before that stay.
            CycleAbandoned: The fence was revoked.
        """
        # SIGHUP: a person has changed something that no poll shows, or has enough of
        # waiting.
        if fence.is_asked_for:
            self._memory.synced = self._memory.synced and frozenset()
            self._memory.held_until = self._memory.next_at = 0.0
            self._left = DUE
        # A mounted file changes without a word; what it says is part of the fingerprint.
        file = self._of.reader.file
        if file:
            file.refresh()
        try:
            # The usual case, all day long: one small query finds what it found before.
            is_due = time.monotonic() >= self._left.until
            if self._fingerprint(fence) == self._seen and not is_due:
                with fence:
                    self._of.status.confirm()
                return self._rest(0)
            return self._reconcile(fence)
        except BaseException:
            # Whatever it was, the next cycle trusts neither this connection nor what
            # was seen through it.
            self._seen = ""
            if self._database:
                self._database.close()
                self._database = None
            raise

    def _reconcile(self, fence: Fence) -> Outcome:
        # Something has changed, or a pause has ended: what does it come to?
        before = look = self._look(fence)
        work = decide(look, self._memory, time.monotonic())
        if isinstance(work, Work):
            # Two passes at once lose grants on Airflow 2. The lock ends with this
            # connection, whoever dies; the address is read again, because a password
            # or token may have ended since we connected.
            address = self._of.source.read(fence)
            with closing(Database(address, fence=fence)) as lock:
                # A standby or a lesser account: Airflow would log an error for each
                # row, and succeed.
                try_write(lock)
                # A sidecar of another pod is at it, as in a rolling update.
                holder = lock.take_lock()
                if holder:
                    self._seen = ""
                    return waits_for_holder(holder, END_HOLDER)
                # It was at it until now, and has left less to do, or nothing.
                before = look = self._look(fence)
                work = decide(look, self._memory, time.monotonic())
                if isinstance(work, Work):
                    look = self._run(work, before, lock, fence)
        return self._conclude(before, look)

    def _conclude(self, before: Look, look: Look) -> Outcome:
        """
        Return what a cycle comes to whose pass led from one look to the other; both are
        the same without one.

        Raises:
            SidecarError: That pass has failed.
        """
        left = decide(look, self._memory, time.monotonic())
        count = len(written(before, look))
        # More DAGs than fit into a cycle, or roles that Airflow judges once more.
        if isinstance(left, Work):
            self._left = DUE
            state = self._of.status.readiness
            return Outcome(
                "waiting",
                self._seen,
                {"rows_written": count},
                state.problem or failure("roles_unsynced", state.shortfall),
            )
        self._left = left
        # It counts once; the next cycle follows the pause.
        error = self._memory.error
        if look is not before and error and isinstance(left, Wait):
            error.retry_after_seconds = left.until - time.monotonic()
            raise error
        return self._rest(count)

    def _rest(self, count: int) -> Outcome:
        """
        Return what a cycle comes to after which nothing is to be done now.
        """
        counts = {"rows_written": count} if count else {}
        # Another process undoes what passes write, or this pause began earlier.
        if isinstance(self._left, Wait):
            return Outcome(
                "waiting",
                self._seen,
                counts,
                self._left.why,
                time.time() + self._left.until - time.monotonic(),
            )
        # Nothing is left, or only what two passes could not fix.
        file = self._of.reader.file
        problem = (file and file.problem) or self._of.status.readiness.problem
        result: Result = "partial" if problem else "changed" if count else "unchanged"
        return Outcome(result, self._seen, counts, problem)

    def _fingerprint(self, fence: Fence) -> str:
        """
        Read the fingerprint; reconnect if the connection was lost while it was idle.

        Servers, PgBouncer and networks end such connections, so nothing is wrong.
        """
        if self._database:
            self._database.fence = fence
            try:
                return self._of.reader.fingerprint(self._database)
            except SidecarError as error:
                if error.reason != "database_lost":
                    raise
                self._database.close()
        self._database = Database(self._of.source.read(fence), fence=fence)
        return self._of.reader.fingerprint(self._database)

    def _look(self, fence: Fence) -> Look:
        """
        Compare the tables, and show what differs.

        The fingerprint is taken first, so that the next poll notices changes during the
        comparison.
        """
        self._seen = self._fingerprint(fence)
        assert self._database
        look = self._of.reader.look(self._database, self._memory.defined)
        forget_fixed(self._memory, look)
        self._show(look, fence)
        return look

    def _show(self, look: Look, fence: Fence) -> None:
        """
        Show what differs, but for what passes did not fix: that is failing.

        Raises:
            CycleAbandoned: The fence was revoked, and the next cycle may have seen
                newer tables.
        """
        memory = self._memory
        with fence:
            self._of.status.show(
                look.difference.without(memory.held),
                self._seen,
                was_synced=memory.synced is not None,
                is_synced=memory.synced == look.general,
                file=self._of.reader.file,
            )

    def _run(self, work: Work, before: Look, lock: Database, fence: Fence) -> Look:
        """
        Let Airflow work, and look again. If it fails as a whole, the memory keeps the
        error; rows written until then stay.

        Raises:
            SidecarError: The database failed.
        """
        memory = self._memory
        reason = "roles" if work.roles else "dags" if work.dags else "file"
        reason = "start" if memory.synced is None else reason
        log.info(
            "pass_started",
            reason=reason,
            roles=work.roles,
            dags=len(work.dags),
            file_rows=len(work.given),
        )
        started = time.monotonic()
        report = self._of.airflow.run(
            work,
            lock.address,
            fence,
            self._of.seconds * PASS_SHARE,
            lock.check_lock,
        )
        # What the roles file inherits from Airflow's roles can be compared from now on.
        memory.defined = report.defined or memory.defined
        after = self._look(fence)
        undone = learn(memory, work, report, before, after, time.monotonic())
        # Once more: what it did not fix may have become a shortfall.
        self._show(after, fence)
        rows = changed_grants(before.tables.grants, after.tables.grants)
        if rows:
            log.info("grants_changed", rows=rows[:NAMED_ROWS], count=len(rows))
        if undone:
            log.warning(
                "rows_undone",
                rows=sorted(map(str, undone))[:NAMED_ROWS],
                seconds=round(memory.next_at - time.monotonic()),
            )
        count = len(written(before, after))
        self._of.status.show_pass(
            count,
            reason=reason,
            result="error" if memory.error else "success",
            duration_seconds=round(time.monotonic() - started, 3),
            rows_left=len(after.difference.items),
            rows_wanted=after.difference.wanted,
        )
        return after
