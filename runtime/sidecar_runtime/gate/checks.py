"""
The checks that a gate can run: a program, and how to parse its output.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from sidecar_runtime.child import ending
from sidecar_runtime.errors import SidecarError

PROBLEM_CHARACTERS = 500

# Exit codes that are not a verdict: try again (EX_TEMPFAIL of sysexits.h), and those of a shell for
# a program that it cannot run (126, 127) or that a signal ended (128 and above).
_TRY_AGAIN = 75
_FIRST_OF_SHELLS = 126

# "dags/sales.py:12: problem", as compilers and linters write, and a frame of a Python traceback.
_PLACE = re.compile(r"^([^\s:][^:\n]*):(\d+)(?::\d+)?:?[ \t]+(\S.*)$", re.MULTILINE)
_FRAME = re.compile(r'^[ \t]*File "([^"\n]+)", line (\d+)', re.MULTILINE)


class Undecided(SidecarError):
    """
    A check reached no verdict: it could not be started, took too long, or was killed.

    Args:
        remedy: What may help; a daemon repeats the check on its own.
    """

    def __init__(self, message: str, remedy: str) -> None:
        advice = f"{remedy} The check is repeated with backoff; SIGHUP repeats it now."
        super().__init__("gate_undecided", message, advice)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Finding:
    """
    Why a revision is refused: the problem, with its file and line if they are known.
    """

    path: str
    line: int | None
    problem: str

    def __str__(self) -> str:
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{place}: {self.problem}" if place else self.problem


IsFile = Callable[[str], bool]


class Check(NamedTuple):
    """
    A program that judges a folder: exit code 0 accepts.

    It runs in the folder, in its own process group, and reads the new and changed paths from
    standard input, each terminated by a NUL. `read` raises :class:`Undecided` if the way it ended
    is not a verdict.

    Args:
        argv: The program and its arguments; no shell.
        read: Returns findings from the kept output, the exit code (negative: the signal that ended
            it) and a function that tells whether a path is a file of the folder.
        suffix: The suffix of the paths that it judges; without such paths it does not run.
        is_head_kept: Whether to keep the beginning of a long output instead of its end.
        is_final: Whether its verdict depends on the content alone. The exit code of a command
            does not distinguish a bad file from a failure of the command.
    """

    argv: tuple[str, ...]
    read: Callable[[str, int, IsFile], list[Finding]]
    suffix: str = ""
    is_head_kept: bool = False
    is_final: bool = False


def syntax_check(grammar: tuple[int, int]) -> Check:
    """
    Return the check that compiles each new or changed ``.py`` with the grammar of one Python.
    """
    version = f"{grammar[0]}.{grammar[1]}"
    argv = (sys.executable, "-I", "-m", "sidecar_runtime.gate.syntax", version)
    return Check(argv, _read_syntax, ".py", is_head_kept=True, is_final=True)


def command_check(argv: Sequence[str]) -> Check:
    """
    Return the check that runs a command of the user.
    """
    return Check(tuple(argv), _read_command)


def _read_syntax(said: str, code: int, _: IsFile) -> list[Finding]:
    if code != 0:
        raise Undecided(
            f"the syntax check ended with {ending(code)}: {_last_line(said)}",
            "Check the container's memory limit.",
        )
    findings = []
    for line in said.splitlines():
        with suppress(ValueError):  # the last line may be cut off
            findings.append(Finding(*json.loads(line)))
    return findings


def _read_command(said: str, code: int, is_file: IsFile) -> list[Finding]:
    """
    Find file positions in a command's output: files of the revision, not libraries or clock times.
    """
    if code == 0:
        return []
    if code < 0 or code == _TRY_AGAIN or code >= _FIRST_OF_SHELLS:
        last = _last_line(said)
        raise Undecided(
            f"the gate's command ended with {ending(code)}{f': {last}' if last else ''}",
            "Check its output and the container's memory limit.",
        )
    problem = _last_line(said) or f"the command ended with {ending(code)}"
    places = [place.groups() for place in _PLACE.finditer(said) if is_file(place[1])]
    frames = [(*frame.groups(), problem) for frame in _FRAME.finditer(said) if is_file(frame[1])]
    found = [
        # A linter that runs on `.` writes `./dag.py`.
        Finding(os.path.normpath(path), int(line), problem.strip()[:PROBLEM_CHARACTERS])
        for path, line, problem in places or frames[-1:]
    ]
    return found or [Finding("", None, problem[:PROBLEM_CHARACTERS])]


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else ""
