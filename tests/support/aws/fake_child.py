"""
A program that replaces the Python interpreter, so that a test sets a child process's output.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.scripts import script


class FakeChild:
    """
    Prints the output that the test sets, and records its runs; use `program` as `sys.executable`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.program = folder / "python"

    def does(self, *lines: str) -> None:
        """
        Make the program run these shell lines.
        """
        calls = self._folder / "calls"
        script(self.program, "\n".join([f'echo "$*" >> {calls}', *lines]))

    def says(self, answer: object) -> None:
        """
        Make the program print a JSON document.
        """
        (self._folder / "answer").write_text(json.dumps(answer))
        self.does(f"cat {self._folder / 'answer'}")

    @property
    def calls(self) -> list[str]:
        """
        The arguments of each run.
        """
        calls = self._folder / "calls"
        return calls.read_text().splitlines() if calls.exists() else []
