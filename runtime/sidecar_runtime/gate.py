"""
The gate: the check that a revision must pass before it is published.

Its unit is the revision: all of it is published, or nothing. A verdict is final for the process:
what was refused once is not looked at again, and is not a failure either, so the source is polled
as usual for the revision that mends it.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from sidecar_runtime import syntax
from sidecar_runtime.errors import Problem, SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.settings import CommonSettings, choice, duration, setting

# Of what a check says; a command may say anything, for ever.
KEPT_BYTES = 64 << 10
REAP_SECONDS = 1.0
NAMED_FINDINGS = 20
VERDICTS = 100
PROBLEM_CHARACTERS = 500

# "dags/sales.py:12: problem", as compilers and linters write, and a frame of a Python traceback.
_PLACE = re.compile(r"^(?P<path>[^\s:][^:]*):(?P<line>\d+)(?::\d+)?:?\s+(?P<problem>\S.*)$")
_FRAME = re.compile(r'^\s*File "(?P<path>[^"]+)", line (?P<line>\d+)')

log = get_logger("gate")


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


grammar.allowed = "a version of Python such as 3.11, not newer than the sidecar's"  # type: ignore[attr-defined]


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


command_line.allowed = "a program in the image and its arguments; no shell"  # type: ignore[attr-defined]


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
        "compiles; or a command of yours.",
    )
    gate_grammar: tuple[int, int] | None = setting(
        "GATE_GRAMMAR",
        grammar,
        text="The Python whose grammar `syntax` goes by: that of your Airflow image. Unset: the "
        "sidecar's own.",
    )
    gate_command: tuple[str, ...] | None = setting(
        "GATE_COMMAND",
        command_line,
        text="The command of `command`; it runs in the folder of the whole revision, and exit "
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
    found = []
    if (settings.gate == "command") != (settings.gate_command is not None):
        command = shlex.join(settings.gate_command or ())
        found.append(
            Problem(
                f"{prefix}GATE_COMMAND", command, f"goes with {prefix}GATE=command, only with it"
            )
        )
    if settings.gate != "syntax" and settings.gate_grammar is not None:
        version = ".".join(map(str, settings.gate_grammar))
        found.append(
            Problem(
                f"{prefix}GATE_GRAMMAR", version, f"goes with {prefix}GATE=syntax, only with it"
            )
        )
    if settings.gate != "off" and settings.gate_timeout_seconds >= settings.timeout_seconds:
        found.append(
            Problem(
                f"{prefix}GATE_TIMEOUT",
                f"{settings.gate_timeout_seconds:g}",
                f"is not less than {prefix}TIMEOUT, which is {settings.timeout_seconds:g} s",
            )
        )
    return found


class GateMetrics:
    """
    What a gate adds to the metrics of a sidecar.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.checks = metrics.counter_by(
            "result", "sidecar_gate_checks_total", "Revisions that the gate judged, by result."
        )
        self.refused = metrics.gauge(
            "sidecar_gate_refused", "1 while the gate refuses the newest revision, else 0."
        )


def make_gate(settings: GateSettings, metrics: GateMetrics) -> Gate | None:
    """
    Return the gate that the settings ask for; None where it is off.
    """
    if settings.gate == "off":
        return None
    if settings.gate_command is not None:
        check = command_check(settings.gate_command)
    else:
        check = syntax_check(settings.gate_grammar or syntax.NEWEST)
    return Gate(check, settings.gate_timeout_seconds, metrics)


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


class RevisionRefused(SidecarError):
    """
    The gate refuses the newest revision; the last good one stays published.
    """

    def __init__(self, revision: str, findings: Sequence[Finding]) -> None:
        more = f"; {len(findings) - 1} more" if len(findings) > 1 else ""
        super().__init__(
            "revision_refused",
            f"the gate refuses revision {revision}: {findings[0]}{more}",
            "Mend it at the source; until then the last good revision stays published.",
        )
        self.revision = revision
        self.findings = findings[:NAMED_FINDINGS]
        self.files_refused = len({finding.path for finding in findings if finding.path})

    def facts(self) -> dict[str, object]:
        """
        Return what the status page shows of it.
        """
        return {
            "revision": self.revision,
            "files_refused": self.files_refused,
            "problems": [str(finding) for finding in self.findings],
        }


