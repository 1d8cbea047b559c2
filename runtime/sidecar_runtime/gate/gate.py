"""
The gate: the check that a revision must pass before it is published.

Its unit is the revision: all of it is published, or nothing. A verdict is final for the process,
except a command's refusal: it may be a failure of the command itself, so the check is repeated,
less and less often. SIGHUP repeats the check for any refusal. A refusal is not a failure: the
source is polled as usual for the revision that fixes it. Without a verdict the cycle fails, and the
next one repeats the check.
"""

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

from sidecar_runtime import child
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate import syntax
from sidecar_runtime.gate.checks import Check, Finding, Undecided, command_check, syntax_check
from sidecar_runtime.gate.settings import GateSettings
from sidecar_runtime.logs import get_logger
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.printable import counted

NAMED_FINDINGS = 20
VERDICTS = 100
UNDECIDED_TIMES = 3
# The first and the longest wait before a command's refusal is checked again.
FIRST_REST_SECONDS = 30.0
LONGEST_REST_SECONDS = 900.0
# The only variables that a check inherits, besides those in GATE_ENV: others may be secrets.
INHERITED = ("PATH", "HOME", "LANG", "TZ")

log = get_logger("gate")


class GateMetrics:
    """
    The metrics of a gate.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.checks = metrics.counter_by(
            "result", "sidecar_gate_checks_total", "Checks that the gate ran, by result."
        )
        self.refused = metrics.gauge(
            "sidecar_gate_refused", "1 while the gate refuses the newest revision, else 0."
        )
        self.fallback = metrics.gauge(
            "sidecar_gate_fallback",
            "1 while a fallback for a refused revision is published, else 0.",
        )


class RevisionRefused(SidecarError):
    """
    The gate refuses the newest revision; what is published stays.

    Args:
        pin: The setting that pins the revision, or empty: a pinned revision has no fallback.
    """

    def __init__(self, revision: str, findings: Sequence[Finding], pin: str = "") -> None:
        more = f"; {len(findings) - 1} more" if len(findings) > 1 else ""
        pinned = f", which {pin} pins" if pin else ""
        super().__init__(
            "revision_refused",
            f"the gate refuses revision {revision}{pinned}: {findings[0]}{more}",
            f"A pinned revision has no fallback: change {pin}, or unset it."
            if pin
            else "Fix it at the source. Until then, what is published stays.",
        )
        self.revision = revision
        self.findings = findings[:NAMED_FINDINGS]
        self.paths = frozenset(finding.path for finding in findings if finding.path)
        self.files_refused = len(self.paths)

    def facts(self) -> dict[str, object]:
        """
        Return the facts for the status page.
        """
        return {
            "revision": self.revision,
            "files_refused": self.files_refused,
            "problems": [str(finding) for finding in self.findings],
        }


@dataclass(slots=True)
class _Verdict:
    """
    What is known about a revision.

    Args:
        times: How many checks had a verdict.
        silences: How many had none since.
        due_at: When the check is repeated.
    """

    refusal: RevisionRefused | None = None
    times: int = 0
    silences: int = 0
    due_at: float = float("inf")


class Gate:
    """
    Judges revisions, and remembers its verdicts for the life of the process.
    """

    def __init__(
        self,
        check: Check,
        settings: GateSettings,
        metrics: GateMetrics,
        *,
        variables: Sequence[str] = (),
        pin: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            variables: Names of variables that the check inherits besides those in the settings and
                in :data:`INHERITED`.
            pin: As in :func:`make_gate`.
        """
        self._check = check
        self._settings = settings
        self._metrics = metrics
        self._variables = (*INHERITED, *settings.gate_env, *variables)
        self._pin = pin
        self._clock = clock
        self._verdicts: dict[str, _Verdict] = {}

    def ask_again(self) -> None:
        """
        Repeat the check for each refusal when its revision is judged next: SIGHUP asks for it.

        That may be some cycles later, because a cycle can fail before it has a revision to judge.
        """
        for verdict in self._verdicts.values():
            if verdict.refusal is not None:
                verdict.due_at = self._clock()

    def recall(self, revision: str) -> RevisionRefused | None:
        """
        Return the remembered refusal of a revision, unless its check should be repeated.
        """
        verdict = self._verdicts.get(revision, _Verdict())
        return None if self.is_due(revision) else verdict.refusal

    def is_due(self, revision: str) -> bool:
        """
        Whether a refusal of this revision is remembered, and its check should be repeated.
        """
        return self._clock() >= self._verdicts.get(revision, _Verdict()).due_at

    def silence(self, revision: str, last: Undecided) -> RevisionRefused | None:
        """
        Return the refusal for a revision that repeatedly got no verdict; None before that.
        """
        if self._verdicts.get(revision, _Verdict()).silences < UNDECIDED_TIMES:
            return None
        return RevisionRefused(revision, [Finding("", None, last.message)], self._pin)

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
        verdict = self._verdicts.get(revision, _Verdict())
        if not verdict.times or self.is_due(revision):
            self._verdicts.pop(revision, None)
            self._verdicts[revision] = verdict  # the newest is last
            if len(self._verdicts) > VERDICTS:
                del self._verdicts[next(iter(self._verdicts))]
            try:
                self._note(verdict, self.examine(revision, folder, changed, fence))
            except Undecided:
                self._metrics.checks("undecided").inc()
                verdict.silences += 1
                raise
        self.rest(is_refused=verdict.refusal is not None)
        return verdict.refusal

    def rest(self, *, is_refused: bool = False) -> None:
        """
        Set the metric for the newest revision, if that is not the revision judged last.
        """
        self._metrics.refused.set(is_refused)

    def examine(
        self, revision: str, folder: str, changed: Collection[str], fence: Fence
    ) -> RevisionRefused | None:
        """
        Run the check as :meth:`judge` does, but without remembering, counting or logging it.
        """
        check, seconds = self._check, self._settings.gate_timeout_seconds
        paths = [path for path in changed if path.endswith(check.suffix)]
        if check.suffix and not paths:
            return None
        given = b"".join(os.fsencode(path) + b"\0" for path in paths)
        said = child.Kept(is_head=check.is_head_kept)
        environ = self._environment(folder, revision)
        command = child.Command(check.argv, environ, folder, given)
        try:
            code = child.run(command, fence, seconds, said)
        except child.DeadlinePassed:
            raise Undecided(
                f"the check of {counted(len(paths), 'file')} took longer than {seconds:g} s",
                f"Raise {self._settings.variable_prefix}GATE_TIMEOUT or the container's CPU limit.",
            ) from None
        except OSError as error:
            raise Undecided(
                f"the gate's command cannot be started: {error}",
                "Check the program in the image and the container's memory limit.",
            ) from error

        def is_file(path: str) -> bool:
            # A traceback ends in libraries, which exist elsewhere.
            is_inside = not os.path.isabs(path) and os.path.normpath(path).split("/")[0] != ".."
            return is_inside and os.path.isfile(os.path.join(folder, path))

        findings = check.read(str(said).replace(f"{folder}/", ""), code, is_file)
        return RevisionRefused(revision, findings, self._pin) if findings else None

    def _note(self, verdict: _Verdict, refusal: RevisionRefused | None) -> None:
        told = verdict.refusal.findings if verdict.refusal else []
        verdict.refusal, verdict.silences, verdict.due_at = refusal, 0, float("inf")
        if refusal is not None and not self._check.is_final:
            rest = FIRST_REST_SECONDS * 2.0 ** min(verdict.times, 32)
            verdict.due_at = self._clock() + min(LONGEST_REST_SECONDS, rest)
        verdict.times += 1
        self._metrics.checks("refused" if refusal else "accepted").inc()
        if refusal is not None and refusal.findings != told:
            log.error(
                "revision_refused",
                revision=refusal.revision,
                **asdict(refusal.findings[0]),
                problems=[asdict(finding) for finding in refusal.findings],
                files_refused=refusal.files_refused,
            )

    def _environment(self, folder: str, revision: str) -> Mapping[str, str]:
        inherited = {name: os.environ[name] for name in self._variables if name in os.environ}
        return inherited | {
            "GATE_FOLDER": folder,
            "GATE_REVISION": revision,
            "PYTHONDONTWRITEBYTECODE": "1",  # the folder is published as it is
        }


def make_gate(settings: GateSettings, metrics: GateMetrics, *, pin: str = "") -> Gate | None:
    """
    Return the gate that the settings define; None if it is off.

    Args:
        pin: The setting that pins a revision; empty if none is pinned.
    """
    if settings.gate == "off":
        return None
    check = syntax_check(settings.gate_grammar or syntax.NEWEST)
    if settings.gate_command is not None:
        check = command_check(settings.gate_command)
    return Gate(check, settings, metrics, pin=pin)
