"""
The gate: the check that a revision must pass before it is published.

Its unit is the revision: all of it is published, or nothing. A verdict is final for the
process, except a command's refusal: it may be a failure of the command itself, so the
check is repeated, less and less often. SIGHUP repeats the check for any refusal. A
refusal is not a failure: the source is polled as usual for the revision that fixes it.
Without a verdict the cycle fails, and the next one repeats the check.
"""

import json
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from sidecar_runtime import child
from sidecar_runtime.errors import Problem, SidecarError, counted
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.syntax import GRAMMARS, PROBLEM_CHARACTERS
from sidecar_runtime.logs import get_logger
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.parsers import allows, choice, duration
from sidecar_runtime.settings import CommonSettings, setting

NAMED_FINDINGS = 20
VERDICTS = 100
UNDECIDED_TIMES = 3
# The first and the longest wait before a command's refusal is checked again.
FIRST_REST_SECONDS = 30.0
LONGEST_REST_SECONDS = 900.0
# The only variables that a check inherits, besides those in GATE_ENV: others may be
# secrets.
INHERITED = ("PATH", "HOME", "LANG", "TZ")

# Exit codes that are not a verdict: try again (EX_TEMPFAIL of sysexits.h), and those of
# a shell for a program that it cannot run (126, 127) or that a signal ended (128 and
# above).
_TRY_AGAIN = 75
_FIRST_OF_SHELLS = 126

# "dags/sales.py:12: problem", as compilers and linters write, and a frame of a Python
# traceback. The text is hostile: each line is read once.
_PLACE = re.compile(r"^([^\s:][^:\n]*):(\d{1,9})(?::\d+)?:?[ \t]+(\S.*)$", re.MULTILINE)
FRAME = re.compile(r'^[ \t]*File "([^"\n]+)", line (\d{1,9})\b', re.MULTILINE)

log = get_logger("gate")


# --- the settings


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


def first_word(text: str) -> str:
    """
    Return what may be shown of a program or a variable: what follows may be a secret.
    """
    first, *rest = re.split(r"[\s=]+", text.strip(), maxsplit=1)
    return f"{first} …" if rest else first


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
    gate_grammar: str | None = setting(
        "GATE_GRAMMAR",
        choice(*GRAMMARS),
        needs="GATE=syntax",
        allowed="a Python version such as 3.11, not newer than the sidecar's",
        text="The Python version whose grammar `syntax` uses; set it to that of your Airflow "
        "image. Unset: the sidecar's own. f-strings that only 3.12 can read pass.",
    )
    gate_command: tuple[str, ...] | None = setting(
        "GATE_COMMAND",
        command_line,
        needs="GATE=command",
        show=first_word,
        text="The program that `command` runs, in the folder of the complete revision. Exit code "
        "0 accepts the revision.",
    )
    gate_env: tuple[str, ...] = setting(
        "GATE_ENV",
        variable_names,
        needs="GATE=command",
        default="",
        show=first_word,
        text="The variables that `command` inherits in addition to PATH, HOME, LANG and TZ. All "
        "others are withheld: they may be secrets.",
    )
    gate_timeout_seconds: float = setting(
        "GATE_TIMEOUT",
        duration(at_least=1),
        needs="GATE=syntax or command",
        default="1m",
        text="A check that takes longer is killed and repeated with backoff; it does not count as "
        "a verdict. `syntax` takes about 2 ms per file.",
    )


def check_gate(settings: GateSettings) -> list[Problem]:
    """
    Return the problems of the gate's settings in combination.
    """
    prefix = settings.variable_prefix
    found = []
    if settings.gate == "command" and settings.gate_command is None:
        found.append(
            Problem(f"{prefix}GATE_COMMAND", "", f"is needed by {prefix}GATE=command")
        )
    if (
        settings.gate != "off"
        and settings.gate_timeout_seconds >= settings.timeout_seconds
    ):
        found.append(
            Problem(
                f"{prefix}GATE_TIMEOUT",
                f"{settings.gate_timeout_seconds:g}",
                f"must be less than {prefix}TIMEOUT, which is {settings.timeout_seconds:g} s",
            )
        )
    return found


# --- the checks: a program, and how to read its output


class Undecided(SidecarError):
    """
    A check reached no verdict: it could not be started, took too long, or was killed.

    Args:
        remedy: What may help; a daemon repeats the check on its own.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(
            "gate_undecided",
            message,
            f"{remedy} The check is repeated with backoff; SIGHUP repeats it now.",
        )
        self.remedy = remedy


class Finding(NamedTuple):
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

    It runs in the folder, in its own process group, and reads the new and changed paths
    from standard input, each terminated by a NUL. `read` raises :class:`Undecided` if
    the way it ended is not a verdict.

    Args:
        argv: The program and its arguments; no shell.
        read: Returns findings from the kept output, the exit code (negative: the signal
            that ended it) and a function that tells whether a path is a file of the
            folder.
        suffix: The suffix of the paths that it judges; without such paths it does not
            run.
        is_final: Whether its verdict depends on the content alone. The exit code of a
            command does not distinguish a bad file from a failure of the command.
        variables: What it inherits besides the variables in GATE_ENV and in
            :data:`INHERITED`.
    """

    argv: tuple[str, ...]
    read: Callable[[str, int, IsFile], list[Finding]]
    suffix: str = ""
    is_final: bool = False
    variables: Sequence[str] = ()


