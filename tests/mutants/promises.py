"""
Faults that people wrote: one for each sentence that users may rely on.

Each file in `promises/` lists, for one sidecar, sentences of its pages, each with an
edit of the code that breaks it and the tests that must notice. The edit is found by the
text that it replaces, so it fails loudly once that code has moved.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests import ROOT

FOLDER = Path(__file__).with_name("promises")


@dataclass(frozen=True)
class Promise:
    """
    A sentence, and the fault that breaks it.

    Args:
        page: The page of the sentence, relative to the repository.
        sentence: As the page says it; may be a part of a sentence, or a row of a table.
        file: The file that the fault is planted in.
        old: The text that the fault replaces, once in the file.
        new: The text instead.
        tests: Arguments of pytest, of which one must fail with the fault.
    """

    page: str
    sentence: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, original: bytes) -> bytes:
        """
        Return the file with the fault.

        Raises:
            ValueError: The text to replace is not there exactly once.
        """
        text = original.decode()
        if text.count(self.old) != 1:
            raise ValueError(
                f"{self.file} has the text of the fault {text.count(self.old)} times: "
                f"{self.old!r}, for: {self.sentence}"
            )
        return text.replace(self.old, self.new).encode()

    def complaints(self) -> list[str]:
        """
        Return what is wrong with the entry itself; empty if it can be tried.
        """
        found = []
        if _plain(self.sentence) not in _plain((ROOT / self.page).read_text()):
            found.append(f"{self.page} does not say: {self.sentence}")
        try:
            self.apply((ROOT / self.file).read_bytes())
        except ValueError as error:
            found.append(str(error))
        for test in self.tests:
            file, _, name = test.partition("::")
            function = name.partition("[")[0]
            path = ROOT / file
            if not path.exists() or f"def {function}" not in _text(path, function):
                found.append(f"there is no test {test}")
        return found


def promises(only: str = "") -> list[Promise]:
    """
    Return all entries whose file or page contains `only`, in the order of the files.
    """
    found = []
    for path in sorted(FOLDER.glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["promise"]:
            promise = Promise(**{**entry, "tests": tuple(entry["tests"])})
            if only in promise.file or only in promise.page:
                found.append(promise)
    return found


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _text(path: Path, function: str) -> str:
    """
    Return the text of a test file; of a folder, or without a function, any will do.
    """
    return path.read_text() if path.is_file() and function else f"def {function}"
