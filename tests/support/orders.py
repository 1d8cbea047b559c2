"""
A module of the tests that runs as a process of its own, and takes an order a line.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]


class Orders:
    """
    The side that gives the orders.

    Attributes:
        module: The module that takes them.
    """

    module = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.module],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders = self._process.stdin
        self.answers = self._process.stdout
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def tell(self, order: Mapping[str, object]) -> str:
        """
        Give an order; return the line that answers it.
        """
        self._orders.write(json.dumps(order) + "\n")
        self._orders.flush()
        line = self.answers.readline()
        assert line, "the process has ended"
        return line
