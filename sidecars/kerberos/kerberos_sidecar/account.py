"""
What is known of one principal and its ccache.

Cycles write `state` behind their fence. Whoever looks at the volume writes what it saw,
so that the HTTP endpoint never waits for the volume or for a cycle. Both are replaced
at any moment: read each attribute once.
"""

import time
from dataclasses import replace
from threading import Lock

from kerberos_sidecar.keytab import Keytab, find_keytab, read_keytab, select
from kerberos_sidecar.plan import Clock, Found, Plan, State, Work, decide, iso
from kerberos_sidecar.publish import look
from kerberos_sidecar.reasons import failure
from kerberos_sidecar.settings import Entry, Settings
from sidecar_runtime.errors import SidecarError


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
        self._looking = Lock()

    def look(self) -> None:
        """
        Read the volume and the keytab; may be called in any thread.

        One at a time: a slow look must not overwrite what a later one has found.
        """
        with self._looking:
            self.found = look(self.entry, self.group)
            try:
                path = find_keytab(self.entry, self._settings)
                self.keytab = keytab = select(
                    path, read_keytab(path), self.entry.principal
                )
                self.principal = keytab.principal
            except SidecarError as error:
                self.keytab = error

    def ask(self) -> None:
        """
        Make a ticket due now.
        """
        failed = self.state.failed and replace(self.state.failed, retry_at=0.0)
        self.state = replace(self.state, is_asked_for=True, failed=failed)

    @property
    def kvno(self) -> int:
        """
        The newest version of the principal's keys; 0 while no keytab can be used.
        """
        keytab = self.keytab
        return keytab.kvno if isinstance(keytab, Keytab) else 0

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
        failed = self.state.failed
        return failed.error if failed else None

    def plan(self) -> Plan:
        """
        Return what is to be done, by the last look.
        """
        return decide(self.state, self.found, str(self.keytab), Clock.read())

    def wait_seconds(self) -> float:
        """
        Return the time until a cycle has something to do, by the last look.
        """
        plan = self.plan()
        if isinstance(plan, Work):
            return 0.0
        return max(0.0, plan.until - time.monotonic())

    def problem(self) -> str:
        """
        Return why consumers cannot use the ccache now; empty if they can.
        """
        # Without a name, and until a keytab tells it, any principal's ticket is good.
        problem = self.found.why_unusable_at(time.time(), self.principal)
        return f"{self.entry.ccache} {problem}" if problem else ""

    def details(self) -> dict[str, object]:
        """
        Return the facts for the status page.
        """
        ticket = self.found.ticket
        error = self.error
        facts: dict[str, object] = {
            "principal": str(self.principal or f"the first principal in {self.source}"),
            "keytab": self.source,
            "kvno": self.kvno,
            "next_ticket_in_seconds": round(self.wait_seconds(), 1),
        }
        if ticket:
            facts["ends_at"] = iso(ticket.ends_at)
        if error:
            facts |= {
                "last_error": f"{error.reason}: {error.message}",
                "advice": error.advice,
            }
        return facts
