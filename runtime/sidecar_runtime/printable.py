"""
Texts of others, as they may be shown to a person.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """
    Return a text in which what is invisible, or steers a terminal or a browser, is a number.

    Names, messages and answers of servers are others' work: an escape sequence could hide what is
    wrong, a control character of bidirectional text could turn what is beside it around.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
