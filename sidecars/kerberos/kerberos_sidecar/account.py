"""
One ccache to keep fresh: what is known about it, and when it is due.

Cycles write `state` behind their fence. Whoever looks at the volume writes what it saw, so that the
HTTP endpoint never waits for the volume or for a cycle. Both are replaced at any moment: read each
attribute once.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

from kerberos_sidecar.due import Acquired, Cause, Failed, Found, cause_of, iso
from kerberos_sidecar.keytab import Keytab, find_keytab, read_keytab, select
from kerberos_sidecar.publish import look
from kerberos_sidecar.reasons import failure
from kerberos_sidecar.settings import Entry, Settings
from sidecar_runtime.errors import SidecarError


@dataclass(frozen=True, slots=True)
class State:
    """
    What cycles leave to the next one; replaced as a whole.

    Args:
        is_asked_for: Whether SIGHUP requested a new ticket that has not been published yet.
        retaken_at: When the ccache was last taken from another process; monotonic seconds.
    """

    last: Acquired | None = None
    failed: Failed | None = None
    is_asked_for: bool = False
    retaken_at: float = -math.inf


class Account:
    """
    Attributes:
        state: Written by cycles, behind their fence.
        found, keytab: The ccache and the keytab at the last look, or what is wrong with it.
        principal: The configured name until a keytab completes it.
        group: The group of the files that we create there.
    """

    def __init__(self, entry: Entry, settings: Settings) -> None:
        self._settings = settings
        self.entry = entry
        self.state = State()
        self.found = Found(problem="has not been read yet")
        self.keytab: Keytab | SidecarError = failure("keytab_missing", "has not been read yet")
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

    def usable_keytab(self) -> Keytab:
        """
        Return the keytab of the last look.

        Raises:
            SidecarError: It could not be found or used.
        """
        if isinstance(keytab := self.keytab, SidecarError):
            raise keytab
        return keytab

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
        self.state = replace(self.state, is_asked_for=True, failed=failed)

    def cause(self) -> Cause | None:
        """
        Return why a ticket is due, by the last look; ``None`` if it is not.
        """
        last, is_asked_for = self.state.last, self.state.is_asked_for
        at, now = time.monotonic(), time.time()
        return cause_of(
            last, self.found, str(self.keytab), is_asked_for=is_asked_for, at=at, now=now
        )

    def is_waiting(self) -> bool:
        """
        Whether the last failure holds back the next try.
        """
        failed = self.state.failed
        if failed is None or failed.keytab != str(self.keytab):
            return False
        return time.monotonic() < failed.retry_at

    @property
    def next_at(self) -> float:
        """
        When it is due or will be retried, at the latest; monotonic seconds.
        """
        if failed := self.state.failed:
            return failed.retry_at
        return self.state.last.at + self.state.last.wait_seconds if self.state.last else 0.0

    def problem(self) -> str:
        """
        Return why consumers cannot use the ccache now; empty if they can.
        """
        problem = self.found.problem_at(time.time(), self.principal)
        if not problem and not self.realm:
            problem = f"cannot be verified: its principal could not be read from {self.source}"
        return f"{self.entry.ccache} {problem}" if problem else ""

    def details(self) -> dict[str, object]:
        """
        Return the facts for the status page.
        """
        ticket, last, error = self.found.ticket, self.state.last, self.error
        who = str(self.principal or f"the first principal in {self.source}")
        facts: dict[str, object] = {"principal": who, "keytab": self.source, "kvno": self.kvno}
        if ticket is not None:
            facts["ends_at"] = iso(ticket.ends_at)
            facts["renew_until"] = iso(ticket.renew_until) if ticket.renew_until else None
            facts["clock_offset_seconds"] = ticket.clock_offset_seconds
        if last is not None:
            left_seconds = max(0.0, last.at + last.wait_seconds - time.monotonic())
            facts["next_ticket_in_seconds"] = round(left_seconds, 1)
        if error is not None:
            facts["last_error"] = f"{error.reason}: {error.message}"
            facts["advice"] = error.advice
        return facts
