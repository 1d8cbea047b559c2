"""
The gate: the check that a revision must pass before it is published.

Its unit is the revision: all of it is published, or nothing. A verdict is final for the process:
what was refused once is not looked at again, and is not a failure either, so the source is polled
as usual for the revision that fixes it. Where there is no verdict the cycle fails, and the next
one asks again.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict

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
"""Where nothing is published yet, no verdict that many times counts as a refusal."""
# What a check gets of our environment, which is full of secrets, besides what the settings list.
INHERITED = ("PATH", "HOME", "LANG", "TZ")

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
    return Gate(check, settings.gate_timeout_seconds, metrics, settings.gate_env)


class RevisionRefused(SidecarError):
    """
    The gate refuses the newest revision; the last good one stays published.
    """

    def __init__(self, revision: str, findings: Sequence[Finding]) -> None:
        more = f"; {len(findings) - 1} more" if len(findings) > 1 else ""
        super().__init__(
            "revision_refused",
            f"the gate refuses revision {revision}: {findings[0]}{more}",
            "Fix it at the source; until then the last good revision stays published.",
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


class Gate:
    """
    Judges revisions, each once; remembers its verdicts for the life of the process.
    """

    def __init__(
        self,
        check: Check,
        timeout_seconds: float,
        metrics: GateMetrics,
        variables: Sequence[str] = (),
    ) -> None:
        """
        Args:
            variables: The names of those that the check gets besides :data:`INHERITED`.
        """
        self._check = check
        self._timeout_seconds = timeout_seconds
        self._metrics = metrics
        self._variables = (*INHERITED, *variables)
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
            Undecided: There is no verdict; ask again.
            CycleAbandoned: The fence was revoked; the check is killed.
        """
        if revision not in self._verdicts:
            try:
                verdict = self.examine(revision, folder, changed, fence)
            except Undecided:
                self._metrics.checks("undecided").inc()
                raise
            self._verdicts[revision] = verdict
            if len(self._verdicts) > VERDICTS:
                del self._verdicts[next(iter(self._verdicts))]
            self._metrics.checks("refused" if verdict else "accepted").inc()
            if verdict:
                _tell(verdict)
        refused = self._verdicts[revision]
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
        return RevisionRefused(revision, findings) if findings else None

    def _environment(self, folder: str, revision: str) -> Mapping[str, str]:
        inherited = {name: os.environ[name] for name in self._variables if name in os.environ}
        return inherited | {
            "GATE_FOLDER": folder,
            "GATE_REVISION": revision,
            "PYTHONDONTWRITEBYTECODE": "1",  # the folder is to be published as it is
        }


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
