"""
Recognizes a keytab in base64 that was pasted where a path or a name belongs.
"""

from __future__ import annotations

import re

# Also of a URL's alphabet; JSON may write a slash with a backslash.
# No keytab with a key is shorter.
_KEYTAB = re.compile(r"BQ[E-L][A-Za-z0-9+/_\\\s-]{29,}=*")


def holds_keytab(text: str) -> bool:
    """
    Whether a keytab in base64 is somewhere in a text.
    """
    return _KEYTAB.search(text) is not None


def without_keytabs(text: str) -> str:
    """
    Return what may be shown of a text.
    """
    return _KEYTAB.sub("(a keytab in base64)", text)
