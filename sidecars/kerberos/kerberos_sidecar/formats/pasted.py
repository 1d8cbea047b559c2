"""
Detects base64 keytabs that were pasted into settings for a path or a name.
"""

from __future__ import annotations

import re

# Also matches base64url, and slashes that JSON escapes with a backslash.
# The minimum length is that of the shortest keytab with a key.
_KEYTAB = re.compile(r"BQ[E-L][A-Za-z0-9+/_\\\s-]{29,}=*")


def holds_keytab(text: str) -> bool:
    """
    Whether a text contains a keytab in base64.
    """
    return _KEYTAB.search(text) is not None


def without_keytabs(text: str) -> str:
    """
    Return a text with keytabs in base64 replaced, so that it can be shown.
    """
    return _KEYTAB.sub("(a keytab in base64)", text)
