"""
Formats points in time for people.
"""

from __future__ import annotations

from datetime import UTC, datetime


def iso(moment: float) -> str:
    """
    Return a Unix time as ISO 8601 text, in UTC.
    """
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
