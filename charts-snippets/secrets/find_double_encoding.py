"""
List the keys of Secrets that were encoded twice, or end with an accidental line break.

For: `kubectl get secrets -o json | python3 find_double_encoding.py`; Python 3.9 or later.
The values under `data` of a Secret are encoded in base64 once. If you encode a value before that
(with `base64`, `| b64enc` under `data` of a chart, or base64 text under `stringData`), the reader
gets base64 text instead of a password, a keytab or a Docker configuration.

Prints one line for each key, never a value. Exit code 0: none found; 1: some found; 2: the input
is not the output of kubectl.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
# Every keytab begins with two bytes: 5 and the format version.
_KEYTABS = (b"\x05\x01", b"\x05\x02")
_DOCKER = ".dockerconfigjson"


def problems(key: str, value: bytes) -> Iterator[str]:
    """
    Yield the problems of one value, decoded once.
    """
    if _is_encoded_again(value) and not _is_fernet_key(key, value):
        yield "is base64 text: encoded twice"
    elif key == _DOCKER and not _has_registries(value):
        yield 'is not JSON with "auths"'
    elif value.endswith((b"\n", b"\r")) and len(value.splitlines()) == 1:
        yield "is one line and ends with a line break: was it made with `echo` without -n?"


def _is_encoded_again(value: bytes) -> bool:
    """
    Whether a value is the base64 form of plausible Secret content: text or a keytab.

    A password may consist of base64 letters only, but it decodes to noise, not to text.
    """
    text = b"".join(value.split())
    if len(text) < 8 or not _BASE64.fullmatch(text):
        return False
    inner = base64.b64decode(text)
    return _is_text(inner) or inner.startswith(_KEYTABS)


def _is_text(value: bytes) -> bool:
    try:
        return "".join(value.decode().split()).isprintable()
    except UnicodeDecodeError:
        return False


def _is_fernet_key(key: str, value: bytes) -> bool:
    """
    Whether it is a key of Airflow: the base64 form of 32 bytes, which are letters and digits if the
    chart has generated it.
    """
    return "fernet" in key.lower() and len(base64.b64decode(value)) == 32


def _has_registries(value: bytes) -> bool:
    try:
        return isinstance(json.loads(value)["auths"], dict)
    except (ValueError, KeyError, TypeError):
        return False


def lines(document: dict[str, Any]) -> Iterator[str]:
    """
    Yield a line for each problem in a Secret or a list of Secrets.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: The document is neither.
    """
    for secret in document["items"] if document["kind"] == "List" else [document]:
        where = secret["metadata"]
        for key, encoded in (secret.get("data") or {}).items():
            for problem in problems(key, base64.b64decode(encoded, validate=True)):
                yield f"{where.get('namespace', 'default')}/{where['name']}: {key} {problem}"


def main() -> int:
    try:
        found = list(lines(json.load(sys.stdin)))
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        sys.stderr.write("expected the output of: kubectl get secrets -o json\n")
        return 2
    sys.stdout.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
