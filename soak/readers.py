"""
Consumers of a post: processes that read continuously, and their results so far.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[1]
# libpq prints this if a connection is cut before psycopg2 uses it: no answer, which is not a flaw.
CUT = "FATAL:  terminating connection"


class Reader:
    """
    A process of `soak.reader`; a `with` statement starts it and always ends it.

    Attributes:
        reads: The number of reads so far.
        changes: How often a read differed from the previous one.
        flaws: The flaws that it saw, and how often.
    """

    def __init__(
        self, lock: Path, kind: str, *arguments: object, environment: Mapping[str, str]
    ) -> None:
        """
        Describe a reader without starting it.

        Args:
            lock: A file beside the target, with its name; `holding` locks it to pause the reader.
            kind: One of `soak.reader.KINDS`, with its arguments.
            environment: Its complete environment.
        """
        lock.touch()
        self.lock = lock
        self.name = lock.stem
        self.reads = self.changes = 0
        self.flaws: Counter[str] = Counter()
        self._command = [sys.executable, "-m", "soak.reader", lock, kind, *arguments]
        self._environment = dict(environment)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [str(part) for part in self._command],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()
        return self

    def _collect(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(CUT):
                continue
            if not line.startswith("{"):
                self._say(line.strip())
                continue
            told = json.loads(line)
            self.reads, self.changes = told["reads"], told["changes"]
            for flaw in told["flaws"]:
                self._say(flaw)

    def _say(self, flaw: str) -> None:
        self.flaws[f"reader of {self.name}: {flaw}"] += 1

    def stop(self) -> None:
        """
        Let it finish its read and print its last line.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.wait(60) != 0:
            self._say(f"it ended with code {self._process.returncode}")
        self._thread.join(10)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join(10)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


@contextmanager
def holding(reader: Reader) -> Iterator[None]:
    """
    Pause a reader while the files that it reads are damaged on purpose.
    """
    with reader.lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
