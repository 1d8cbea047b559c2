"""
Principal names: their components and their realm.
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
        Whether the name is printable; bytes of a key that were misread as a name are not.
        """
        parts = (*self.components, self.realm)
        return all(part.isprintable() and "\ufffd" not in part for part in parts)

    def is_named(self, wanted: Principal) -> bool:
        """
        Whether this is the wanted principal; without a realm, `wanted` matches any realm.
        """
        return wanted == self or (not wanted.realm and wanted.components == self.components)

    @property
    def account(self) -> str:
        """
        The name without its case, which Active Directory ignores.
        """
        return str(self).casefold()

    def resembles(self, other: Principal) -> bool:
        """
        Whether both differ in case at most: Active Directory answers in its own case.
        """
        return self.account == other.account


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
    Parse the setting; replace ``_HOST`` with this host's name, as Airflow does.

    Raises:
        ValueError: The text is not a principal name.
    """
    if holds_keytab(text):  # base64 is also a valid name, and would be shown
        raise ValueError("is a keytab, not a principal such as airflow@EXAMPLE.COM")
    return parse_principal(text.replace("_HOST", socket.getfqdn()) if "_HOST" in text else text)


def _escape(text: str) -> str:
    escaped = re.sub(r"([\\/@])", r"\\\1", text)
    return "".join(_ESCAPED.get(char, char) for char in escaped)
