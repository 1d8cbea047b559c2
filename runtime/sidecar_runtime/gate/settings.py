"""
The settings of a gate.
"""

import os
import re
import shlex
import shutil
from dataclasses import dataclass

from sidecar_runtime.errors import Problem
from sidecar_runtime.gate import syntax
from sidecar_runtime.parsers import allows, choice, duration
from sidecar_runtime.settings import CommonSettings, setting


@allows("a Python version such as 3.11, not newer than the sidecar's")
def grammar(text: str) -> tuple[int, int]:
    """
    Parse a Python version such as ``3.11``.
    """
    match = re.fullmatch(r"3\.(\d{1,2})", text.strip())
    version = (3, int(match[1])) if match else (0, 0)
    if not syntax.OLDEST <= version <= syntax.NEWEST:
        oldest, newest = (".".join(map(str, end)) for end in (syntax.OLDEST, syntax.NEWEST))
        raise ValueError(f"is not a version from {oldest} to {newest} (the sidecar's own Python)")
    return version


@allows("a program of the image and its arguments; no shell")
def command_line(text: str) -> tuple[str, ...]:
    """
    Parse a command as a shell would split it; the program must exist.
    """
    words = shlex.split(text)
    program = shutil.which(words[0]) if words else None
    if program is None:
        raise ValueError("does not start with an executable program of this image")
    # It runs in another folder, in which a relative name could be a file of the source.
    return (os.path.abspath(program), *words[1:])


def program_of(command: str) -> str:
    """
    Return the program of a command, without its arguments: they may contain a secret.
    """
    program, _, rest = command.strip().partition(" ")
    return f"{program} …" if rest else program


def without_value(text: str) -> str:
    """
    Return variable names for display, without a value that was appended by mistake.
    """
    name, equals, _ = text.partition("=")
    return f"{name}=…" if equals else name


@allows("variable names, separated by commas or spaces")
def variable_names(text: str) -> tuple[str, ...]:
    """
    Parse names of environment variables.
    """
    names = tuple(text.replace(",", " ").split())
    for name in names:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("is not a list of variable names (without values)")
    return names


@dataclass(frozen=True, kw_only=True)
class GateSettings(CommonSettings):
    """
    The settings of a sidecar with a gate.
    """

    gate: str = setting(
        "GATE",
        choice("off", "syntax", "command"),
        default="off",
        text="The check that a revision must pass before it is published: `syntax` compiles each "
        "new or changed .py file, `command` runs your own program.",
    )
    gate_grammar: tuple[int, int] | None = setting(
        "GATE_GRAMMAR",
        grammar,
        text="The Python version whose grammar `syntax` uses; set it to that of your Airflow "
        "image. Unset: the sidecar's own.",
    )
    gate_command: tuple[str, ...] | None = setting(
        "GATE_COMMAND",
        command_line,
        show=program_of,
        text="The program that `command` runs, in the folder of the complete revision. Exit code "
        "0 accepts the revision.",
    )
    gate_env: tuple[str, ...] = setting(
        "GATE_ENV",
        variable_names,
        default="",
        show=without_value,
        text="The variables that `command` inherits in addition to PATH, HOME, LANG and TZ. All "
        "others are withheld: they may be secrets.",
    )
    gate_timeout_seconds: float = setting(
        "GATE_TIMEOUT",
        duration(at_least=1),
        default="1m",
        text="A check that takes longer is killed and repeated with backoff; it does not count as "
        "a verdict. `syntax` takes about 2 ms per file.",
    )


def check_gate(settings: GateSettings, prefix: str) -> list[Problem]:
    """
    Return the problems of the gate's settings in combination.
    """
    kind, command = settings.gate, settings.gate_command
    found = []
    if (kind == "command") != (command is not None):
        both = f"requires {prefix}GATE=command: set both or neither"
        shown = program_of(shlex.join(command or ()))
        found.append(Problem(f"{prefix}GATE_COMMAND", shown, both))
    if kind != "off" and settings.gate_timeout_seconds >= settings.timeout_seconds:
        limit = f"must be less than {prefix}TIMEOUT, which is {settings.timeout_seconds:g} s"
        given = f"{settings.gate_timeout_seconds:g}"
        found.append(Problem(f"{prefix}GATE_TIMEOUT", given, limit))
    return found


def unused_by_gate(settings: GateSettings, prefix: str) -> dict[str, str]:
    """
    Return the variables that are set but belong to another kind of gate, with the explanation.

    That is not an error: values shared by all environments may set a grammar that one does not use.
    """
    found = {"GATE_GRAMMAR": "syntax"} if settings.gate_grammar is not None else {}
    if settings.gate_env:
        found["GATE_ENV"] = "command"
    return {
        f"{prefix}{name}": f"it applies only to {prefix}GATE={kind}"
        for name, kind in found.items()
        if kind != settings.gate
    }
