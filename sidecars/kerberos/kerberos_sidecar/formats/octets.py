"""
Reads the binary formats of MIT Kerberos from front to back.
"""

from __future__ import annotations

from typing import Literal


class Octets:
    """
    Bytes, and how far they are read.

    Raises:
        EOFError: By every method, where fewer bytes are left than it takes.
    """

    def __init__(self, content: bytes, order: Literal["big", "little"] = "big") -> None:
        self._content = content
        self._order: Literal["big", "little"] = order
        self.at = 0

    @property
    def left(self) -> int:
        return len(self._content) - self.at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise EOFError
        self.at += count
        return self._content[self.at - count : self.at]

    def skip(self, count: int) -> None:
        """
        Pass over bytes without looking at them: tickets are never copied.
        """
        if count > self.left:
            raise EOFError
        self.at += count

    def integer(self, count: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(count), self._order, signed=signed)

    def counted_text(self, width: int) -> str:
        """
        Read text that follows its own length, an integer of this many bytes.
        """
        return self.take(self.integer(width)).decode(errors="replace")
