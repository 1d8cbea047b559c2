"""
One ccache to keep fresh, and what is known of it; outlives cycles and their threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime

from kerberos_sidecar.entries import Entry
from kerberos_sidecar.formats.keytab import read_keytab
from kerberos_sidecar.formats.principal import Principal
from kerberos_sidecar.plan import Acquired
from kerberos_sidecar.published import Published
from kerberos_sidecar.source import Source
from sidecar_runtime.errors import SidecarError


class Slot:
    """
    Written by the cycle, behind its fence; read by the endpoint.

    Attributes:
        principal: As the KDC names it, once there was a ticket; before that as the keytab does,
            and before that as configured.
        keytab, kvno: The file that was read last, and the newest version of the principal's keys.
        tried_at: When it was tried last, in seconds of the monotonic clock.
        is_asked_for: Whether a person asked for a new ticket and there is none yet.
        error: Why the last try failed; ``None`` where it did not.
        logged: The reason of it that the log has; empty where it has none.
        is_waiting: Whether a thread waits for a KDC, perhaps one whose cycle was abandoned.
    """

    def __init__(self, entry: Entry, source: Source) -> None:
        self.entry = entry
        self.source = source
        self.published = Published(entry.ccache, entry.mode)
        self.principal: Principal | None = entry.principal
        self.keytab = str(source)
        self.kvno = 0
        self.last: Acquired | None = None
        self.tried_at = 0.0
        self.is_asked_for = False
        self.error: SidecarError | None = None
        self.logged = ""
        self.is_waiting = False

    def read_principal(self) -> None:
        """
        Learn from the keytab whose ticket it must be, where the settings leave that to it.
        """
        with suppress(SidecarError):  # the first cycle says why
            self.principal = read_keytab(self.source.find()).select(self.entry.principal)

    @property
    def name(self) -> str:
        """
        Whose ticket it is, as far as that is known.
        """
        return str(self.principal or f"the first principal of {self.source}")

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


def iso(moment: float) -> str:
    """
    Return a Unix time as text, in UTC.
    """
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
