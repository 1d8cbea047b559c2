"""
What a test process holds open, without what its other threads (servers, mostly) open meanwhile.
"""

import os
from contextlib import suppress


def held(prefix: object) -> list[str]:
    """
    Return what is open and begins so: a folder, or `pipe:`.
    """
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return sorted(path for path in found if path.startswith(str(prefix)))
