"""
Detects keytabs that were pasted, in base64 or hex, into settings for a path or a name.
"""

from __future__ import annotations

import re

# Also matches base64url, base64 of base64, and slashes that JSON escapes with a backslash.
# The minimum length is that of the shortest keytab with a key.
_KEYTAB = re.compile(r"(BQ[E-L]|QlF[F-M])[A-Za-z0-9+/_\\\s-]{29,}=*|050[12][0-9A-Fa-f\\n\s]{40,}")


def holds_keytab(text: str) -> bool:
    """
    Whether a text contains a keytab in base64 or hex.
    """
    return _KEYTAB.search(text) is not None


def without_keytabs(text: str) -> str:
    """
    Return a text with keytabs in base64 or hex replaced, so that it can be shown.
    """
    return _KEYTAB.sub("(a keytab)", text)
