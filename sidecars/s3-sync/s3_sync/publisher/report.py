"""
The report of a command: lines for people, facts for programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MIB = 1 << 20


@dataclass(slots=True)
class Report:
    """
    The answer of one command.
    """

    lines: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


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
