"""
What a ``check`` knows the daemon of its source by.
"""

from __future__ import annotations

import hashlib


def identity(sidecar: str, source: str) -> str:
    """
    Return a digest of a sidecar and its source: /readyz has it, which anyone may read.
    """
    return hashlib.sha256(f"{sidecar} {source}".encode(errors="replace")).hexdigest()[:16]
