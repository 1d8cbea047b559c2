"""
One cycle: inspect → plan → start acquiring → verify the tickets → publish.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Condition
from typing import Literal

from kerberos_sidecar.attempt import Attempt
from kerberos_sidecar.formats.ccache import Ticket
from kerberos_sidecar.formats.keytab import read_keytab
from kerberos_sidecar.formats.moment import iso
from kerberos_sidecar.formats.principal import Principal
from kerberos_sidecar.krb5.acquire import acquire_ticket
from kerberos_sidecar.krb5.carry import PATIENCE, Patience
from kerberos_sidecar.krb5.kdcs import Kdcs
from kerberos_sidecar.krb5.overlay import check_config
from kerberos_sidecar.krb5.refusals import hung
from kerberos_sidecar.krb5.verify import verify
from kerberos_sidecar.metrics import KerberosMetrics
from kerberos_sidecar.plan import (
    RETRY_FLOOR_SECONDS,
    Acquired,
    Cause,
    Failed,
    cause_of,
    contest_wait,
    retry_within,
    wait_after,
)
from kerberos_sidecar.refused import Refused, keys_of, refused_of
from kerberos_sidecar.settings import Settings
from kerberos_sidecar.slot import Slot, revision_of
from kerberos_sidecar.source import Stamp
from kerberos_sidecar.staging import Staging
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.logs import get_logger
from sidecar_runtime.loop import backoff_seconds

# Reasons without an answer from a KDC: they do not show whether the principal is valid.
AWAY = {"kdc_unreachable", "kdc_hung"}

# How often to check what else is due while waiting for a KDC.
LOOK_SECONDS = 1.0
RETRY_LEAST_SECONDS = 0.2

log = get_logger("cycle")


@dataclass
class Shared:
    """
    The state that all sessions of a process share.

    Args:
        changed: Notified when an attempt has finished or a fence was revoked.
        kdcs: What earlier requests found out about the KDCs.
        refused: Refusals by account.
        wake: Requests a cycle.
        settled: Called when a cycle has ended, which changes when the next ticket is due.
        backoff: How long to wait after a failure.
        patience: How long to wait for KDCs.
        fence: The fence of the running cycle, or of one that was abandoned.
    """

    changed: Condition = field(default_factory=Condition)
    kdcs: Kdcs = field(default_factory=Kdcs)
    refused: dict[str, Refused] = field(default_factory=dict)
    wake: Callable[[], object] = lambda: None
    settled: Callable[[], object] = lambda: None
    backoff: Callable[[int, float], float] = backoff_seconds
    patience: Patience = PATIENCE
    fence: Fence | None = None

    @property
    def is_looking(self) -> bool:
        """
        Whether a cycle runs: it checks on its own what is due.
        """
        fence = self.fence
        return fence is not None and not fence.is_revoked

    def tell(self) -> None:
        with self.changed:
            self.changed.notify_all()


class Session:
    """
    One session per worker thread; the state that outlives a cycle is in the slots.
    """

    def __init__(
        self, settings: Settings, metrics: KerberosMetrics, slots: Sequence[Slot], shared: Shared
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._slots = slots
        self._shared = shared
        self._began_at = 0.0

    def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle: start due requests and publish their tickets until no request is running.

        Each principal has its own thread for its KDCs, so that a silent realm delays no other.

        Raises:
            SidecarError: The first failure, an outage last. The remaining principals were tried
                too, and every published ccache stays.
            CycleAbandoned: The fence was revoked; running requests continue for the next cycle.
        """
        self._shared.fence = fence
        try:
            return self._acquire(fence)
        finally:
            if self._shared.fence is fence:
                self._shared.fence = None
            self._shared.settled()  # what fell due meanwhile requests the next cycle

    def close(self) -> None:
        """
        Do nothing: a session holds no resources.
        """

    def _acquire(self, fence: Fence) -> Outcome:
        if fence.is_asked_for:
            with fence:
                for slot in self._slots:
                    slot.is_asked_for, slot.failed = True, None
        fence.on_revoke(self._abandon)
        self._began_at = time.monotonic()
        acquired = 0
        while under_way := self._begin(fence):
            fence.blame = self._in_time(hung(under_way[0].principal))
            self._wait(under_way, fence)
            with fence:
                fence.blame = None
            acquired += sum(self._end(slot, fence) for slot in self._slots)
        with fence:
            self._metrics.show(self._slots)
            self._metrics.show_kdcs(self._shared.kdcs.heard)
        errors = [slot.error for slot in self._slots if slot.error is not None]
        if errors and not self._is_kept(errors):
            raise self._first_of(errors)
        result: Literal["changed", "unchanged"] = "changed" if acquired else "unchanged"
        return Outcome(result, revision_of(self._slots), {"tickets_acquired": acquired})

    def _begin(self, fence: Fence) -> list[Attempt]:
        """
        Start the due attempts; return all attempts that are running or have just finished.
        """
        for slot in self._slots:
            if slot.attempt is None and (due := self._due(slot)) is not None:
                try:
                    self._ask(slot, *due, fence)
                except SidecarError as error:
                    with fence:
                        self._note(slot, error, due[1])
        return [slot.attempt for slot in self._slots if slot.attempt is not None]

    def _due(self, slot: Slot) -> tuple[Cause, Stamp] | None:
        """
        Return why an entry is due, and the stamp of its keytab; ``None`` if it is not due.
        """
        at, now = time.monotonic(), time.time()
        stamp, found = slot.source.stamp(), slot.published.look()
        cause = cause_of(slot.last, found, stamp, is_asked_for=slot.is_asked_for, at=at, now=now)
        if cause is None:
            slot.recover()  # another process has published a good one
            return None
        # Uses the start of the cycle: while it waits for one entry, no other is tried repeatedly.
        if slot.failed and slot.failed.holds(stamp, is_lost=slot.is_lost, at=self._began_at):
            return None
        return cause, stamp

    def _ask(self, slot: Slot, cause: Cause, stamp: Stamp, fence: Fence) -> None:
        """
        Start acquiring a ticket, after all checks that need no KDC.

        Raises:
            SidecarError: A check failed, so no KDC was asked.
            CycleAbandoned: The fence was revoked.
        """
        with Staging(slot.entry.ccache, slot.entry.mode, fence) as staging:
            pass  # raises if the volume is full or not writable, without a request
        with fence:
            # First: the ccache of an earlier process counts, whatever fails next.
            slot.published.group = staging.group
            slot.kvno = 0
        keytab = read_keytab(slot.source.find())
        principal = keytab.select(slot.entry.principal)
        with fence:
            slot.keytab, slot.kvno = keytab.path, keytab.kvno_of(principal)
            if slot.last is None:
                slot.principal = principal
            self._metrics.show([slot])  # this cycle may be abandoned later
        if any(one.attempt and one.attempt.principal.resembles(principal) for one in self._slots):
            return  # one request at a time, because each wrong key counts
        check_config(self._settings)
        self._refused(slot, principal).check(keytab, principal, slot.published.look().ticket)
        self._check_contested(slot, principal, cause)
        with fence:
            slot.attempt = Attempt(
                principal,
                keytab,
                stamp,
                cause,
                partial(
                    acquire_ticket,
                    *(principal, keytab, self._settings, self._shared.kdcs, self._shared.patience),
                ),
                lambda: self._tell(slot),
            )

    def _refused(self, slot: Slot, principal: Principal) -> Refused:
        return refused_of(
            self._shared.refused,
            principal,
            slot.entry.ccache,
            self._settings.lockout_window_seconds,
        )

    @staticmethod
    def _check_contested(slot: Slot, principal: Principal, cause: Cause) -> None:
        """
        Raises:
            SidecarError: Another process keeps taking the ccache.
        """
        owner = slot.published.look().taken_by(principal, cause, time.time())
        if owner and (wait_seconds := contest_wait(slot.retaken_at, time.monotonic())):
            held_back = SidecarError(
                "ccache_contested",
                f"{slot.entry.ccache} belongs to {owner} again, after it was restored for "
                f"{principal}: another process publishes there",
                "Give each principal its own ccache (KERBEROS_CCACHE), and look for a second "
                "sidecar or a kinit on this volume. Sidecars of one principal need the same "
                "runAsUser, runAsGroup and KERBEROS_CCACHE_MODE, or a folder with one group and "
                "the setgid bit, as fsGroup sets them.",
            )
            held_back.retry_within_seconds = wait_seconds
            raise held_back

    def _tell(self, slot: Slot) -> None:
        """
        Report a finished attempt to the waiting cycle, or request a cycle if it was abandoned.
        """
        self._shared.tell()
        if slot.attempt is not None and slot.attempt.is_late:
            self._shared.wake()

    def _wait(self, under_way: Sequence[Attempt], fence: Fence) -> None:
        """
        Wait until an attempt has finished, the fence is revoked, or another entry may be due.
        """
        with self._shared.changed:
            self._shared.changed.wait_for(
                lambda: fence.is_revoked or any(one.result is not None for one in under_way),
                LOOK_SECONDS,
            )

    def _abandon(self) -> None:
        """
        Leave running attempts to the next cycle, and record that their KDCs hang.
        """
        for slot in self._slots:
            if (attempt := slot.attempt) is not None:
                slot.error = hung(attempt.principal)
                attempt.is_late = True
                if attempt.result is not None:
                    self._shared.wake()
        self._shared.tell()

    def _end(self, slot: Slot, fence: Fence) -> bool:
        """
        Publish the result of a finished attempt; return whether a new ticket was published.

        Raises:
            CycleAbandoned: The fence was revoked; the next cycle handles the result.
        """
        attempt = slot.attempt
        if attempt is None or (result := attempt.result) is None:
            return False
        with fence:
            slot.attempt = None
            if isinstance(result, SidecarError):
                if result.reason == "keytab_stale":
                    refused = self._refused(slot, attempt.principal)
                    refused.add(keys_of(attempt.keytab, attempt.principal), time.time())
                self._note(slot, result, attempt.stamp)
                return False
        if isinstance(result, BaseException):
            raise result
        try:
            return self._publish(slot, attempt, result, fence)
        except SidecarError as error:
            with fence:
                self._note(slot, error, attempt.stamp)
        return False

    def _publish(self, slot: Slot, attempt: Attempt, content: bytes, fence: Fence) -> bool:
        """
        Publish a ticket; a late one only if it lasts longer than the published ticket.

        Raises:
            SidecarError: The ticket is not the one that was requested, or the volume fails.
            CycleAbandoned: The fence was revoked.
        """
        ticket = verify(content, attempt.principal)
        found = slot.published.look()
        if (
            attempt.is_late
            and found.ticket is not None
            and not found.problem_at(time.time(), attempt.principal)
            and found.ticket.ends_at >= ticket.ends_at
        ):
            return False
        owner = found.taken_by(attempt.principal, attempt.cause, time.time())
        with Staging(slot.entry.ccache, slot.entry.mode, fence) as staging:
            staging.publish(content)
        with fence:
            if owner:
                slot.retaken_at = [*slot.retaken_at[-9:], time.monotonic()]
                log.warning(
                    "ccache_taken",
                    ccache=slot.entry.ccache,
                    owner=owner,
                    principal=str(attempt.principal),
                )
            self._refused(slot, attempt.principal).clear()
            self._record(slot, attempt, ticket)
        return True

    def _record(self, slot: Slot, attempt: Attempt, ticket: Ticket) -> None:
        settings = self._settings
        wait_seconds, next_cause = wait_after(
            ticket, time.time(), settings.interval_seconds, random.random()
        )
        slot.last = Acquired(
            ticket, time.monotonic(), attempt.stamp, wait_seconds, next_cause, attempt.zero_at
        )
        slot.principal = ticket.principal
        slot.is_asked_for = False
        slot.recover()
        self._metrics.record(slot, attempt.seconds)
        self._metrics.show([slot])  # do not wait for the remaining entries
        log.info(
            "ticket_acquired",
            principal=slot.name,
            ccache=slot.entry.ccache,
            cause=attempt.cause,
            kvno=slot.kvno,
            ends_at=iso(ticket.ends_at),
            lifetime_seconds=ticket.lifetime_seconds,
            next_ticket_in_seconds=round(wait_seconds, 1),
            duration_seconds=round(attempt.seconds, 3),
        )

    def _note(self, slot: Slot, error: SidecarError, stamp: Stamp) -> None:
        """
        Record why an entry failed; with several entries, log each new reason once.
        """
        slot.failures += 1
        wait_seconds = error.retry_within_seconds
        if wait_seconds is None:
            ticket = slot.published.look().ticket
            wait_seconds = self._shared.backoff(slot.failures, RETRY_FLOOR_SECONDS)
            wait_seconds = min(wait_seconds, retry_within(ticket, time.time()))
        slot.failed = Failed(stamp, slot.is_lost, time.monotonic() + wait_seconds)
        is_new = slot.logged != error.reason
        slot.error, slot.logged = error, error.reason
        if is_new and len(self._slots) > 1:
            log.warning(
                "principal_failed",
                principal=slot.name,
                ccache=slot.entry.ccache,
                reason=error.reason,
                error=error.message,
                advice=error.advice,
            )

    def _first_of(self, errors: Sequence[SidecarError]) -> SidecarError:
        """
        Return the first failure that a person must end, with the number of further failures.

        An outage ends on its own, so it comes last.
        """
        first = min(errors, key=lambda error: error.reason in AWAY)
        more = f"; {len(errors) - 1} more failed" if len(errors) > 1 else ""
        return self._in_time(SidecarError(first.reason, first.message + more, first.advice))

    def _in_time(self, error: SidecarError) -> SidecarError:
        """
        Return a failure with the time until the next entry is due.
        """
        soonest = min(slot.next_at for slot in self._slots) - time.monotonic()
        error.retry_within_seconds = max(RETRY_LEAST_SECONDS, soonest)
        return error

    def _is_kept(self, errors: Sequence[SidecarError]) -> bool:
        """
        Whether a one-shot is done although no KDC answers, because all tickets are still valid.
        """
        now = time.time()
        if (
            not self._settings.one_shot
            or any(error.reason not in AWAY for error in errors)
            or any(slot.problem_at(now) for slot in self._slots)
        ):
            return False
        for error in errors:
            log.warning(
                "ticket_kept", reason=error.reason, error=error.message, advice=error.advice
            )
        return True
