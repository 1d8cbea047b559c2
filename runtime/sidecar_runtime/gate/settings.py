"""
The settings of a gate.
"""

from __future__ import annotations

import os
import re
import shlex
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
    from shutil import which  # noqa: PLC0415 - 5 ms, and few have a command

    words = shlex.split(text)
    program = which(words[0]) if words else None
    if program is None:
        raise ValueError("does not begin with a program that is in this image and can be run")
    # It runs in another folder, where a relative name could be a file of the source.
    return (os.path.abspath(program), *words[1:])


def program_of(command: str) -> str:
    """
    Return the program of a command; one of its arguments may be a secret.
    """
    program, _, rest = command.strip().partition(" ")
    return f"{program} …" if rest else program


def without_value(text: str) -> str:
    """
    Return what may be shown of names; what is put behind one, by mistake, is its value.
    """
    name, equals, _ = text.partition("=")
    return f"{name}=…" if equals else name


@allows("names of variables, separated by commas or blanks")
def variable_names(text: str) -> tuple[str, ...]:
    """
    Read names of environment variables.
    """
    names = tuple(text.replace(",", " ").split())
    for name in names:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("is not a list of names of variables, without their values")
    return names


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
        show=program_of,
        text="The command of `command`; it runs in the folder of the full revision, and exit "
        "code 0 accepts.",
    )
    gate_env: tuple[str, ...] = setting(
        "GATE_ENV",
        variable_names,
        default="",
        show=without_value,
        text="The variables that `command` gets besides PATH, HOME, LANG and TZ: the others may "
        "be secrets.",
    )
    gate_timeout_seconds: float = setting(
        "GATE_TIMEOUT",
        duration(at_least=1),
        default="1m",
        text="A check that takes longer is killed and made again, with backoff: it is no verdict. "
        "`syntax` takes about 2 ms a file.",
    )


def check_gate(settings: GateSettings, prefix: str) -> list[Problem]:
    """
    Return what is wrong with the gate's settings as a whole.
    """
    kind, command = settings.gate, settings.gate_command
    found = []
    if (kind == "command") != (command is not None):
        both = f"goes with {prefix}GATE=command: set both or neither"
        shown = program_of(shlex.join(command or ()))
        found.append(Problem(f"{prefix}GATE_COMMAND", shown, both))
    if kind != "off" and settings.gate_timeout_seconds >= settings.timeout_seconds:
        limit = f"is not less than {prefix}TIMEOUT, which is {settings.timeout_seconds:g} s"
        given = f"{settings.gate_timeout_seconds:g}"
        found.append(Problem(f"{prefix}GATE_TIMEOUT", given, limit))
    return found


def unused_by_gate(settings: GateSettings, prefix: str) -> dict[str, str]:
    """
    Return the variables that are set and belong to another gate, with why they are not used.

    That is no error: values for all environments name a grammar, and one of them has no gate.
    """
    found = {"GATE_GRAMMAR": "syntax"} if settings.gate_grammar is not None else {}
    if settings.gate_env:
        found["GATE_ENV"] = "command"
    return {
        f"{prefix}{name}": f"it is for {prefix}GATE={kind}"
        for name, kind in found.items()
        if kind != settings.gate
    }
