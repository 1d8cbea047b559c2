"""
The changes that each turn of the history made to the turn before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from s3_sync.publisher.catalog import read_manifest
from s3_sync.publisher.changes import ReleaseChanges, compare, compare_dags, content_of
from s3_sync.publisher.store import Store
from s3_sync.release.facts import time_text
from s3_sync.release.pointer import Pointer, Turn
from s3_sync.revision import short


@dataclass(frozen=True, slots=True)
class TurnChanges:
    """
    The changes of one turn.

    Args:
        before: The turn that it replaced.
        files: The changed files; None if either manifest is gone, or cannot be used.
        dags: The changed DAG ids; None unless those of both releases are known.
    """

    turn: Turn
    before: Turn
    files: ReleaseChanges | None
    dags: ReleaseChanges | None

    def facts(self) -> dict[str, Any]:
        return {
            "revision": self.turn.revision,
            "before": self.before.revision,
            "sequence": self.turn.sequence,
            "since": time_text(self.turn.since),
            "promoted_from": self.turn.promoted_from or None,
            "changes": None if self.files is None else self.files.facts(),
            "dags": None if self.dags is None else self.dags.facts(),
        }

    def __str__(self) -> str:
        names = f"{short(self.before.revision)} → {short(self.turn.revision)}"
        said = "unknown: a release is gone or unreadable" if self.files is None else str(self.files)
        place = f", promoted from {self.turn.promoted_from}" if self.turn.promoted_from else ""
        return f"{time_text(self.turn.since)}  {names}: {said}{place}"


def changes_of_turns(store: Store, pointer: Pointer) -> Iterator[TurnChanges]:
    """
    Yield the changes of each turn of a pointer, newest first; each reads one manifest.
    """
    after = read_manifest(store, pointer.revision)
    for turn, earlier in pairwise((pointer.turn, *pointer.history)):
        before = read_manifest(store, earlier.revision)
        if before is None or after is None:
            yield TurnChanges(turn, earlier, None, None)
        else:
            files = compare(content_of(before), content_of(after))
            dags = compare_dags(before.head.checked, after.head.checked)
            yield TurnChanges(turn, earlier, files, dags)
        after = before