def syntax_check(grammar: str) -> Check:
    """
    Return the check that compiles each new or changed ``.py`` with the grammar of one
    Python.
    """
    return Check(
        (sys.executable, "-I", "-m", "sidecar_runtime.gate.syntax", grammar),
        _read_syntax,
        ".py",
        is_final=True,
    )


def _read_syntax(said: str, code: int, _: IsFile) -> list[Finding]:
    if code != 0:
        raise _no_verdict("the syntax check", code, said)
    findings = []
    for line in said.splitlines():
        with suppress(ValueError):  # the first line may be cut off
            findings.append(Finding(*json.loads(line)))
    return findings


def read_command(said: str, code: int, is_file: IsFile) -> list[Finding]:
    """
    Find file positions in a command's output: files of the revision, not libraries or
    clock times.
    """
    if code == 0:
        return []
    if code < 0 or code == _TRY_AGAIN or code >= _FIRST_OF_SHELLS:
        raise _no_verdict("the gate's command", code, said)
    problem = child.last_line(said) or f"the command ended with {child.ending(code)}"
    places = [place.groups() for place in _PLACE.finditer(said) if is_file(place[1])]
    frames = [
        (*frame.groups(), problem)
        for frame in FRAME.finditer(said)
        if is_file(frame[1])
    ]
    found = [
        # A linter that runs on `.` writes `./dag.py`.
        Finding(os.path.normpath(path), int(line), problem.strip()[:PROBLEM_CHARACTERS])
        for path, line, problem in places or frames[-1:]
    ]
    return found or [Finding("", None, problem[:PROBLEM_CHARACTERS])]


def _no_verdict(what: str, code: int, said: str) -> Undecided:
    return Undecided(
        f"{what} ended with {child.ending(code)}: {child.last_line(said) or 'no output'}",
        "Check its output and the container's memory limit.",
    )


# --- the gate


