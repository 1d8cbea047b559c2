"""
Writes values as YAML, with comments and aliases, in the order in which they were given.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from typing import Any

_PLAIN = re.compile(
    r"[A-Za-z/][\w./@=?&{}-]*(:+[\w/][\w./@=?&{}-]*)*|\d+[A-Za-z]+|\d+(\.\d+){2,}"
)
_OTHER_TYPES = {"true", "false", "yes", "no", "on", "off", "null"}


class Shared:
    """
    A value that is written once, with an anchor if it occurs again, and as an alias
    afterwards.
    """

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value


class Noted:
    """
    A value with a comment in the lines before it.
    """

    def __init__(self, note: str, value: Any) -> None:
        self.note = note
        self.value = value

    def comment(self) -> Iterator[str]:
        for paragraph in self.note.splitlines():
            yield from (f"# {line}" for line in textwrap.wrap(paragraph, 112))


class Octal(int):
    """
    A file mode.
    """


def text_of(values: Any, *, spaced: bool = False) -> str:
    """
    Return YAML.

    Args:
        spaced: Whether an empty line precedes each key that has more than one line.
    """
    writer = _Writer(values)
    lines: list[str] = []
    for key, value in values.items():
        block = [*writer.item(key, value)]
        if spaced and lines and len(block) > 1:
            lines.append("")
        lines += block
    return "".join(f"{line}\n" for line in lines)


def lines_of(value: Any) -> list[str]:
    """
    Return the lines of a map or a list.
    """
    return [*_Writer(value).block(value)]


class _Writer:
    def __init__(self, values: Any) -> None:
        self._uses = Counter(_shared(values))
        self._written: set[str] = set()

    def item(self, key: str, value: Any) -> Iterator[str]:
        if isinstance(value, Noted):
            yield from value.comment()
            value = value.value
        mark, value = self._marked(value)
        if value is None:
            yield f"{key}:{mark}"
        elif isinstance(value, (dict, list)) and value:
            yield f"{key}:{mark}"
            yield from (f"  {line}" for line in self.block(value))
        elif isinstance(value, str) and "\n" in value:
            yield f"{key}: |"
            yield from (f"  {line}".rstrip() for line in value.splitlines())
        else:
            yield f"{key}: {_scalar(value)}"

    def block(self, value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for key, one in value.items():
                yield from self.item(key, one)
            return
        for one in value:
            if isinstance(one, Noted):
                yield from one.comment()
                one = one.value  # noqa: PLW2901
            mark, given = self._marked(one)
            lines = [] if given is None else self._lines(given)
            if mark:
                yield f"-{mark}"
                yield from (f"  {line}" for line in lines)
            else:
                yield f"- {lines[0]}"
                yield from (f"  {line}" for line in lines[1:])

    def _lines(self, value: Any) -> list[str]:
        return (
            [*self.block(value)]
            if isinstance(value, (dict, list))
            else [_scalar(value)]
        )

    def _marked(self, value: Any) -> tuple[str, Any]:
        """
        Return the anchor or alias of a value, and what is left to write; None after an
        alias.
        """
        if not isinstance(value, Shared):
            return "", value
        if value.name in self._written:
            return f" *{value.name}", None
        if self._uses[value.name] == 1:
            return "", value.value
        self._written.add(value.name)
        return f" &{value.name}", value.value


def _shared(value: Any) -> Iterator[str]:
    """
    Yield the name of each place that refers to a shared value; what it contains counts
    once.
    """
    seen: set[str] = set()

    def walk(one: Any) -> Iterator[str]:
        if isinstance(one, Shared):
            yield one.name
            if one.name not in seen:
                seen.add(one.name)
                yield from walk(one.value)
        elif isinstance(one, Noted):
            yield from walk(one.value)
        elif isinstance(one, (dict, list)):
            for child in one.values() if isinstance(one, dict) else one:
                yield from walk(child)

    return walk(value)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Octal):
        return f"0{value:o}"
    if not isinstance(value, str):
        return str(value)
    if "{{" in value:
        return f"'{value}'"
    is_plain = _PLAIN.fullmatch(value) and value.lower() not in _OTHER_TYPES
    return value if is_plain else f'"{value}"'
