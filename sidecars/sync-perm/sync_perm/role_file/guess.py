"""
Suggests corrections for misspelled words.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def guess(word: str, known: Iterable[str]) -> str:
    """
    Return a suggestion to append to a message about an unknown word; empty without a close match.
    """
    found = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {found[0]!r}?" if found else ""
