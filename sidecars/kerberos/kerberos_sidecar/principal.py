"""
Principal names, and the reader of the binary formats that contain them; independent of libkrb5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# The longest name that is accepted and shown, in characters; real names have dozens.
NAME_LIMIT = 1024

_TOKEN = re.compile(r"\\(.)|([/@])|([^\\/@]+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Principal:
    """
    A principal; its ``str`` is in MIT Kerberos' notation.

    Args:
        realm: Empty if the text did not include one.
    """

    components: tuple[str, ...]
    realm: str = ""

    def __str__(self) -> str:
        name = "/".join(_escape(part) for part in self.components)
        return f"{name}@{_escape(self.realm)}" if self.realm else name

    @property
    def is_text(self) -> bool:
        """
        Whether the name is printable and short; bytes of a key that were misread are not.
        """
        name = "".join((*self.components, self.realm))
        return name.isprintable() and "\ufffd" not in name and len(name) < NAME_LIMIT

    def is_named(self, wanted: Principal) -> bool:
        """
        Whether this is the wanted principal; without a realm, `wanted` matches any realm.
        """
        return wanted == self or (not wanted.realm and wanted.components == self.components)

    def resembles(self, other: Principal) -> bool:
        """
        Whether both differ in case at most: Active Directory answers in its own case.
        """
        return str(self).casefold() == str(other).casefold()


def parse_principal(text: str) -> Principal:
    """
    Parse ``component/component@REALM``, with or without a realm; backslashes escape.

    Raises:
        ValueError: The text is not a principal name.
    """
    parts, separators = [""], []
    end = 0
    for token in _TOKEN.finditer(text):
        escaped, separator, plain = token.groups()
        if separator:
            parts.append("")
            separators.append(separator)
        else:
            parts[-1] += plain or escaped
        end = token.end()
    is_complete = end == len(text) and "@" not in separators[:-1] and all(parts)
    if not is_complete or re.search(r"[\s\0]", text):
        raise ValueError("is not a principal such as airflow@EXAMPLE.COM")
    if separators[-1:] == ["@"]:
        return Principal(tuple(parts[:-1]), parts[-1])
    return Principal(tuple(parts))


def _escape(text: str) -> str:
    return re.sub(r"([\\/@])", r"\\\1", text)


class Octets:
    """
    A byte string with a read position; keytabs and ccaches are read from front to back.

    Raises:
        EOFError: From every method, if fewer bytes are left than it reads.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.at = 0

    @property
    def left(self) -> int:
        return len(self._content) - self.at

    def take(self, count: int) -> bytes:
        self.skip(count)
        return self._content[self.at - count : self.at]

    def skip(self, count: int) -> None:
        """
        Skip bytes without copying them, so that tickets are never copied.
        """
        if count > self.left:
            raise EOFError
        self.at += count

    def integer(self, count: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(count), signed=signed)

    def counted_text(self, width: int) -> str:
        """
        Read text that is prefixed with its length, an integer of `width` bytes.
        """
        return self.take(self.integer(width)).decode(errors="replace")
