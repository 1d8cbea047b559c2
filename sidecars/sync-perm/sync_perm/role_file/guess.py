"""
What a misspelled word may have meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def guess(word: str, known: Iterable[str]) -> str:
    """
    Return the end of a sentence about a word that is not known; empty without a likely one.
    """
    found = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {found[0]!r}?" if found else ""
