"""
Notes which functions of the product each test file enters, in all of its processes.

A `.pth` file of a copy imports this module in each Python process. Whatever a process
enters counts for the test file that its pytest ancestor runs at that moment, because a
sidecar gets neither the variables nor the descriptors of the test that starts it.

PYTEST_DONT_REWRITE: it is imported before pytest.
"""

import os
import sys
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from types import CodeType
from typing import Any

ROOT = f"{Path(__file__).parents[2]}/"
NOTES = Path(ROOT, ".trace")
TOOL = 4
MONITORING: Any = getattr(sys, "monitoring", None)  # Python 3.12 or later


def _note(*words: object) -> None:
    """
    Append a line to the notes of this process; a full disk or a missing permission
    loses it.
    """
    with suppress(OSError), open(NOTES / f"{os.getpid()}.notes", "a") as file:
        file.write("\t".join(map(str, words)) + "\n")


def _find_test_file() -> str:
    """
    Return the test file of the nearest ancestor that runs tests; empty if there is
    none.
    """
    pid = os.getpid()
    while pid > 1:
        with suppress(OSError):
            return (NOTES / f"{pid}.at").read_text()
        try:
            # The parent is the second field after the name, which may contain anything.
            pid = int(
                Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
            )
        except OSError:
            return ""
    return ""


class _Tracer:
    """
    What this process enters counts for `test_file`.
    """

    test_file = ""

    def enter(self, code: CodeType, _offset: int) -> object:
        """
        Handle the first entry of a function; it causes no more events until
        `restart_events`.
        """
        file = code.co_filename.removeprefix(ROOT)
        if file != code.co_filename and not file.startswith(("tests/", ".venv/")):
            self.test_file = self.test_file or _find_test_file()
            _note(
                "enters",
                self.test_file,
                file,
                code.co_qualname.replace(".<locals>", ""),
            )
        return MONITORING.DISABLE


_tracer = _Tracer()


def start() -> None:
    """
    Start to take notes in this process, unless an earlier `.pth` file did.
    """
    if MONITORING.get_tool(TOOL):
        return
    MONITORING.use_tool_id(TOOL, "mutants")
    MONITORING.register_callback(TOOL, MONITORING.events.PY_START, _tracer.enter)
    MONITORING.set_events(TOOL, MONITORING.events.PY_START)


def pytest_runtest_logstart(nodeid: str) -> None:
    """
    Begin a test: its processes, and what this process enters, count for its file.
    """
    file = nodeid.partition("::")[0]
    if file != _tracer.test_file:
        _tracer.test_file = file
        (NOTES / f"{os.getpid()}.at").write_text(file)
        MONITORING.restart_events()


def pytest_runtest_logreport(report: Any) -> None:
    """
    Note the duration of a phase of a test, but not again in the process that
    distributes tests.
    """
    if not hasattr(report, "node"):
        _note("takes", report.nodeid.partition("::")[0], report.duration)


class Notes:
    """
    The notes of a whole run.
    """

    def __init__(self, folder: Path) -> None:
        """
        Read all notes of a folder.
        """
        self._entered: dict[tuple[str, str], set[str]] = defaultdict(set)
        self.seconds: dict[str, float] = defaultdict(float)
        """How long each test file took, by its path relative to the root."""
        for path in folder.glob("*.notes"):
            for line in path.read_text(errors="replace").splitlines():
                match line.split("\t"):
                    case ["enters", test, file, function] if test:
                        self._entered[file, function].add(test)
                    case ["takes", test, seconds]:
                        self.seconds[test] += float(seconds)

    def tests_of(self, file: str, function: str) -> list[str]:
        """
        Return the test files that enter a function, quickest first.

        A constant, a field or a default counts as used by whoever enters anything in
        its file.
        """
        found = self._entered.get((file, function), set())
        if not found:
            found = {
                test
                for (at, _), tests in self._entered.items()
                if at == file
                for test in tests
            }
        return sorted(found, key=lambda test: (self.seconds[test], test))
