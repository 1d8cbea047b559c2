"""
Processes that read at full speed during changes, and report their results at the end.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import Facts
from tests.support import revisions


@contextmanager
def reading(total: Facts, link: Path, retain_seconds: float) -> Iterator[None]:
    """
    Run two processes of `tests.support.revisions` during a `with` statement, and add
    their results to the total.

    Args:
        link: What they read; they finish their current trees.
        retain_seconds: How long a snapshot is retained.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, revisions.__file__, str(link), str(retain_seconds)],
            env={"PATH": "/usr/bin:/bin"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        yield
        for process in processes:
            output, _ = process.communicate()
            for name, value in json.loads(output).items():
                total[name] = total[name] + value if name in total else value
    finally:
        for process in processes:
            process.kill()
            process.wait()
