"""
The gate before an upload: the daemon's gate, to which every file is new, or a real Airflow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from s3_sync.metrics import SyncMetrics
from s3_sync.publisher.airflow.answer import Broken
from s3_sync.publisher.airflow.check import VARIABLES, Airflow, AirflowCheck, Passed
from s3_sync.publisher.local.folder_errors import NAMED, FolderError
from s3_sync.publisher.local.scratch import scratch, temporary_failed
from s3_sync.settings import PREFIX, Settings
from sidecar_runtime import __version__
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.checks import Undecided
from sidecar_runtime.gate.gate import Gate, RevisionRefused, make_gate


class Refused(FolderError):
    """
    Airflow refuses the folder.

    Args:
        broken: All problems.

    Attributes:
        details: The first problems, as lines of text.
    """

    def __init__(self, broken: Sequence[Broken]) -> None:
        lacks = sorted({one.lacks for one in broken if one.lacks})
        advice = "Fix the files and publish again."
        if lacks:
            advice += f" To allow what only this Airflow lacks: --gate-allow {lacks[0]!r}."
        super().__init__(
            "revision_refused",
            f"Airflow refuses the files; problems: {len(broken)}",
            advice,
        )
        self.broken = broken
        self.details = [line for one in broken[:NAMED] for line in one.lines()]
        if len(broken) > NAMED:
            self.details.append(f"and {len(broken) - NAMED} more")


def judge(
    settings: Settings,
    airflow: Airflow | None,
    revision: str,
    write: Callable[[str], list[str]],
) -> Passed | None:
    """
    Run the gate on a copy of exactly the files that would be released.

    Args:
        airflow: The Airflow to use as gate, instead of the gate in the settings.
        write: Writes the files into a folder, and returns their paths.

    Returns:
        The result of the Airflow check; None for any other gate.

    Raises:
        FolderError: The gate refuses the files; the error lists file, line and reason.
        SidecarError: The gate came to no verdict.
    """
    metrics = SyncMetrics(__version__, "publish").gate
    gate = make_gate(settings, metrics)
    if airflow is None and gate is None:
        return None
    with scratch("gate") as folder:
        if airflow is not None:
            with scratch("airflow") as place:
                check = AirflowCheck(airflow, folder, place)
                gate = Gate(check.check(), settings, metrics, variables=VARIABLES)
                if _ask(gate, revision, folder, write):
                    raise Refused(check.refused)
                return check.passed()
        if gate is not None and (refused := _ask(gate, revision, folder, write)):
            texts = [str(finding) for finding in refused.findings[:NAMED]]
            if refused.files_refused > len(texts):
                texts.append(f"{refused.files_refused - len(texts)} more")
            said = f"the gate refuses the files: {'; '.join(texts)}"
            raise FolderError("revision_refused", said, "Fix the files and publish again.")
    return None


def _ask(
    gate: Gate, revision: str, folder: str, write: Callable[[str], list[str]]
) -> RevisionRefused | None:
    try:
        paths = write(folder)
    except OSError as error:
        raise temporary_failed(f"cannot copy the files for the gate to {folder}", error) from error
    try:
        return gate.examine(revision, folder, paths, Fence())
    except Undecided as error:
        remedy = error.remedy.replace(f"{PREFIX}GATE_TIMEOUT", "--gate-timeout")  # it overrides it
        raise SidecarError(
            "gate_undecided",
            f"the gate came to no verdict: {error.message}",
            f"Nothing was published. {remedy} Then publish again.",
        ) from error
