"""
A program that answers each order on its standard input; both are a line of JSON.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self


class Dialogue:
    """
    The side that gives the orders; at the end of a `with` statement, the program has
    read all of its input.
    """

    def __init__(
        self,
        program: Sequence[str | Path],
        environment: Mapping[str, str] | None = None,
        log: IO[str] | None = None,
    ) -> None:
        """
        Start the program.

        Args:
            environment: Its complete environment; None = that of the tests.
            log: The file for its standard error; None = that of the tests.
        """
        self._log = log
        self._process = subprocess.Popen(
            program,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def ask(self, order: Mapping[str, object]) -> Any:
        """
        Give an order, and return the answer.
        """
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self.read()

    def read(self) -> Any:
        """
        Return the next answer.

        Raises:
            AssertionError: The program has ended; with the end of its log.
        """
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, self._log and Path(self._log.name).read_text()[-2000:]
        return json.loads(line)
