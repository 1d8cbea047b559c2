"""
A program in place of the Python interpreter: what a short-lived child of ours says is given.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.scripts import script


class FakeChild:
    """
    Prints what the test sets, and counts. It works where `sys.executable` is its `program`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.program = folder / "python"

    def does(self, *lines: str) -> None:
        """
        Run lines of shell.
        """
        calls = self._folder / "calls"
        script(self.program, "\n".join([f'echo "$*" >> {calls}', *lines]))

    def says(self, answer: object) -> None:
        """
        Answer with a JSON document.
        """
        (self._folder / "answer").write_text(json.dumps(answer))
        self.does(f"cat {self._folder / 'answer'}")

    @property
    def calls(self) -> list[str]:
        """
        The arguments of each call.
        """
        calls = self._folder / "calls"
        return calls.read_text().splitlines() if calls.exists() else []
