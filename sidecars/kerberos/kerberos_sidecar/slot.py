"""
One ccache to keep fresh, and its state; outlives cycles and their threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from kerberos_sidecar.attempt import Attempt
from kerberos_sidecar.entries import Entry
from kerberos_sidecar.formats.keytab import read_keytab
from kerberos_sidecar.formats.moment import iso
from kerberos_sidecar.formats.principal import Principal
from kerberos_sidecar.plan import Acquired, Failed, cause_of
from kerberos_sidecar.published import Published
from kerberos_sidecar.source import Source, Stamp
from sidecar_runtime.errors import SidecarError


class Slot:
    """
    The state of one entry, written by the cycle behind its fence and read by the HTTP endpoint.

    Attributes:
        principal: The configured name at first, then the keytab's, then the name in the KDC's
            ticket.
        keytab, kvno: The file that was read last, and the newest version of the principal's keys,
            which is 0 while no keytab can be used.
        attempt: The running request for a ticket, or a finished one that no cycle has handled yet.
        is_asked_for: Whether SIGHUP requested a new ticket that has not been published yet.
        error: Why the last try failed; ``None`` after a success.
        failed: The last failure as the plan needs it; ``None`` after a success.
        failures: The number of consecutive failures.
        retaken_at: When the ccache was retaken from another process; monotonic seconds.
        logged: The reason of the failure that was logged last; empty without a failure.
    """

    def __init__(self, entry: Entry, source: Source) -> None:
        self.entry = entry
        self.source = source
        self.published = Published(entry.ccache, entry.mode)
        self.principal: Principal | None = entry.principal
        self.keytab = str(source)
        self.kvno = 0
        self.last: Acquired | None = None
        self.attempt: Attempt | None = None
        self.is_asked_for = False
        self.error: SidecarError | None = None
        self.failed: Failed | None = None
        self.failures = 0
        self.retaken_at: list[float] = []
        self.logged = ""

    def read_principal(self) -> None:
        """
        Take the principal or its realm from the keytab, if the settings leave it open.
        """
        with suppress(SidecarError):  # the first cycle reports the error
            self.principal = read_keytab(self.source.find()).select(self.entry.principal)

    def recover(self) -> None:
        """
        Forget all failures: a good ticket is published, by this or another process.
        """
        self.error = self.failed = None
        self.failures, self.logged = 0, ""

    @property
    def name(self) -> str:
        """
        The principal, or a description of it before it is known.
        """
        return str(self.principal or f"the first principal in {self.source}")

    @property
    def next_at(self) -> float:
        """
        When it is due again or will be retried, at the latest; monotonic seconds.
        """
        if self.failed is not None:
            return self.failed.retry_at
        return self.last.at + self.last.wait_seconds if self.last else 0.0

    @property
    def is_idle(self) -> bool:
        """
        Whether it waits for `next_at`: no request is running, and the first try is over.
        """
        return self.attempt is None and (self.last is not None or self.failed is not None)

    def is_due(self, keytab: Stamp, at: float, now: float) -> bool:
        """
        Whether a cycle would try it now, from the current state and not from a sequence of changes.

        Args:
            keytab: The current stamp of the keytab.
            at: Seconds of the monotonic clock.
            now: Unix time.
        """
        if not self.is_idle:
            return False
        if self.failed is not None:
            return not self.failed.holds(keytab, is_lost=self.is_lost, at=at)
        asked, found = self.is_asked_for, self.published.look()
        return cause_of(self.last, found, keytab, is_asked_for=asked, at=at, now=now) is not None

    @property
    def is_lost(self) -> bool:
        """
        Whether the ccache is missing or unusable; an expired ticket alone does not count.
        """
        return bool(self.published.look().problem_at(0.0, self.principal))

    def problem_at(self, now: float) -> str:
        """
        Return why consumers cannot use the ccache at a Unix time; empty if they can.
        """
        problem = self.published.look().problem_at(now, self.principal)
        if not problem and (self.principal is None or not self.principal.realm):
            problem = f"cannot be verified: its principal could not be read from {self.source}"
        return f"{self.entry.ccache} {problem}" if problem else ""

    def details(self, at: float) -> dict[str, object]:
        """
        Return the facts for the status page, at a time of the monotonic clock.
        """
        facts: dict[str, object] = {"principal": self.name, "keytab": self.keytab}
        if self.kvno:
            facts["kvno"] = self.kvno
        if ticket := self.published.look().ticket:
            facts["ends_at"] = iso(ticket.ends_at)
            if ticket.renew_until:
                facts["renew_until"] = iso(ticket.renew_until)
            facts["flags"] = ", ".join(ticket.flags)
            facts["clock_offset_seconds"] = ticket.clock_offset_seconds
        if warning := self.published.closed_folder():
            facts["warning"] = f"{self.entry.ccache} {warning}"
        if self.last is not None:
            facts["next_ticket_in_seconds"] = round(
                max(0.0, self.last.at + self.last.wait_seconds - at), 1
            )
        if self.error is not None:
            facts["last_error"] = f"{self.error.reason}: {self.error.message}"
            facts["advice"] = self.error.advice
        return facts


def revision_of(slots: Iterable[Slot]) -> str:
    """
    Return when the first published ticket expires, as the name of this state.
    """
    found = (slot.published.look().ticket for slot in slots)
    ends = [ticket.ends_at for ticket in found if ticket]
    return f"until {iso(min(ends))}" if ends else ""
