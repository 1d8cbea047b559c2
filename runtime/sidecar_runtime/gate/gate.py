"""
The gate: the check that a revision must pass before it is published.

Its unit is the revision: all of it is published, or nothing. A verdict is final for the process,
but for a command's refusal: a command that failed by itself says no more than that, so it is asked
again, less and less often; any refusal is looked at again where a person asks (SIGHUP). A refusal
is no failure, so the source is polled as usual for the revision that fixes it. Where there is no
verdict the cycle fails, and the next one asks again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from sidecar_runtime import child
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate import syntax
from sidecar_runtime.gate.checks import Check, Finding, Undecided, command_check, syntax_check
from sidecar_runtime.gate.settings import GateSettings
from sidecar_runtime.logs import get_logger
from sidecar_runtime.metrics import Metrics

NAMED_FINDINGS = 20
VERDICTS = 100
UNDECIDED_TIMES = 3
# Until a command's refusal is looked at again: at first, and at most.
FIRST_REST_SECONDS = 30.0
LONGEST_REST_SECONDS = 900.0
# What a check gets of our environment, which is full of secrets, besides what the settings list.
INHERITED = ("PATH", "HOME", "LANG", "TZ")

_Known = TypeVar("_Known")

log = get_logger("gate")


class GateMetrics:
    """
    What a gate adds to the metrics of a sidecar.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.checks = metrics.counter_by(
            "result", "sidecar_gate_checks_total", "Checks that the gate made, by result."
        )
        self.refused = metrics.gauge(
            "sidecar_gate_refused", "1 while the gate refuses the newest revision, else 0."
        )
        self.fallback = metrics.gauge(
            "sidecar_gate_fallback",
            "1 while what is published is a fallback for a refused revision, else 0.",
        )


def make_gate(settings: GateSettings, metrics: GateMetrics, *, pin: str = "") -> Gate | None:
    """
    Return the gate that the settings ask for; None where it is off.

    Args:
        pin: The setting that pins the one revision that counts; empty where none does.
    """
    if settings.gate == "off":
        return None
    if settings.gate_command is not None:
        check = command_check(settings.gate_command)
    else:
        check = syntax_check(settings.gate_grammar or syntax.NEWEST)
    return Gate(check, settings.gate_timeout_seconds, metrics, settings.gate_env, pin=pin)


class RevisionRefused(SidecarError):
    """
    The gate refuses the newest revision; the last good one stays published.

    Args:
        pin: The setting that pins it, where one does: it is obeyed, so nothing is shown instead.
    """

    def __init__(self, revision: str, findings: Sequence[Finding], pin: str = "") -> None:
        more = f"; {len(findings) - 1} more" if len(findings) > 1 else ""
        pinned = f", which {pin} pins" if pin else ""
        super().__init__(
            "revision_refused",
            f"the gate refuses revision {revision}{pinned}: {findings[0]}{more}",
            f"A pin is obeyed, so no other is published instead: change {pin}, or unset it."
            if pin
            else "Fix it at the source; until then the last good revision stays published.",
        )
        self.revision = revision
        self.findings = findings[:NAMED_FINDINGS]
        self.paths = frozenset(finding.path for finding in findings if finding.path)
        self.files_refused = len(self.paths)

    def facts(self) -> dict[str, object]:
        """
        Return what the status page shows of it.
        """
        return {
            "revision": self.revision,
            "files_refused": self.files_refused,
            "problems": [str(finding) for finding in self.findings],
        }


@dataclass(slots=True)
class _Verdict:
    refusal: RevisionRefused | None
    times: int = 1
    due_at: float = float("inf")


