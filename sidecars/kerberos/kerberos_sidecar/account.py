"""
One ccache to keep fresh: what is known about it, and when it is due.

Cycles write `state` behind their fence. Whoever looks at the volume writes what it saw, so that the
HTTP endpoint never waits for the volume or for a cycle.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

from kerberos_sidecar.due import Acquired, Cause, Failed, Found, cause_of, iso
from kerberos_sidecar.keytab import Keytab, find_keytab, read_keytab
from kerberos_sidecar.principal import Principal
from kerberos_sidecar.publish import Refused, look
from kerberos_sidecar.settings import Entry, Settings
from sidecar_runtime.errors import SidecarError


@dataclass(frozen=True, slots=True)
class State:
    """
    What cycles leave to the next one; replaced as a whole.

    Args:
        principal: The configured name at first, then the keytab's, then the name in the ticket.
        keytab, kvno: The file that was read last, and the newest version of the principal's keys,
            which is 0 while no keytab can be used.
        is_asked_for: Whether SIGHUP requested a new ticket that has not been published yet.
        retaken_at: When the ccache was last taken from another process; monotonic seconds.
    """

    principal: Principal | None
    keytab: str
    kvno: int = 0
    last: Acquired | None = None
    failed: Failed | None = None
    is_asked_for: bool = False
    retaken_at: float = -math.inf


class Account:
    """
    Attributes:
        found, stamp: The ccache and the keytab at the last look.
        group: The group of the files that we create there.
    """

    def __init__(self, entry: Entry, settings: Settings) -> None:
        self._settings = settings
        self.entry = entry
        self.source = entry.keytab or settings.keytab_dir
        self.refused = Refused(entry)
        self.state = State(entry.principal, self.source)
        self.found = Found(problem="has not been read yet")
        self.stamp = ""
        self.group: int | None = None

    @property
    def name(self) -> str:
        """
        The principal, or a description of it before it is known.
        """
        return str(self.state.principal or f"the first principal in {self.source}")

    @property
    def realm(self) -> str:
        return self.state.principal.realm if self.state.principal else ""

    @property
    def error(self) -> SidecarError | None:
        """
        Why the last try failed; ``None`` after a success.
        """
        return self.state.failed.error if self.state.failed else None

    def ask(self) -> None:
        """
        Make a ticket due now.
        """
        failed = self.state.failed and replace(self.state.failed, retry_at=0.0)
        self.state = replace(self.state, is_asked_for=True, failed=failed)

    def look(self) -> None:
        """
        Read the volume and the keytab, as far as they have changed.
        """
        self.found = look(self.entry, self.group)
        try:
            keytab, principal = self.read_keytab()
            self.stamp = keytab.stamp_of(principal)
        except SidecarError as error:
            self.stamp = error.message

    def read_keytab(self) -> tuple[Keytab, Principal]:
        """
        Return the keytab as it is now, and the principal that it has for this entry.

        Raises:
            SidecarError: It cannot be found or used; the message never contains its content.
        """
        keytab = read_keytab(find_keytab(self.entry, self._settings))
        return keytab, keytab.select(self.entry.principal)

    def cause(self) -> Cause | None:
        """
        Return why a ticket is due, by the last look; ``None`` if it is not.
        """
        last, is_asked_for = self.state.last, self.state.is_asked_for
        at, now = time.monotonic(), time.time()
        return cause_of(last, self.found, self.stamp, is_asked_for=is_asked_for, at=at, now=now)

    def is_waiting(self) -> bool:
        """
        Whether the last failure holds back the next try.
        """
        failed, at = self.state.failed, time.monotonic()
        return failed is not None and failed.holds(self.stamp, is_lost=self.is_lost, at=at)

    @property
    def is_lost(self) -> bool:
        """
        Whether the ccache is missing or unusable; an expired ticket alone does not count.
        """
        return bool(self.found.problem_at(0.0, self.state.principal))

    @property
    def next_at(self) -> float:
        """
        When it is due or will be retried, at the latest; monotonic seconds.
        """
        if self.state.failed is not None:
            return self.state.failed.retry_at
        return self.state.last.at + self.state.last.wait_seconds if self.state.last else 0.0

    def problem(self) -> str:
        """
        Return why consumers cannot use the ccache now; empty if they can.
        """
        problem = self.found.problem_at(time.time(), self.state.principal)
        if not problem and not self.realm:
            problem = f"cannot be verified: its principal could not be read from {self.source}"
        return f"{self.entry.ccache} {problem}" if problem else ""

    def details(self) -> dict[str, object]:
        """
        Return the facts for the status page.
        """
        state, ticket = self.state, self.found.ticket
        facts: dict[str, object] = {"principal": self.name, "keytab": state.keytab}
        if state.kvno:
            facts["kvno"] = state.kvno
        if ticket is not None:
            facts["ends_at"] = iso(ticket.ends_at)
            if ticket.renew_until:
                facts["renew_until"] = iso(ticket.renew_until)
            facts["flags"] = ", ".join(ticket.flags)
            facts["clock_offset_seconds"] = ticket.clock_offset_seconds
        if state.last is not None:
            left_seconds = state.last.at + state.last.wait_seconds - time.monotonic()
            facts["next_ticket_in_seconds"] = round(max(0.0, left_seconds), 1)
        if (error := self.error) is not None:
            facts["last_error"] = f"{error.reason}: {error.message}"
            facts["advice"] = error.advice
        return facts
