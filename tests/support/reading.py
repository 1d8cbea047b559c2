"""
Processes that read at full speed during changes, and report their results at the end.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import revisions


class Readers:
    """
    Two processes of `tests.support.revisions`, which read until their standard input
    closes.
    """

    def __init__(self, place: Path, *more: object) -> None:
        """
        Start the readers.

        Args:
            place: The link that they read.
            more: How long a snapshot is retained, in seconds.
        """
        self._processes = [
            subprocess.Popen(
                [sys.executable, revisions.__file__, str(place), *map(str, more)],
                env={"PATH": "/usr/bin:/bin"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]

    def stop(self) -> dict[str, Any]:
        """
        Let the readers finish their current trees; return the sum of their results.
        """
        total: dict[str, Any] = {}
        for process in self._processes:
            output, _ = process.communicate("")
            _add(total, json.loads(output))
        return total

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@contextmanager
def reading(total: dict[str, Any], place: Path, *more: object) -> Iterator[None]:
    """
    Run readers during a `with` statement, and add their results to the total.
    """
    readers = Readers(place, *more)
    try:
        yield
        _add(total, readers.stop())
    finally:
        readers.kill()


def _add(total: dict[str, Any], seen: dict[str, Any]) -> None:
    for name, value in seen.items():
        total[name] = total[name] + value if name in total else value
