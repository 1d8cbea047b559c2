"""
How releases are called, and where their parts lie under the prefix. Pure.

See docs/reference/release-format.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

POINTER_KEY = "current.json"
MANIFEST_FOLDER = "releases/"
BUNDLE_FOLDER = "bundles/"
PIN_FOLDER = "pins/"

_REVISION = re.compile(r"[0-9a-f]{12}")


def manifest_key(revision: str) -> str:
    """
    Return the key of a manifest, relative to the prefix.
    """
    return f"{MANIFEST_FOLDER}{revision}.json"


def bundle_key(sha256: str) -> str:
    """
    Return the key of a bundle, relative to the prefix.
    """
    return f"{BUNDLE_FOLDER}{sha256}.zip"


def pin_key(revision: str) -> str:
    """
    Return the key of a pin, relative to the prefix.
    """
    return f"{PIN_FOLDER}{revision}"


def is_revision(found: object) -> bool:
    return isinstance(found, str) and _REVISION.fullmatch(found) is not None


def revision_of(files: Iterable[tuple[str, str, bool]]) -> str:
    """
    Return the name of a content.

    Args:
        files: Path, SHA-256 and whether it is executable, in the order of paths.
    """
    lines = [f"{sha256} {'x' if is_x else '-'} {path}\0" for path, sha256, is_x in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:12]


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
