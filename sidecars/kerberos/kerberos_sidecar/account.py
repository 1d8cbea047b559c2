"""
One ccache to keep fresh: what is known about it, and when it is due.

Cycles write `state` behind their fence. Whoever looks at the volume writes what it saw,
so that the HTTP endpoint never waits for the volume or for a cycle. Both are replaced
at any moment: read each attribute once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from kerberos_sidecar import due
from kerberos_sidecar.due import Acquired, Cause, Failed, Found, iso
from kerberos_sidecar.formats import Principal
from kerberos_sidecar.keytab import Keytab, find_keytab, read_keytab, select
from kerberos_sidecar.publish import look
from kerberos_sidecar.reasons import failure
from kerberos_sidecar.settings import Entry, Settings
from sidecar_runtime.errors import SidecarError, printable
from sidecar_runtime.metrics import Metric, Metrics

_LABELS = ("principal", "ccache")


@dataclass(frozen=True, slots=True)
class State:
    """
    What cycles leave to the next one; replaced as a whole.

    Args:
        is_asked_for: Whether SIGHUP requested a new ticket that has not been published
            yet.
        tried_at: When a ticket was last requested; monotonic seconds.
    """

    last: Acquired | None = None
    failed: Failed | None = None
    is_asked_for: bool = False
    tried_at: float = -math.inf


class Account:
    """
    Attributes:
        state: Written by cycles, behind their fence.
        found, keytab: The ccache and the keytab at the last look, or what is wrong with
            it.
        principal: The configured name until a keytab completes it.
        group: The group of the files that we create there.
    """

    def __init__(self, entry: Entry, settings: Settings) -> None:
        self._settings = settings
        self.entry = entry
        self.state = State()
        self.found = Found(problem="has not been read yet")
        self.keytab: Keytab | SidecarError = failure(
            "keytab_missing", "has not been read yet"
        )
        self.principal = entry.principal
        self.group: int | None = None

    def look(self) -> None:
        """
        Read the volume and the keytab; may be called in any thread.
        """
        self.found = look(self.entry, self.group)
        try:
            path = find_keytab(self.entry, self._settings)
            self.keytab = keytab = select(path, read_keytab(path), self.entry.principal)
            self.principal = keytab.principal
        except SidecarError as error:
            self.keytab = error

    @property
    def kvno(self) -> int:
        """
        The newest version of the principal's keys; 0 while no keytab can be used.
        """
        return keytab.kvno if isinstance(keytab := self.keytab, Keytab) else 0

    @property
    def source(self) -> str:
        return self.entry.keytab or self._settings.keytab_dir

    @property
    def realm(self) -> str:
        return self.principal.realm if self.principal else ""

    @property
    def error(self) -> SidecarError | None:
        """
        Why the last try failed; ``None`` after a success.
        """
        return failed.error if (failed := self.state.failed) else None

    def ask(self) -> None:
        """
        Make a ticket due now.
        """
        failed = self.state.failed and replace(self.state.failed, retry_at=0.0)
        self.state = replace(
            self.state, is_asked_for=True, failed=failed, tried_at=-math.inf
        )

    def cause(self) -> Cause | None:
        """
        Return why a ticket is due, by the last look; ``None`` if it is not.
        """
        state = self.state
        return due.cause_of(
            state.last,
            self.found,
            str(self.keytab),
            is_asked_for=state.is_asked_for,
            at=time.monotonic(),
            now=time.time(),
        )

    def taken_by(self) -> str:
        """
        Return who published there, by the last look: another principal, or after us a
        uid whose file consumers cannot read; empty if nobody did.
        """
        cause = self.cause()
        if cause == "damaged":
            return self.found.holder
        ticket = self.found.ticket
        if cause not in ("start", "taken") or ticket is None or self.principal is None:
            return ""
        is_ours = ticket.principal.resembles(self.principal)
        return "" if is_ours else str(ticket.principal)

    @property
    def situation(self) -> str:
        """
        What the success of a try depends on, as far as it is seen: the keytab, and what
        is wrong with the ccache.
        """
        return f"{self.keytab} {self.found.problem}"

    @property
    def next_at(self) -> float:
        """
        When a cycle has something to do, by the last look; monotonic seconds.
        """
        state = self.state
        if self.cause() is None:
            if state.last and not state.failed:
                return state.last.at + state.last.wait_seconds
            return 0.0  # another process has published a good one
        if state.failed and state.failed.situation == self.situation:
            return state.failed.retry_at
        return state.tried_at + due.FLOOR_SECONDS

    def problem(self) -> str:
        """
        Return why consumers cannot use the ccache now; empty if they can.
        """
        problem = self.found.problem_at(time.time(), self.principal)
        if not problem and self.principal is None:
            problem = f"cannot be verified: its principal could not be read from {self.source}"
        return f"{self.entry.ccache} {problem}" if problem else ""

    def details(self) -> dict[str, object]:
        """
        Return the facts for the status page.
        """
        ticket = self.found.ticket
        error = self.error
        wait_seconds = max(0.0, self.next_at - time.monotonic())
        facts: dict[str, object] = {
            "principal": str(self.principal or f"the first principal in {self.source}"),
            "keytab": self.source,
            "kvno": self.kvno,
            "next_ticket_in_seconds": round(wait_seconds, 1),
        }
        if ticket is not None:
            facts["ends_at"] = iso(ticket.ends_at)
            facts["renew_until"] = (
                iso(ticket.renew_until) if ticket.renew_until else None
            )
            facts["clock_offset_seconds"] = ticket.clock_offset_seconds
        if error is not None:
            facts["last_error"] = f"{error.reason}: {error.message}"
            facts["advice"] = error.advice
        return facts


class KerberosMetrics(Metrics):
    """
    The common metrics, and the sidecar's own with the principal and the ccache path as
    labels.
    """

    def __init__(self, version: str, revision: str, *, is_read: bool = True) -> None:
        super().__init__("kerberos", version, revision, is_read=is_read)
        self._of_ccaches: list[Metric] = []
        self._shown: set[tuple[str, ...]] = set()
        self._acquired = self._of_ccache(
            "kerberos_acquired_tickets_total",
            "Tickets acquired and published.",
            "counter",
        )
        self._expiry = self._of_ccache(
            "kerberos_ticket_expiry_timestamp_seconds",
            "Unix time when the published ticket expires, by this node's clock; 0 "
            "without one.",
        )
        self._lifetime = self._of_ccache(
            "kerberos_ticket_lifetime_seconds",
            "Life of the published ticket, from start to end.",
        )
        self._clock_offset = self._of_ccache(
            "kerberos_clock_offset_seconds",
            "How far the KDC's clock is ahead of this node's.",
        )
        self._kvno = self._of_ccache(
            "kerberos_keytab_kvno",
            "Newest version (kvno) of the principal's keys in the keytab; 0 without a "
            "usable one.",
        )
        self._duration = self._of_ccache(
            "kerberos_acquire_duration_seconds",
            "Time that it took to acquire the last ticket.",
        )

    def record(self, principal: Principal, ccache: str, seconds: float) -> None:
        """
        Count a published ticket, and record the seconds that it took to acquire.
        """
        # the cycle fails if another principal does
        self.last_publish.set_to_current_time()
        labels = self._labels(principal, ccache)
        self._acquired.labels(*labels).inc()
        self._duration.labels(*labels).set(seconds)

    def show(self, accounts: Iterable[Account]) -> None:
        """
        Update the gauges of each ccache whose full principal is known; remove what is
        about the former first principal of a keytab.
        """
        known = {
            self._labels(one.principal, one.entry.ccache): one
            for one in accounts
            if one.realm
        }
        for labels in self._shown - known.keys():
            for metric in self._of_ccaches:
                with suppress(KeyError):  # two threads show
                    metric.remove(*labels)
        self._shown = set(known)
        for labels, account in known.items():
            ticket = account.found.ticket
            self._expiry.labels(*labels).set(ticket.ends_at if ticket else 0)
            self._lifetime.labels(*labels).set(ticket.lifetime_seconds if ticket else 0)
            offset_seconds = ticket.clock_offset_seconds if ticket else 0
            self._clock_offset.labels(*labels).set(offset_seconds)
            self._kvno.labels(*labels).set(account.kvno)

    def _of_ccache(self, name: str, text: str, kind: str = "gauge") -> Metric:
        metric = self.add(kind, name, text, *_LABELS)
        self._of_ccaches.append(metric)
        return metric

    def _labels(self, principal: object, ccache: str) -> tuple[str, ...]:
        return (self.sidecar, printable(str(principal)), printable(ccache))
