"""
The checks that a gate can make: a program, and how to read what it says.
"""

from __future__ import annotations

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

# Exit codes that are no answer: try again (EX_TEMPFAIL of sysexits.h), and what shells say of a
# program that they cannot run (126, 127) or that a signal ended (128 and more).
_TRY_AGAIN = 75
_FIRST_OF_SHELLS = 126

# "dags/sales.py:12: problem", as compilers and linters write, and a frame of a Python traceback.
_PLACE = re.compile(r"^(?P<path>[^\s:][^:]*):(?P<line>\d+)(?::\d+)?:?\s+(?P<problem>\S.*)$")
_FRAME = re.compile(r'^\s*File "(?P<path>[^"]+)", line (?P<line>\d+)')


class Undecided(SidecarError):
    """
    A check came to no verdict: it could not be run, took too long, or was killed.

    Args:
        remedy: What may help; a daemon asks again by itself.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__("gate_undecided", message, f"{remedy} It is asked again, also by SIGHUP.")
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Finding:
    """
    Why a revision is refused: file and line where they are known, and what is wrong there.
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

    It runs in the folder, in a process group of its own, and gets the new and changed paths on
    standard input, each ended by a NUL. `read` raises :class:`Undecided` for an end that is no
    answer.

    Args:
        argv: The program and its arguments; no shell.
        read: From the end of its output, its exit code (negative: the signal that ended it) and
            whether a path is a file of the folder, to findings.
        suffix: Of the paths that it judges; without any of them it has nothing to say.
        is_head_kept: Whether the beginning of a long output counts, and not its end.
        is_final: Whether it says the same of the same content whenever it is asked. A command's
            exit code does not tell a bad file from a failure of its own.
    """

    argv: tuple[str, ...]
    read: Callable[[str, int, IsFile], list[Finding]]
    suffix: str = ""
    is_head_kept: bool = False
    is_final: bool = False


def syntax_check(grammar: tuple[int, int]) -> Check:
    """
    Return the check that compiles each new or changed ``.py`` by the grammar of one Python.
    """
    version = f"{grammar[0]}.{grammar[1]}"
    argv = (sys.executable, "-I", "-m", "sidecar_runtime.gate.syntax", version)
    return Check(argv, _read_syntax, ".py", is_head_kept=True, is_final=True)


def command_check(argv: Sequence[str]) -> Check:
    """
    Return the check that asks a program of the user's.
    """
    return Check(tuple(argv), _read_command)


def _read_syntax(said: str, code: int, _: IsFile) -> list[Finding]:
    if code != 0:
        raise Undecided(
            f"the syntax check ended with {ending(code)}: {_last_line(said)}",
            "Look at the container's memory limit.",
        )
    findings = []
    for line in said.splitlines():
        with suppress(ValueError):  # the last line may be half a line
            findings.append(Finding(*json.loads(line)))
    return findings


def _read_command(said: str, code: int, is_file: IsFile) -> list[Finding]:
    """
    Find places in what a command says: files of the revision, not of libraries, nor clock times.
    """
    if code == 0:
        return []
    if code < 0 or code == _TRY_AGAIN or code >= _FIRST_OF_SHELLS:
        last = _last_line(said)
        raise Undecided(
            f"the gate's command ended with {ending(code)}{f': {last}' if last else ''}",
            "Look at what it says, and at the container's memory limit.",
        )
    findings: list[Finding] = []
    frame: re.Match[str] | None = None
    for line in said.splitlines():
        if (place := _PLACE.match(line)) and is_file(place["path"]):
            findings.append(_finding(place["path"], place["line"], place["problem"]))
        if (inner := _FRAME.match(line)) and is_file(inner["path"]):
            frame = inner
    if findings:
        return findings
    problem = _last_line(said) or f"the command ended with {ending(code)}"
    return [_finding(frame["path"], frame["line"], problem) if frame else _whole(problem)]


def _finding(path: str, line: str, problem: str) -> Finding:
    # A linter that is given `.` writes `./dag.py`.
    return Finding(os.path.normpath(path), int(line), problem.strip()[:PROBLEM_CHARACTERS])


def _whole(problem: str) -> Finding:
    return Finding("", None, problem[:PROBLEM_CHARACTERS])


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else ""
