"""
What /readyz and the status page show: written by the cycle, read by the endpoint.
"""

from __future__ import annotations

import os

from git_sync_wrapper.flags.options import Options
from git_sync_wrapper.published.difference import Difference, find_difference
from git_sync_wrapper.published.volume import Published
from sidecar_runtime.gate.gate import RevisionRefused
from sidecar_runtime.health import Readiness


class Status:
    """
    The facts as of now; each is replaced as a whole, so threads need no lock.

    Args:
        facts: What the status page shows of the settings.
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
            problem = f"{self._options.link} shows no folder"
        shortfall = self._doubt or difference.shortfall
        if self._options.is_pinned and self._refusal:
            problem = f"the gate refuses {self._refusal.revision}, which GITSYNC_REF pins"
        if published.fallback:
            shortfall = f"the gate refused {published.fallback}, and this is a fallback"
        return Readiness(not problem, published.commit, published.published_at, problem, shortfall)

    def publish(self, published: Published, *, is_holder: bool) -> None:
        """
        Note what the link shows.

        Args:
            is_holder: Whether this process can change it. If not, it is ready for another commit
                too: a rolling update ends the one that can only once this one is ready.
        """
        found = find_difference(published, self._options)
        if not is_holder:
            found = Difference(shortfall=found.problem or found.shortfall)
        self._shown = published, found

    def damage(self, problem: str, *, doubt: str = "") -> None:
        """
        Note what is damaged of what the link shows; nothing once it is whole.

        Args:
            doubt: Why this process cannot tell, and leaves it to another one.
        """
        self._damage, self._doubt = problem, doubt

    def refuse(self, refusal: RevisionRefused | None, why_nothing: str = "") -> None:
        """
        Note what the gate refuses; None once it refuses nothing.

        Args:
            why_nothing: Why nothing is published instead, to be said after the commit.
        """
        self._refusal = refusal
        self._why_nothing = f": the gate refuses {refusal.revision}{why_nothing}" if refusal else ""

    def details(self) -> dict[str, object]:
        """
        Return what the status page shows besides.
        """
        refused = {"refused": self._refusal.facts()} if self._refusal else {}
        return {**self._facts, **self._shown[0].facts.shown(), **refused}
