"""
The state that /readyz and the status page show: written by the cycle, read by the endpoint.
"""

from __future__ import annotations

import os

from git_sync_wrapper.flags.options import Options
from git_sync_wrapper.published.difference import Difference, find_difference
from git_sync_wrapper.published.record import Published
from sidecar_runtime.gate.gate import RevisionRefused
from sidecar_runtime.health import Readiness


class Status:
    """
    The current state. Each field is replaced as a whole, so threads need no lock.

    Args:
        facts: The settings that the status page shows.
    """

    def __init__(self, options: Options, facts: dict[str, object]) -> None:
        self._options = options
        self._facts = facts
        self._shown = Published(), Difference()
        self._refusal: RevisionRefused | None = None
        self._why_nothing = ""
        self._damage = self._doubt = ""

    @property
    def readiness(self) -> Readiness:
        published, difference = self._shown
        if not published.commit:
            return Readiness(False, problem=f"nothing is published yet{self._why_nothing}")
        problem = self._damage or difference.problem
        if not os.path.isdir(self._options.link):
            problem = f"{self._options.link} does not lead to a folder"
        shortfall = self._doubt or difference.shortfall
        if self._options.is_pinned and self._refusal:
            problem = f"the gate refuses {self._refusal.revision}, which GITSYNC_REF pins"
        if published.fallback:
            shortfall = f"the gate refused {published.fallback}, so this is a fallback"
        return Readiness(not problem, published.commit, published.published_at, problem, shortfall)

    def publish(self, published: Published, *, is_holder: bool) -> None:
        """
        Note what the link shows.

        Args:
            is_holder: Whether this process can change it. A standby is ready for another commit
                as well: a rolling update ends the lock holder only once the standby is ready.
        """
        found = find_difference(published, self._options)
        if not is_holder:
            found = Difference(shortfall=found.problem or found.shortfall)
        self._shown = published, found

    def damage(self, problem: str, *, doubt: str = "") -> None:
        """
        Note the damage to the published commit; an empty text once it is whole.

        Args:
            doubt: Why this process cannot check for damage and leaves that to the lock holder.
        """
        self._damage, self._doubt = problem, doubt

    def refuse(self, refusal: RevisionRefused | None, why_nothing: str = "") -> None:
        """
        Note the refusal of the gate, or None once nothing is refused.

        Args:
            why_nothing: Why no fallback is published; the text follows the commit's hash.
        """
        self._refusal = refusal
        self._why_nothing = f": the gate refuses {refusal.revision}{why_nothing}" if refusal else ""

    def details(self) -> dict[str, object]:
        """
        Return the additional facts of the status page.
        """
        refused = {"refused": self._refusal.facts()} if self._refusal else {}
        return {**self._facts, **self._shown[0].facts.shown(), **refused}
