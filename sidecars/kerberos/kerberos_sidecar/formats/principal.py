"""
The name of a principal: its components and its realm.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

from kerberos_sidecar.formats.pasted import holds_keytab
from sidecar_runtime.parsers import allows

_ESCAPED = {"\n": "\\n", "\t": "\\t", "\b": "\\b", "\0": "\\0"}
_UNESCAPED = {text[1]: char for char, text in _ESCAPED.items()}
_TOKEN = re.compile(r"\\(.)|([/@])|([^\\/@]+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Principal:
    """
    A principal; ``str`` of it is as MIT Kerberos writes it.

    Args:
        realm: Empty where the text named none.
    """

    components: tuple[str, ...]
    realm: str = ""

    def __str__(self) -> str:
        name = "/".join(_escape(part) for part in self.components)
        return f"{name}@{_escape(self.realm)}" if self.realm else name

    @property
    def is_text(self) -> bool:
        """
        Whether it can be shown: bytes of a key that were taken for a name cannot.
        """
        parts = (*self.components, self.realm)
        return all(part.isprintable() and "\ufffd" not in part for part in parts)

    def is_named(self, wanted: Principal) -> bool:
        """
        Whether it is the one that is wanted; one without realm takes any.
        """
        return wanted == self or (not wanted.realm and wanted.components == self.components)

    def resembles(self, other: Principal) -> bool:
        """
        Whether it is the same except for case: Active Directory answers in its own.
        """
        return str(self).casefold() == str(other).casefold()


def parse_principal(text: str) -> Principal:
    """
    Read ``component/component@REALM``, with or without realm; backslashes escape.

    Raises:
        ValueError: It is not the name of a principal.
    """
    parts, separators = [""], []
    end = 0
    for token in _TOKEN.finditer(text):
        escaped, separator, plain = token.groups()
        if separator:
            parts.append("")
            separators.append(separator)
        else:
            parts[-1] += plain or _UNESCAPED.get(escaped, escaped)
        end = token.end()
    is_complete = end == len(text) and "@" not in separators[:-1] and all(parts)
    if not is_complete or re.search(r"[\s\0]", text):
        raise ValueError("is not a principal such as airflow@EXAMPLE.COM")
    if separators[-1:] == ["@"]:
        return Principal(tuple(parts[:-1]), parts[-1])
    return Principal(tuple(parts))


@allows("a principal such as airflow@EXAMPLE.COM")
def principal(text: str) -> Principal:
    """
    Read the setting; ``_HOST`` becomes the name of this host, as in Airflow.

    Raises:
        ValueError: It is not the name of a principal.
    """
    if holds_keytab(text):  # in base64 it would be a valid name, and be shown as one
        raise ValueError("is a keytab, not a principal such as airflow@EXAMPLE.COM")
    return parse_principal(text.replace("_HOST", socket.getfqdn()) if "_HOST" in text else text)


def _escape(text: str) -> str:
    escaped = re.sub(r"([\\/@])", r"\\\1", text)
    return "".join(_ESCAPED.get(char, char) for char in escaped)
