"""
The ccaches to keep fresh, as configured in the settings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kerberos_sidecar.formats.principal import Principal, principal
from sidecar_runtime.parsers import absolute_path, allows, mode, utf_8


@allows("an absolute path, with or without FILE:")
def ccache(text: str) -> str:
    """
    Parse the path of a FILE ccache, with or without ``FILE:``.
    """
    kind = re.match(r"([A-Za-z]\w*):", text)
    if kind and kind[1].upper() != "FILE":
        raise ValueError(
            f"is a {kind[1].upper()} ccache, which other containers cannot read; "
            "set the path of a file on a shared volume"
        )
    return absolute_path(text[kind.end() :] if kind else text)


@allows('an octal mode of at most 0664, such as "0640"')
def ccache_mode(text: str) -> int:
    """
    Parse the mode of a ccache; refuse modes that let any user replace the ticket.
    """
    value = mode(text)
    if value & ~0o664:
        raise ValueError("grants more than 0664, the most permissive mode that is allowed")
    return value


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One ccache to keep fresh.

    Args:
        principal: ``None`` selects the first in the keytab.
        keytab: Its path; ``None`` selects the only keytab in KERBEROS_KEYTAB_DIR.
        mode: The mode of the published file.
    """

    principal: Principal | None
    keytab: str | None
    ccache: str
    mode: int


@allows('JSON such as [{"principal": "a@B", "ccache": "/c", "keytab": "/k"}]')
def entries(text: str) -> tuple[Mapping[str, Any], ...]:
    """
    Parse the JSON list of principals; omitted keys default to the settings for one principal.
    """
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(items, list) or not items:
        raise ValueError("is not a JSON list with at least one object")
    read, problems = [], []
    for number, item in enumerate(items, 1):
        try:
            read.append(_entry(number, item))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(read)


_PARSERS = {"principal": principal, "keytab": absolute_path, "ccache": ccache, "mode": ccache_mode}


def _entry(number: int, item: object) -> Mapping[str, Any]:
    if not isinstance(item, dict):
        raise ValueError(f"item {number} is not a JSON object")
    if unknown := item.keys() - _PARSERS.keys():
        name = min(map(str, unknown))
        raise ValueError(f"item {number}: {name!r} is not one of {', '.join(_PARSERS)}")
    if missing := {"principal", "ccache"} - item.keys():
        raise ValueError(f"item {number}: missing {' and '.join(sorted(missing))}")
    read, problems = {}, []
    for key, value in item.items():
        try:
            if not isinstance(value, str):
                raise ValueError("is not a JSON string")
            read[key] = _PARSERS[key](utf_8(value))
        except ValueError as error:
            problems.append(f"item {number}: {key} {value!r} {error}")
    if problems:
        raise ValueError("; ".join(problems))
    return read