IsFile = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Check:
    """
    A program that judges a folder: exit code 0 accepts.

    It runs in the folder, in a process group of its own, and gets the new and changed paths on
    standard input, each ended by a NUL.

    Args:
        argv: The program and its arguments; no shell.
        read: From the end of its output, its exit code (negative: the signal that ended it) and
            whether a path is a file of the folder, to findings.
        suffix: Of the paths that it judges; without any of them it has nothing to say.
        is_head_kept: Whether the beginning of a long output counts, and not its end.
    """

    argv: tuple[str, ...]
    read: Callable[[str, int, IsFile], list[Finding]]
    suffix: str = ""
    is_head_kept: bool = False


def syntax_check(grammar: tuple[int, int]) -> Check:
    """
    Return the check that compiles each new or changed ``.py`` by the grammar of one Python.
    """
    version = f"{grammar[0]}.{grammar[1]}"
    argv = (sys.executable, "-I", "-m", "sidecar_runtime.syntax", version)
    return Check(argv, _read_syntax, ".py", is_head_kept=True)


def command_check(argv: Sequence[str]) -> Check:
    """
    Return the check that asks a program of the user's.
    """
    return Check(tuple(argv), _read_command)


class Gate:
    """
    Judges revisions, each once; remembers its verdicts for the life of the process.
    """

    def __init__(self, check: Check, timeout_seconds: float, metrics: GateMetrics) -> None:
        self._check = check
        self._timeout_seconds = timeout_seconds
        self._metrics = metrics
        self._verdicts: dict[str, RevisionRefused | None] = {}

    def judge(
        self, revision: str, folder: str, changed: Collection[str], fence: Fence
    ) -> RevisionRefused | None:
        """
        Return why the revision may not be published, or None where it may.

        Args:
            folder: Where the whole revision lies.
            changed: Paths in it that are new or changed since what is published.

        Raises:
            SidecarError: ``gate_failed``: the check could not be made; there is no verdict.
            CycleAbandoned: The fence was revoked; the check is killed.
        """
        if revision not in self._verdicts:
            verdict = self._run(revision, folder, changed, fence)
            self._verdicts[revision] = verdict
            if len(self._verdicts) > VERDICTS:
                del self._verdicts[next(iter(self._verdicts))]
            self._metrics.checks("refused" if verdict else "accepted").inc()
            if verdict:
                _tell(verdict)
        refused = self._verdicts[revision]
        self._metrics.refused.set(refused is not None)
        return refused

    def rest(self) -> None:
        """
        Note that nothing waits for a verdict: the newest revision is published.
        """
        self._metrics.refused.set(0)

    def _run(
        self, revision: str, folder: str, changed: Collection[str], fence: Fence
    ) -> RevisionRefused | None:
        paths = [path for path in changed if path.endswith(self._check.suffix)]
        if self._check.suffix and not paths:
            return None
        environment = {
            **os.environ,
            "GATE_FOLDER": folder,
            "GATE_REVISION": revision,
            "PYTHONDONTWRITEBYTECODE": "1",  # the folder is to be published as it is
        }
        try:
            said, code = _call(
                self._check, folder, environment, paths, self._timeout_seconds, fence
            )
        except TimeoutError:
            if self._check.suffix:  # a compiler does not hang: it has too many files for its CPU
                raise SidecarError(
                    "gate_failed",
                    f"{len(paths)} files were not checked within {self._timeout_seconds:g} s",
                    "Raise the GATE_TIMEOUT setting, or the container's CPU limit.",
                ) from None
            findings = [Finding("", None, f"no verdict within {self._timeout_seconds:g} s")]
        except OSError as error:
            raise SidecarError(
                "gate_failed",
                f"the gate's command cannot be started: {error}",
                "The last good revision stays. Look at the program in the image, and its memory.",
            ) from error
        else:
            findings = self._check.read(
                said.replace(f"{folder}/", ""),
                code,
                lambda path: os.path.isfile(os.path.join(folder, path)),
            )
        return RevisionRefused(revision, findings) if findings else None