class GateMetrics:
    """
    The metrics of a gate.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.checks = metrics.counter(
            "sidecar_gate_checks_total", "Checks by result.", "result"
        )
        self.refused = metrics.gauge(
            "sidecar_gate_refused",
            "1 while the gate refuses the newest revision, else 0.",
        )
        self.fallback = metrics.gauge(
            "sidecar_gate_fallback",
            "1 while a fallback for a refused revision is published, else 0.",
        )


class RevisionRefused(SidecarError):
    """
    The gate refuses the newest revision; what is published stays.

    Attributes:
        every: All findings.
        findings: The first ones.
        paths: Of all files that are refused.
    """

    def __init__(self, revision: str, findings: Sequence[Finding]) -> None:
        more = f"; {len(findings) - 1} more" if len(findings) > 1 else ""
        super().__init__(
            "revision_refused",
            f"the gate refuses revision {revision}: {findings[0]}{more}",
            "Fix it at the source, or change the pin; until then, what is published stays. "
            "If the gate is wrong, correct it: SIGHUP asks it again.",
        )
        self.revision = revision
        self.every = findings
        self.findings = findings[:NAMED_FINDINGS]
        self.paths = frozenset(finding.path for finding in findings if finding.path)

    def facts(self) -> dict[str, object]:
        """
        Return the facts for the status page.
        """
        return {
            "revision": self.revision,
            "files_refused": len(self.paths),
            "problems": [str(finding) for finding in self.findings],
        }


@dataclass
class _Verdict:
    """
    What is known about a revision.

    Args:
        silences: How many checks had no verdict since the last one that had.
        due_at: When it is checked next; at once, until there is a verdict.
        rest_seconds: How long after the next refusal it is checked again.
    """

    refusal: RevisionRefused | None = None
    silences: int = 0
    due_at: float = 0.0
    rest_seconds: float = FIRST_REST_SECONDS


@dataclass
class Gate:
    """
    Judges revisions, and remembers its verdicts for the life of the process.
    """

    _check: Check
    _settings: GateSettings
    _metrics: GateMetrics
    _clock: Callable[[], float] = time.monotonic
    _verdicts: dict[str, _Verdict] = field(default_factory=dict)

    def ask_again(self) -> None:
        """
        Repeat the check for each refusal when its revision is judged next: SIGHUP asks
        for it.

        That may be some cycles later, because a cycle can fail before it has a revision
        to judge.
        """
        for verdict in self._verdicts.values():
            if verdict.refusal:
                verdict.due_at = 0.0

    def due_at(self, revision: str) -> float:
        """
        Return when to check this revision: at once if it has no verdict yet, never if
        its verdict is final.
        """
        return self._verdict(revision).due_at

    def recall(self, revision: str) -> RevisionRefused | None:
        """
        Return the remembered refusal of a revision, unless its check should be
        repeated.
        """
        verdict = self._verdict(revision)
        return None if self._clock() >= verdict.due_at else verdict.refusal

    def silence(self, revision: str, last: Undecided) -> RevisionRefused | None:
        """
        Return the refusal for a revision that repeatedly got no verdict; None before
        that.
        """
        if self._verdict(revision).silences < UNDECIDED_TIMES:
            return None
        return RevisionRefused(revision, [Finding("", None, last.message)])

    def judge(
        self, revision: str, folder: str, changed: Collection[str], fence: Fence
    ) -> RevisionRefused | None:
        """
        Return why the revision must not be published, or None if it is accepted.

        Args:
            folder: The folder with the whole revision.
            changed: Its paths that are new or changed since the published revision.

        Raises:
            Undecided: The check reached no verdict and should be repeated.
            CycleAbandoned: The fence was revoked; the check was killed.
        """
        verdict = self._verdict(revision)
        if self._clock() >= verdict.due_at:
            try:
                self._note(verdict, self.examine(revision, folder, changed, fence))
            except Undecided:
                self._metrics.checks("undecided").inc()
                verdict.silences += 1
                raise
        return verdict.refusal

    def _verdict(self, revision: str) -> _Verdict:
        if revision not in self._verdicts and len(self._verdicts) >= VERDICTS:
            del self._verdicts[next(iter(self._verdicts))]
        return self._verdicts.setdefault(revision, _Verdict())

    def examine(
        self, revision: str, folder: str, changed: Collection[str], fence: Fence
    ) -> RevisionRefused | None:
        """
        Run the check as :meth:`judge` does, but without remembering, counting or
        logging it.
        """
        check = self._check
        seconds = self._settings.gate_timeout_seconds
        paths = [path for path in changed if path.endswith(check.suffix)]
        if check.suffix and not paths:
            return None
        given = b"".join(os.fsencode(path) + b"\0" for path in paths)
        said = child.Kept()
        command = child.Command(
            check.argv,
            self._environment(folder, revision),
            folder,
            given,
            title=f"the gate ({(self._settings.gate_command or ['syntax'])[0]})",
        )
        try:
            code = child.run(command, fence, seconds, said)
        except child.DeadlinePassed:
            raise Undecided(
                f"{command.title} took longer than {seconds:g} s for "
                f"{counted(len(paths), 'file')}",
                "Find out what it waits for, or raise "
                f"{self._settings.variable_prefix}GATE_TIMEOUT or the CPU limit.",
            ) from None
        except OSError as error:
            raise Undecided(
                f"the gate's command cannot be started: {error}",
                "Check the program in the image and the container's memory limit.",
            ) from error

        def is_file(path: str) -> bool:
            # A traceback ends in libraries, which exist elsewhere.
            is_inside = not os.path.normpath(path).startswith(("/", "../"))
            return is_inside and os.path.isfile(os.path.join(folder, path))

        findings = check.read(str(said).replace(f"{folder}/", ""), code, is_file)
        return RevisionRefused(revision, findings) if findings else None

    def _note(self, verdict: _Verdict, refusal: RevisionRefused | None) -> None:
        told = verdict.refusal.findings if verdict.refusal else []
        verdict.refusal = refusal
        verdict.silences = 0
        verdict.due_at = float("inf")
        self._metrics.checks("refused" if refusal else "accepted").inc()
        if refusal is None:
            return
        if not self._check.is_final:
            verdict.due_at = self._clock() + verdict.rest_seconds
            verdict.rest_seconds = min(LONGEST_REST_SECONDS, 2 * verdict.rest_seconds)
        if refusal.findings != told:
            log.error(
                "revision_refused",
                revision=refusal.revision,
                **refusal.findings[0]._asdict(),
                problems=[finding._asdict() for finding in refusal.findings],
                files_refused=len(refusal.paths),
            )

    def _environment(self, folder: str, revision: str) -> dict[str, str]:
        names = (*INHERITED, *self._settings.gate_env, *self._check.variables)
        return {name: os.environ[name] for name in names if name in os.environ} | {
            "GATE_FOLDER": folder,
            "GATE_REVISION": revision,
            "PYTHONDONTWRITEBYTECODE": "1",  # the folder is published as it is
            # `python3 -m pylint` must not run a pylint.py of the source. Python 3.11
            # and later: https://docs.python.org/3/using/cmdline.html#envvar-PYTHONSAFEPATH
            "PYTHONSAFEPATH": "1",
        }


def make_gate(settings: GateSettings, metrics: GateMetrics) -> Gate | None:
    """
    Return the gate that the settings define; None if it is off.
    """
    if settings.gate == "off":
        return None
    if settings.gate_command is not None:
        return Gate(Check(settings.gate_command, read_command), settings, metrics)
    return Gate(syntax_check(settings.gate_grammar or GRAMMARS[-1]), settings, metrics)
