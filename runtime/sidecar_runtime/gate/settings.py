"""
The settings of a gate.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import dataclass

from sidecar_runtime.errors import Problem
from sidecar_runtime.gate import syntax
from sidecar_runtime.parsers import allows, choice, duration
from sidecar_runtime.settings import CommonSettings, setting


@allows("a version of Python such as 3.11, not newer than the sidecar's")
def grammar(text: str) -> tuple[int, int]:
    """
    Read the version of a Python, such as ``3.11``.
    """
    match = re.fullmatch(r"3\.(\d{1,2})", text.strip())
    version = (3, int(match[1])) if match else (0, 0)
    if not syntax.OLDEST <= version <= syntax.NEWEST:
        oldest, newest = (".".join(map(str, end)) for end in (syntax.OLDEST, syntax.NEWEST))
        raise ValueError(f"is not a version from {oldest} to {newest}, this sidecar's own Python")
    return version


@allows("a program in the image and its arguments; no shell")
def command_line(text: str) -> tuple[str, ...]:
    """
    Read a command as a shell would split it; the program must be there.
    """
    words = shlex.split(text)
    program = shutil.which(words[0]) if words else None
    if program is None:
        raise ValueError("does not begin with a program that is in this image and can be run")
    # It runs in another folder, where a relative name could be a file of the source.
    return (os.path.abspath(program), *words[1:])


@dataclass(frozen=True, kw_only=True)
class GateSettings(CommonSettings):
    """
    The settings of a sidecar that has a gate.
    """

    gate: str = setting(
        "GATE",
        choice("off", "syntax", "command"),
        default="off",
        text="What a revision must pass before it is published: nothing; each new or changed .py "
        "compiles; or your own command.",
    )
    gate_grammar: tuple[int, int] | None = setting(
        "GATE_GRAMMAR",
        grammar,
        text="The Python whose grammar `syntax` uses: that of your Airflow image. Unset: the "
        "sidecar's own.",
    )
    gate_command: tuple[str, ...] | None = setting(
        "GATE_COMMAND",
        command_line,
        text="The command of `command`; it runs in the folder of the full revision, and exit "
        "code 0 accepts.",
    )
    gate_timeout_seconds: float = setting(
        "GATE_TIMEOUT",
        duration(at_least=1),
        default="1m",
        text="A check that takes longer is killed. A command has then refused the revision; the "
        "syntax check, which takes about 2 ms a file, is tried again.",
    )


def check_gate(settings: GateSettings, prefix: str) -> list[Problem]:
    """
    Return what is wrong with the gate's settings as a whole.
    """
    kind, command, version = settings.gate, settings.gate_command, settings.gate_grammar
    found = []
    if (kind == "command") != (command is not None):
        only = f"goes with {prefix}GATE=command, only with it"
        found.append(Problem(f"{prefix}GATE_COMMAND", shlex.join(command or ()), only))
    if kind != "syntax" and version is not None:
        only = f"goes with {prefix}GATE=syntax, only with it"
        found.append(Problem(f"{prefix}GATE_GRAMMAR", ".".join(map(str, version)), only))
    if kind != "off" and settings.gate_timeout_seconds >= settings.timeout_seconds:
        limit = f"is not less than {prefix}TIMEOUT, which is {settings.timeout_seconds:g} s"
        given = f"{settings.gate_timeout_seconds:g}"
        found.append(Problem(f"{prefix}GATE_TIMEOUT", given, limit))
    return found