def _tell(refused: RevisionRefused) -> None:
    first = refused.findings[0]
    log.error(
        "revision_refused",
        revision=refused.revision,
        path=first.path,
        line=first.line,
        problem=first.problem,
        problems=[asdict(finding) for finding in refused.findings],
        files_refused=refused.files_refused,
    )


def _call(
    check: Check,
    folder: str,
    environment: Mapping[str, str],
    paths: Sequence[str],
    timeout_seconds: float,
    fence: Fence,
) -> tuple[str, int]:
    """
    Run a check; return the end of what it said, and its exit code.

    Raises:
        TimeoutError: It took too long; it and its children are killed.
        CycleAbandoned: The fence was revoked; the same.
        OSError: It cannot be started.
    """
    with subprocess.Popen(
        check.argv,
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as child:

        def kill() -> None:
            if child.returncode is None:  # after that the number may be another's
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)

        fence.on_revoke(kill)
        try:
            said = _talk(
                child,
                b"".join(os.fsencode(path) + b"\0" for path in paths),
                time.monotonic() + timeout_seconds,
                is_head_kept=check.is_head_kept,
            )
        finally:
            kill()  # with all that it left running
    _reap(child.pid)
    if fence.is_revoked:
        raise CycleAbandoned
    return said.decode(errors="replace"), child.returncode


def _reap(group: int) -> None:
    """
    Wait for what a killed group left to us: as process 1 we inherit the children of a check.

    One that the kernel does not let go of is not waited for longer than a second.
    """
    until = time.monotonic() + REAP_SECONDS
    with suppress(ChildProcessError):
        while time.monotonic() < until:
            if os.waitpid(-group, os.WNOHANG) == (0, 0):
                time.sleep(0.01)


def _talk(
    child: subprocess.Popen[bytes], question: bytes, until: float, *, is_head_kept: bool
) -> bytes:
    """
    Send the question and return what is kept of the answer, once the child itself has ended.

    The child is not reaped: its number stays its group's until that is killed.

    Raises:
        TimeoutError: It has not ended by then (monotonic).
    """
    assert child.stdin is not None and child.stdout is not None
    told, heard = child.stdin.fileno(), child.stdout.fileno()
    os.set_blocking(told, False)
    os.set_blocking(heard, False)
    said = b""
    ended = os.pidfd_open(child.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(ended, selectors.EVENT_READ)
            selector.register(heard, selectors.EVENT_READ)
            selector.register(told, selectors.EVENT_WRITE)
            while True:
                left = until - time.monotonic()
                ready = {key.fd for key, _ in selector.select(max(0.0, left))}
                if not ready and left <= 0:
                    raise TimeoutError
                if told in ready:
                    with suppress(BrokenPipeError):
                        question = question[os.write(told, question[: 1 << 16]) :]
                        if question:
                            continue
                    selector.unregister(told)
                    child.stdin.close()
                if heard in ready:
                    said += (block := os.read(heard, 1 << 16))
                    said = said[:KEPT_BYTES] if is_head_kept else said[-KEPT_BYTES:]
                    if not block:
                        selector.unregister(heard)
                elif ended in ready:
                    return said
    finally:
        os.close(ended)


def _read_syntax(said: str, code: int, _: IsFile) -> list[Finding]:
    if code != 0:
        raise SidecarError(
            "gate_failed",
            f"the syntax check ended with {_ending(code)}: {_last_line(said)}",
            "The last good revision stays. Look at the container's memory limit.",
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
    findings: list[Finding] = []
    frame: re.Match[str] | None = None
    for line in said.splitlines():
        if (place := _PLACE.match(line)) and is_file(place["path"]):
            findings.append(_finding(place["path"], place["line"], place["problem"]))
        if (inner := _FRAME.match(line)) and is_file(inner["path"]):
            frame = inner
    if findings:
        return findings
    problem = _last_line(said) or f"the command ended with {_ending(code)}"
    return [_finding(frame["path"], frame["line"], problem) if frame else _whole(problem)]


def _finding(path: str, line: str, problem: str) -> Finding:
    return Finding(path, int(line), problem.strip()[:PROBLEM_CHARACTERS])


def _whole(problem: str) -> Finding:
    return Finding("", None, problem[:PROBLEM_CHARACTERS])


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