class Gate:
    """
    Judges revisions; remembers its verdicts for the life of the process.
    """

    def __init__(
        self,
        check: Check,
        timeout_seconds: float,
        metrics: GateMetrics,
        variables: Sequence[str] = (),
        *,
        pin: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            variables: The names of those that the check gets besides :data:`INHERITED`.
            pin: As :func:`make_gate`.
        """
        self._check = check
        self._timeout_seconds = timeout_seconds
        self._metrics = metrics
        self._variables = (*INHERITED, *variables)
        self._pin = pin
        self._clock = clock
        self._verdicts: dict[str, _Verdict] = {}
        self._undecided: dict[str, int] = {}

    def ask_again(self) -> None:
        """
        Look at each refusal again when its revision is judged next: a person asks.

        That may be some cycles later, as a cycle can fail before it has anything to be judged.
        """
        for verdict in self._verdicts.values():
            if verdict.refusal is not None:
                verdict.due_at = self._clock()

    def is_due(self, revision: str) -> bool:
        """
        Whether a refusal of this revision is remembered, and to be looked at again.
        """
        verdict = self._verdicts.get(revision)
        return verdict is not None and self._clock() >= verdict.due_at

    def silence(self, revision: str, last: Undecided) -> RevisionRefused | None:
        """
        Return the refusal that no verdict counts as where one is needed; None while it is too soon.
        """
        if self._undecided.get(revision, 0) < UNDECIDED_TIMES:
            return None
        return RevisionRefused(revision, [Finding("", None, last.message)], self._pin)

    def judge(
        self, revision: str, folder: str, changed: Collection[str], fence: Fence
    ) -> RevisionRefused | None:
        """
        Return why the revision may not be published, or None where it may.

        Args:
            folder: Where the whole revision lies.
            changed: Paths in it that are new or changed since what is published.

        Raises:
            Undecided: There is no verdict; ask again.
            CycleAbandoned: The fence was revoked; the check is killed.
        """
        if revision not in self._verdicts or self.is_due(revision):
            try:
                refusal = self.examine(revision, folder, changed, fence)
            except Undecided:
                self._metrics.checks("undecided").inc()
                _keep(self._undecided, revision, self._undecided.get(revision, 0) + 1)
                raise
            self._note(revision, refusal)
        refused = self._verdicts[revision].refusal
        self._metrics.refused.set(refused is not None)
        return refused

    def rest(self, *, is_refused: bool = False) -> None:
        """
        Note whether the newest revision is refused, where that was not the last question.
        """
        self._metrics.refused.set(is_refused)

    def examine(
        self, revision: str, folder: str, changed: Collection[str], fence: Fence
    ) -> RevisionRefused | None:
        """
        Make the check; as :meth:`judge`, but nothing is remembered, counted or told.
        """
        paths = [path for path in changed if path.endswith(self._check.suffix)]
        if self._check.suffix and not paths:
            return None
        try:
            said, code = child.ask(
                self._check.argv,
                self._environment(folder, revision),
                folder,
                question=b"".join(os.fsencode(path) + b"\0" for path in paths),
                fence=fence,
                deadline_seconds=self._timeout_seconds,
                is_head_kept=self._check.is_head_kept,
            )
        except child.DeadlinePassed:
            raise Undecided(
                f"{len(paths)} files were not checked within {self._timeout_seconds:g} s",
                "Raise the GATE_TIMEOUT setting, or the container's CPU limit.",
            ) from None
        except OSError as error:
            raise Undecided(
                f"the gate's command cannot be started: {error}",
                "Look at the program in the image, and at the container's memory limit.",
            ) from error
        findings = self._check.read(
            said.decode(errors="replace").replace(f"{folder}/", ""),
            code,
            lambda path: os.path.isfile(os.path.join(folder, path)),
        )
        return RevisionRefused(revision, findings, self._pin) if findings else None

    def _note(self, revision: str, refusal: RevisionRefused | None) -> None:
        before = self._verdicts.get(revision, _Verdict(None, times=0))
        verdict = _Verdict(refusal, before.times + 1)
        if refusal is not None and not self._check.is_final:
            rest = FIRST_REST_SECONDS * 2.0 ** min(before.times, 32)
            verdict.due_at = self._clock() + min(LONGEST_REST_SECONDS, rest)
        _keep(self._verdicts, revision, verdict)
        self._metrics.checks("refused" if refusal else "accepted").inc()
        told = before.refusal.findings if before.refusal else []
        if refusal is not None and refusal.findings != told:
            _tell(refusal)

    def _environment(self, folder: str, revision: str) -> Mapping[str, str]:
        inherited = {name: os.environ[name] for name in self._variables if name in os.environ}
        return inherited | {
            "GATE_FOLDER": folder,
            "GATE_REVISION": revision,
            "PYTHONDONTWRITEBYTECODE": "1",  # the folder is to be published as it is
        }


def _keep(known: dict[str, _Known], revision: str, what: _Known) -> None:
    known.pop(revision, None)
    known[revision] = what
    if len(known) > VERDICTS:
        del known[next(iter(known))]


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
