"""
The open descriptors of the test process, selected by target: server threads have their
own.
"""

import os
from contextlib import suppress


def held(prefix: object) -> list[str]:
    """
    Return the targets of open descriptors that start with a prefix: a folder, or
    `pipe:`.
    """
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return sorted(path for path in found if path.startswith(str(prefix)))
