"""
What /readyz and the status page show: written by the cycle, read by the endpoint.
"""

from __future__ import annotations

import os

from git_sync_wrapper.published.volume import Published
from sidecar_runtime.gate.gate import RevisionRefused
from sidecar_runtime.health import Readiness


class Status:
    """
    The facts as of now; each is replaced as a whole, so threads need no lock.

    Args:
        link: What consumers go by.
        facts: What the status page shows of the settings.
        is_pinned: Whether no commit will do but the one that is asked for.
    """

    def __init__(self, link: str, facts: dict[str, object], *, is_pinned: bool = False) -> None:
        self._link = link
        self._facts = facts
        self._is_pinned = is_pinned
        self._published = Published()
        self._refusal: RevisionRefused | None = None
        self._why_nothing = ""
        self._damage = self._doubt = ""

    @property
    def readiness(self) -> Readiness:
        published = self._published
        if not published.commit:
            return Readiness(False, problem=f"nothing is published yet{self._why_nothing}")
        problem = self._damage
        if not os.path.isdir(self._link):
            problem = f"{self._link} shows no folder"
        shortfall = self._doubt
        if self._is_pinned and self._refusal:
            problem = f"the gate refuses {self._refusal.revision}, which GITSYNC_REF pins"
        if published.fallback:
            shortfall = f"the gate refused {published.fallback}, and this is a fallback"
        return Readiness(not problem, published.commit, published.published_at, problem, shortfall)

    def publish(self, published: Published) -> None:
        """
        Note what the link shows.
        """
        self._published = published

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
        return {**self._facts, **self._published.facts.shown(), **refused}
