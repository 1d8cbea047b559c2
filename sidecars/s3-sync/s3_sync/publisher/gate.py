"""
The gate before an upload: the daemon's gate, to which every file is new, or a real Airflow.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from s3_sync.metrics import SyncMetrics
from s3_sync.publisher.folder import FolderError, Parcel, scratch
from s3_sync.release.format import Checked, time_text
from s3_sync.settings import Settings
from sidecar_runtime import __version__
from sidecar_runtime.child import ending
from sidecar_runtime.errors import Problem, SettingsError, SidecarError, counted
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import (
    Check,
    Finding,
    Gate,
    IsFile,
    RevisionRefused,
    Undecided,
    make_gate,
)

NAMED = 20
RUNNER = Path(__file__).with_name("airflow_runner.py")
# The only parts of the user's AIRFLOW_HOME that are used: airflow.cfg names the database.
HOME_FOLDERS = ("config", "plugins")
# Where Python and its packages find modules and libraries; the daemon's gate does not need them.
VARIABLES = ("LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONUSERBASE")


class Refused(FolderError):
    """
    The gate refuses the files.

    Attributes:
        findings: The problems that are known.
        details: The first of them, as lines of text.
    """

    def __init__(self, refusal: RevisionRefused, advice: str) -> None:
        said = f"the gate refuses {counted(refusal.files_refused, 'file')}"
        super().__init__("revision_refused", said, f"Fix the files and publish again.{advice}")
        self.findings = refusal.findings
        self.details = [str(one) for one in refusal.findings]
        if more := max(refusal.files_refused - len(self.details), 0):
            self.details.append(f"and {more} more")


class Verdict(NamedTuple):
    """
    What the gate said about files that it accepts.

    Args:
        gate: Its name.
        checked: What Airflow found; None for any other gate.
        allowed: Problems that were allowed.
    """

    gate: str
    checked: Checked | None = None
    allowed: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        found = self.checked._asdict() | {"allowed": self.allowed} if self.checked else None
        return {"gate": self.gate, "airflow": found}

    def lines(self) -> list[str]:
        if self.gate == "off":
            return ["Not checked: the gate is off (--gate airflow checks with your Airflow)"]
        checked = [f"Checked with {self.checked}"] if self.checked else []
        return [*checked, *(f"  allowed: {one}" for one in self.allowed[:NAMED])]


class Airflow(NamedTuple):
    """
    An Airflow that loads folders.

    Args:
        python: The Python in which it is installed.
        home: The user's AIRFLOW_HOME; empty if it is not set.
        allowed: Regular expressions: which errors are accepted.
    """

    python: str
    home: str
    allowed: tuple[str, ...] = ()


def find_airflow(given: str | None, allowed: Sequence[str], environ: Mapping[str, str]) -> Airflow:
    """
    Return the Airflow for the options of a command.

    Args:
        given: The Python in which it is installed; None: ``python`` on PATH.

    Raises:
        SettingsError: The program does not exist.
    """
    python = shutil.which(given or "python", path=environ.get("PATH"))
    if python is None:
        raise _no_airflow(given or "python", "is not an executable program")
    home = os.path.expanduser(os.path.expandvars(environ.get("AIRFLOW_HOME", "")))
    # It runs in another folder, where a relative path would name another file.
    return Airflow(os.path.abspath(python), home, tuple(allowed))


def judge(settings: Settings, airflow: Airflow | None, parcel: Parcel) -> Verdict:
    """
    Run the gate on a copy of exactly the files of a release.

    Args:
        airflow: The Airflow to use as gate, instead of the gate in the settings.

    Raises:
        Refused: The gate refuses the files; the error lists file, line and reason.
        SidecarError: The gate came to no verdict.
    """
    metrics = SyncMetrics(__version__, "publish").gate
    with scratch("gate") as folder, scratch("airflow") as place:
        gate, advice = make_gate(settings, metrics), ""
        if airflow is not None:
            gate = Gate(_check(airflow, place), settings, metrics, variables=VARIABLES)
            advice = " --gate-allow PATTERN accepts errors that match."
        if gate is None:
            return Verdict("off")
        parcel.write(folder)
        try:
            refusal = gate.examine(parcel.revision, folder, [*parcel.manifest.files], Fence())
        except Undecided as error:
            raise SidecarError(
                "gate_undecided",
                f"the gate came to no verdict: {error.message}",
                f"Nothing was published. {error.remedy} Then publish again.",
            ) from error
        if refusal is not None:
            raise Refused(refusal, advice)
        return _verdict(_answer(place)) if airflow is not None else Verdict(settings.gate)


def _check(airflow: Airflow, place: str) -> Check:
    """
    Return the check that lets an Airflow load the folder.

    Args:
        place: An empty folder, which becomes AIRFLOW_HOME.
    """
    for name in HOME_FOLDERS:
        given = os.path.join(airflow.home, name)
        if airflow.home and os.path.isdir(given):
            os.symlink(os.path.abspath(given), os.path.join(place, name))

    def read(said: str, code: int, _: IsFile) -> list[Finding]:
        answer = _answer(place)
        if code != 0 or not answer:
            last = next((line for line in reversed(said.splitlines()) if line.strip()), "")
            raise Undecided(
                f"{airflow.python} could not load the folder and ended with {ending(code)}: "
                f"{last.strip()}",
                "Check that this Airflow starts without any settings, as it does here.",
            )
        if "missing" in answer:
            raise _no_airflow(airflow.python, f"has no Airflow: {answer['missing']}")
        if answer["trouble"]:
            remedy = "Check the memory limit, and whether this s3-sync supports your Airflow."
            raise Undecided(answer["trouble"], remedy)
        return [Finding(*row) for row in answer["findings"]]

    return Check((airflow.python, str(RUNNER), place, *airflow.allowed), read)


def _answer(place: str) -> dict[str, Any]:
    """
    Return what `airflow_runner` wrote; empty if it did not finish.
    """
    path = Path(place, "answer")
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _verdict(answer: Mapping[str, Any]) -> Verdict:
    allowed = [Finding(*row) for row in answer["allowed"]]
    not_loaded, now = len({one.path for one in allowed}), time_text(datetime.now(UTC))
    checked = Checked(answer["airflow"], now, answer["dags"], not_loaded)
    return Verdict("airflow", checked, tuple(map(str, allowed)))


def _no_airflow(python: str, problem: str) -> SettingsError:
    said = f"{problem}; pass the Python of your Airflow"
    return SettingsError([Problem("--airflow-python", python, said)])
