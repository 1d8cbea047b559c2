"""
One cycle: look → plan → acquire → verify → publish.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Literal

from kerberos_sidecar.formats.ccache import (
    SIZE_LIMIT_BYTES,
    Ticket,
    read_ticket,
    without_refresh_time,
)
from kerberos_sidecar.formats.keytab import read_keytab
from kerberos_sidecar.formats.principal import Principal
from kerberos_sidecar.formats.regular import read_regular
from kerberos_sidecar.krb5.acquire import acquire_ticket
from kerberos_sidecar.krb5.overlay import check_config
from kerberos_sidecar.krb5.refusals import hung
from kerberos_sidecar.metrics import KerberosMetrics
from kerberos_sidecar.plan import Acquired, Cause, cause_of, retry_within, wait_after
from kerberos_sidecar.settings import Settings
from kerberos_sidecar.slot import Slot, iso, revision_of
from kerberos_sidecar.source import Stamp
from kerberos_sidecar.staging import Staging, explain_os_error
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.logs import get_logger

# libkrb5 refuses more, by default (`clockskew` in krb5.conf).
SKEW_SECONDS = 300

# Reasons for which no KDC was heard: whether the principal is in order is not known.
AWAY = {"kdc_unreachable", "kdc_hung"}

log = get_logger("cycle")


class Session:
    """
    One session per worker thread; it holds no state.
    """

    def __init__(self, settings: Settings, metrics: KerberosMetrics, slots: Sequence[Slot]) -> None:
        self._settings = settings
        self._metrics = metrics
        self._slots = slots
        self._rehearsed: list[tuple[str, Cause]] = []

    def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle.

        Raises:
            SidecarError: The first failure; the other principals were tried all the same, and
                every ccache that was published stays.
            CycleAbandoned: The fence was revoked.
        """
        due = self._plan(fence)
        if self._settings.dry_run:
            return self._rehearse(due)
        errors = []
        for slot, cause, stamp in due:
            try:
                self._refresh(slot, cause, stamp, fence)
            except SidecarError as error:
                with fence:
                    self._note(slot, error)
                errors.append(error)
        with fence:
            self._metrics.show(self._slots)
        if len(errors) > 1:
            errors[0].message += f"; {len(errors) - 1} more principals failed"
        if errors and not self._is_kept(errors):
            raise self._in_time(errors[0])
        acquired = len(due) - len(errors)
        result: Literal["changed", "unchanged"] = "changed" if acquired else "unchanged"
        return Outcome(result, revision_of(self._slots), {"tickets_acquired": acquired})

    def _is_kept(self, errors: Sequence[SidecarError]) -> bool:
        """
        Whether a one-shot is done although no KDC answers: consumers have what they need.
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

    def close(self) -> None:
        """
        Nothing is open.
        """

    def _plan(self, fence: Fence) -> list[tuple[Slot, Cause, Stamp]]:
        """
        Return what is due, and why; who was not tried for longest is first.

        One realm whose KDC is silent must not keep the others from their turn indefinitely.
        """
        at, now = time.monotonic(), time.time()
        due = []
        for slot in self._slots:
            with fence:
                slot.is_asked_for |= fence.is_asked_for
            stamp, found = slot.source.stamp(), slot.published.look()
            cause = cause_of(
                slot.last, found, stamp, is_asked_for=slot.is_asked_for, at=at, now=now
            )
            if cause is not None:
                due.append((slot, cause, stamp))
        return sorted(due, key=lambda one: one[0].tried_at)

    def _refresh(self, slot: Slot, cause: Cause, stamp: Stamp, fence: Fence) -> None:
        """
        Acquire and publish one ticket.

        Raises:
            SidecarError: Why it is not published.
            CycleAbandoned: The fence was revoked.
        """
        with fence:
            slot.tried_at = time.monotonic()
        keytab = read_keytab(slot.source.find())
        principal = keytab.select(slot.entry.principal)
        with fence:
            slot.keytab, slot.kvno = keytab.path, keytab.kvno_of(principal)
            if slot.last is None:
                slot.principal = principal
            self._metrics.show([slot])  # this cycle may be abandoned while a KDC is asked
        check_config(self._settings)
        if slot.is_waiting and len(self._slots) > 1:
            # Each such call holds a thread; after three no cycle would start, for nobody.
            raise hung(principal, " yet; the last request still waits")
        began = time.monotonic()
        with Staging(slot.entry.ccache, slot.entry.mode, fence) as staging:
            self._blame(slot, self._in_time(hung(principal)), fence)
            slot.is_waiting = True
            try:
                acquire_ticket(principal, keytab, f"FILE:{staging.got}")
            finally:
                slot.is_waiting = False
                fence.blame = None
            content = _read(staging.got)
            ticket = verify(content, principal, time.time())
            staging.publish(without_refresh_time(content))
        with fence:
            slot.published.group = staging.group
            self._record(slot, cause, stamp, ticket, time.monotonic() - began)

    @staticmethod
    def _blame(slot: Slot, error: SidecarError, fence: Fence) -> None:
        """
        Say what the failure is if the cycle is abandoned while the KDC is asked.
        """

        def note() -> None:
            if fence.blame is error:  # not what an earlier entry waited for
                slot.error = error

        fence.blame = error
        fence.on_revoke(note)

    def _record(
        self, slot: Slot, cause: Cause, stamp: Stamp, ticket: Ticket, seconds: float
    ) -> None:
        settings = self._settings
        wait_seconds, next_cause = wait_after(
            ticket, time.time(), settings.interval_seconds, settings.jitter_seconds, random.random()
        )
        slot.last = Acquired(ticket, time.monotonic(), stamp, wait_seconds, next_cause)
        slot.principal = ticket.principal
        slot.is_asked_for, slot.error, slot.logged = False, None, ""
        self._metrics.record(slot, seconds)
        self._metrics.show([slot])  # nor may this one wait for the entries behind it
        log.info(
            "ticket_acquired",
            principal=slot.name,
            ccache=slot.entry.ccache,
            cause=cause,
            kvno=slot.kvno,
            ends_at=iso(ticket.ends_at),
            lifetime_seconds=ticket.lifetime_seconds,
            next_ticket_in_seconds=round(wait_seconds, 1),
            duration_seconds=round(seconds, 3),
        )

    def _note(self, slot: Slot, error: SidecarError) -> None:
        """
        Remember why an entry failed; where there are several, name it the first time.
        """
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

    def _in_time(self, error: SidecarError) -> SidecarError:
        """
        Return a failure with the time by which to try again.
        """
        found = (slot.published.look() for slot in self._slots)
        error.retry_within_seconds = retry_within(found, time.time())
        return error

    def _rehearse(self, due: Sequence[tuple[Slot, Cause, Stamp]]) -> Outcome:
        """
        Say once what would be acquired, and why (``KERBEROS_DRY_RUN``).
        """
        plan = [(slot.entry.ccache, cause) for slot, cause, _ in due]
        if plan != self._rehearsed:
            self._rehearsed = plan
            log.info("plan_made", acquire=dict(plan))
        return Outcome("unchanged")


def verify(content: bytes, principal: Principal, now: float) -> Ticket:
    """
    Return the ticket of a ccache that was just acquired.

    Args:
        now: Unix time.

    Raises:
        SidecarError: It is not what was asked for.
    """
    try:
        ticket = read_ticket(content)
    except ValueError as error:
        raise SidecarError(
            "ticket_unusable",
            f"what the KDC gave for {principal} {error}",
            "Try kinit -kt with the same krb5.conf, and look at its klist.",
        ) from None
    if not ticket.principal.resembles(principal):
        raise SidecarError(
            "ticket_unusable",
            f"the KDC gave a ticket of {ticket.principal} for {principal}",
            "Look at canonicalize in krb5.conf, and at aliases of the principal.",
        )
    if ticket.ends_at > now:
        return ticket
    if abs(ticket.clock_offset_seconds) > SKEW_SECONDS:
        raise SidecarError(
            "clock_skew",
            f"the KDC's clock is {ticket.clock_offset_seconds:+.0f} s from ours, so the ticket "
            f"of {principal} has ended before it began",
            "Fix the time synchronization of the node.",
        )
    raise SidecarError(
        "ticket_unusable",
        f"the KDC gave a ticket of {principal} that has ended already",
        "Look at the maximum life of the principal and of krbtgt.",
    )


def _read(path: str) -> bytes:
    """
    Return what libkrb5 wrote.

    Raises:
        SidecarError: It cannot be read.
    """
    try:
        return read_regular(path, SIZE_LIMIT_BYTES)
    except OSError as error:
        raise explain_os_error(error, path) from error
