"""
Name the keys of Secrets that were encoded twice, or carry a line break that nobody typed.

For: `kubectl get secrets -o json | python3 find_double_encoding.py`; Python 3.9 or later.
Kubernetes encodes what `data` holds in base64 once. What was encoded before (by `base64`, by a
`| b64enc` under `data` of a chart, by base64 text under `stringData`) is there twice, and its
reader gets base64 text for a password, a keytab or a Docker configuration.

Prints one line for each, never a value. Exit code 0: none; 1: some; 2: the input is not what
kubectl writes.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import sys
from collections.abc import Iterator

_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
# Two bytes that every keytab begins with: 5, and the version of the format.
_KEYTABS = (b"\x05\x01", b"\x05\x02")
_DOCKER = ".dockerconfigjson"


def problems(key: str, value: bytes) -> Iterator[str]:
    """
    Say what is wrong with one value, which is decoded once.
    """
    if _is_encoded_again(value):
        yield "is base64 text: encoded twice"
    elif key == _DOCKER and not _has_registries(value):
        yield 'is not JSON with "auths"'
    elif value.endswith((b"\n", b"\r")) and len(value.splitlines()) == 1:
        yield "is one line, and ends with a line break: `echo` without -n?"


def _is_encoded_again(value: bytes) -> bool:
    """
    Whether a value is base64 of something that a person would put into a Secret.

    A password may consist of the letters of base64: what it would decode to is noise, not text.
    """
    text = b"".join(value.split())
    if len(text) < 8 or not _BASE64.fullmatch(text):
        return False
    inner = base64.b64decode(text)
    is_text = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in inner)
    return is_text or inner.startswith(_KEYTABS)


def _has_registries(value: bytes) -> bool:
    try:
        return isinstance(json.loads(value)["auths"], dict)
    except (ValueError, KeyError, TypeError):
        return False


def lines(document: dict) -> Iterator[str]:
    """
    Yield a line for each problem of a Secret, or of a list of them.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: It is neither.
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
