"""
Makes values readable, and untrusted text safe to display.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """
    Return a text with escaped invisible characters, such as those that control a terminal.

    Names, messages and server answers are untrusted: an escape sequence could hide an error, and a
    bidirectional control character could reorder the text next to it.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def counted(number: int, noun: str) -> str:
    """
    Return a number with its noun: ``1 file``, ``2 files``.
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"
