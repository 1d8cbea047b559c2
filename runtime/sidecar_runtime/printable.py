"""
Makes values readable, and untrusted text safe to display and to encode.
"""

import json
import re
from typing import Any

# In JSON: an escaped backslash, one character as a pair of surrogates, or a lone surrogate.
_SURROGATES = re.compile(r"\\\\|\\ud[89ab]..\\ud[c-f]..|\\(ud[89a-f]..)")


def printable(text: str) -> str:
    """
    Return a text with escaped invisible characters, such as those that control a terminal.

    Names, messages and server answers are untrusted: an escape sequence could hide an error, and a
    bidirectional control character could reorder the text next to it.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def json_text(value: object, **how: Any) -> str:
    r"""
    Return JSON that strict readers accept: a lone surrogate, as in a file name that is not UTF-8,
    becomes the text that :func:`printable` returns, such as ``\udce9``.

    Args:
        how: Arguments of :func:`json.dumps`.
    """
    text = json.dumps(value, **how)
    return _SURROGATES.sub(lambda found: rf"\\{found[1]}" if found[1] else found[0], text)


def counted(number: int, noun: str) -> str:
    """
    Return a number with its noun: ``1 file``, ``2 files``.
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"
