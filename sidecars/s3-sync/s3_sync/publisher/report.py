"""
What a command says: lines for people, facts for programs, and its progress on a terminal.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from s3_sync.release.format import Manifest

MIB = 1 << 20
NAMED = 20
EVERY_SECONDS = 0.1


@dataclass(slots=True)
class Report:
    """
    The answer of one command.
    """

    lines: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


class ReleaseChanges(NamedTuple):
    """
    The differences between two contents: sorted names, by kind of change.
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def lines(self, limit: int = 0) -> list[str]:
        """
        Return one line per name, at most `limit` of them; 0: all.
        """
        marks = zip("+~-", self, strict=True)
        lines = [f"  {mark} {name}" for mark, names in marks for name in names]
        if limit and len(lines) > limit:
            return [*lines[:limit], f"  and {len(lines) - limit} more"]
        return lines

    def __str__(self) -> str:
        return ", ".join(f"{len(names)} {kind}" for kind, names in self._asdict().items())


class Difference(NamedTuple):
    """
    The differences between two releases.

    Args:
        dags: None unless the DAGs of both are known.
    """

    files: ReleaseChanges
    dags: ReleaseChanges | None

    def facts(self) -> dict[str, Any]:
        return {
            "changes": self.files._asdict(),
            "dags": self.dags._asdict() if self.dags else None,
        }

    def lines(self, limit: int = 0) -> list[str]:
        dags = self.dags if self.dags and any(self.dags) else None
        head = [f"DAGs: {len(dags.added)} added, {len(dags.removed)} removed"] if dags else []
        return [*self.files.lines(limit), *head, *(dags.lines(limit) if dags else [])]


def compare(before: Manifest | None, after: Manifest) -> Difference:
    """
    Compare two releases; every file is new if there is no release before.
    """
    files = [
        {path: file.etag for path, file in one.files.items()} if one else {}
        for one in (before, after)
    ]
    checks = [one.checked if one else None for one in (before, after)]
    ids = [dict.fromkeys(one.dag_ids, "") for one in checks if one and not one.files_not_loaded]
    return Difference(_compare(*files), _compare(*ids) if len(ids) == len(checks) else None)


def _compare(before: Mapping[str, str], after: Mapping[str, str]) -> ReleaseChanges:
    return ReleaseChanges(
        tuple(sorted(after.keys() - before.keys())),
        tuple(name for name in sorted(after) if name in before and before[name] != after[name]),
        tuple(sorted(before.keys() - after.keys())),
    )


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """
    Return rows as lines with aligned columns.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def size_text(size_bytes: int) -> str:
    """
    Return a size in a readable unit.
    """
    if size_bytes < 1 << 10:
        return f"{size_bytes} B"
    return f"{size_bytes / 1024:.1f} KiB" if size_bytes < MIB else f"{size_bytes / MIB:.1f} MiB"


class Progress:
    """
    One line on standard error, on a terminal only; overwritten, and cleared when the command ends.
    """

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._told_at = 0.0

    def steps(self, what: str, total: int) -> Callable[[int], None]:
        """
        Return a function that takes how much of the total is done.
        """

        def tell(done: int) -> None:
            now = time.monotonic()
            if self._is_shown and (done >= total or now - self._told_at >= EVERY_SECONDS):
                self._told_at = now
                sys.stderr.write(f"\r\x1b[K{what}: {100 * done // max(total, 1)} %")
                sys.stderr.flush()

        return tell

    def clear(self) -> None:
        """
        Clear the line.
        """
        if self._told_at:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
