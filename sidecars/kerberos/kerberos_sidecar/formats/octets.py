"""
Reads the binary formats of MIT Kerberos from front to back.
"""

from __future__ import annotations

from typing import Literal


class Octets:
    """
    A byte string with a read position.

    Raises:
        EOFError: From every method, if fewer bytes are left than it reads.
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
        Skip bytes without copying them, so that tickets are never copied.
        """
        if count > self.left:
            raise EOFError
        self.at += count

    def integer(self, count: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(count), self._order, signed=signed)

    def counted_text(self, width: int) -> str:
        """
        Read text that is prefixed with its length, an integer of `width` bytes.
        """
        return self.take(self.integer(width)).decode(errors="replace")
