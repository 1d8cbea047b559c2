"""
One ccache to keep fresh, and what is known of it; outlives cycles and their threads.
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
    Written by the cycle, behind its fence; read by the endpoint.

    Attributes:
        principal: As the KDC names it, once there was a ticket; before that as the keytab does,
            and before that as configured.
        keytab, kvno: The file that was read last, and the newest version of the principal's keys.
        attempt: The request for a ticket that is under way, or has a result that nobody took yet.
        is_asked_for: Whether a person asked for a new ticket and there is none yet.
        error: Why the last try failed; ``None`` where it did not.
        failed: The same for the plan.
        failures: How many there were in a row.
        retaken_at: When the ccache was taken back from another principal, monotonic.
        logged: The reason of the error that the log has; empty where it has none.
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
        Learn from the keytab whose ticket it must be, where the settings leave that to it.
        """
        with suppress(SidecarError):  # the first cycle says why
            self.principal = read_keytab(self.source.find()).select(self.entry.principal)

    def recover(self) -> None:
        """
        Forget all failures: there is a good ticket, whoever has published it.
        """
        self.error = self.failed = None
        self.failures, self.logged = 0, ""

    @property
    def name(self) -> str:
        """
        Whose ticket it is, as far as that is known.
        """
        return str(self.principal or f"the first principal of {self.source}")

    @property
    def next_at(self) -> float:
        """
        When it is due again or may be tried again, at the latest: monotonic.
        """
        if self.failed is not None:
            return self.failed.retry_at
        return self.last.at + self.last.wait_seconds if self.last else 0.0

    @property
    def is_idle(self) -> bool:
        """
        Whether it waits for its next moment: nothing is under way, and the first try is over.
        """
        return self.attempt is None and (self.last is not None or self.failed is not None)

    def is_due(self, keytab: Stamp, at: float, now: float) -> bool:
        """
        Whether a cycle would try it now, as things are: nothing depends on what a look has missed.

        Args:
            keytab: What the keytab is like now.
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
        Whether the volume holds nothing of use; a ticket that has merely ended does not count.
        """
        return bool(self.published.look().problem_at(0.0, self.principal))

    def problem_at(self, now: float) -> str:
        """
        Return why consumers cannot use the ccache at a Unix time; empty where they can.
        """
        problem = self.published.look().problem_at(now, self.principal)
        if not problem and (self.principal is None or not self.principal.realm):
            problem = f"may be anybody's: {self.source} does not tell whose it must be"
        return f"{self.entry.ccache} {problem}" if problem else ""

    def details(self, at: float) -> dict[str, object]:
        """
        Return what the status page shows of it, at a moment of the monotonic clock.
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
    Return when the first of the published tickets ends, as the name of this state.
    """
    found = (slot.published.look().ticket for slot in slots)
    ends = [ticket.ends_at for ticket in found if ticket]
    return f"until {iso(min(ends))}" if ends else ""
