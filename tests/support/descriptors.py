"""
The open descriptors of a test process, ignoring those of its other threads (mostly servers).
"""

import os
from contextlib import suppress


def held(prefix: object) -> list[str]:
    """
    Return the open descriptors whose target starts with a prefix: a folder, or `pipe:`.
    """
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return sorted(path for path in found if path.startswith(str(prefix)))
