"""
Decodes text of S3's XML that is found without a parser. Pure.
"""

from __future__ import annotations


def unescaped(text: str) -> str:
    """
    Return text with its XML entities decoded.
    """
    if "&" not in text:
        return text
    from html import unescape  # noqa: PLC0415 - 2 ms, and entities are rare

    return unescape(text)
