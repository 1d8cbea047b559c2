"""
What is published: the record of the last complete cycle, and whether it still holds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection

from s3_sync.tree.volume import Volume
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Readiness
from sidecar_runtime.volume.files import read_facts

NAME = "published.json"
# Unix time of the year 2286; anything beyond is a joke.
LATEST = 10_000_000_000


class Published:
    """
    The record in `.s3-sync/published.json`, for one source and one layout.

    Args:
        kind: ``listing`` or ``release``.
        pin: The one revision that counts; empty for any.

    Attributes:
        revision: Of the source when it was published; empty where nothing is.
        at: Unix time of that publish.
    """

    def __init__(self, source: str, layout: str, kind: str = "listing", pin: str = "") -> None:
        self._source = source
        self._layout = layout
        self._kind = kind
        self._pin = pin
        self.revision = ""
        self.at: float | None = None

    def read(self, state: int) -> None:
        """
        Take over what a process recorded in the open `.s3-sync`.

        The record of another bucket or prefix, of another kind of source, of another layout, or
        of another revision than the pinned one counts as none: what it speaks of is not what our
        consumers need, or not where they look.
        """
        self.revision, self.at = "", None
        facts = read_facts(NAME, state)
        where = facts.get("source"), facts.get("layout", "in-place"), facts.get("kind", "listing")
        if where != (self._source, self._layout, self._kind):
            return
        revision, at = facts.get("revision"), facts.get("published_at")
        if self._pin and revision != self._pin:
            return
        if isinstance(revision, str) and isinstance(at, int | float) and 0 < at < LATEST:
            self.revision, self.at = revision, float(at)

    def record(self, volume: Volume, files: int, revision: str, fence: Fence) -> None:
        """
        Say that all of a revision is in its place.
        """
        at = round(time.time(), 3)
        facts = {
            "revision": revision,
            "published_at": at,
            "files": files,
            "source": self._source,
            "kind": self._kind,
            "layout": self._layout,
        }
        volume.write_state(NAME, json.dumps(facts).encode() + b"\n", fence)
        self.revision, self.at = revision, at

    def readiness(self, damaged: Collection[str], problem: str = "") -> Readiness:
        """
        Return whether what consumers need is there, given the files known to be damaged.
        """
        if self.at is None:
            return Readiness(False, problem="no complete sync of this source yet")
        if damaged and not problem:
            problem = f"{len(damaged)} published files are missing or altered on disk"
        return Readiness(not problem, self.revision, self.at, problem)
