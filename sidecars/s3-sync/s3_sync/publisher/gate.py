"""
The gate before an upload: the daemon's gate, to which every file is new, or a real
Airflow.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from s3_sync.metrics import SyncMetrics
from s3_sync.publisher.folder import FolderError, Parcel, scratch
from s3_sync.release.format import time_text
from s3_sync.settings import Settings
from sidecar_runtime import __version__
from sidecar_runtime.child import ending
from sidecar_runtime.errors import Problem, SettingsError, SidecarError, counted
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import Check, Finding, Gate, IsFile, Undecided, make_gate

NAMED = 20
RUNNER = Path(__file__).with_name("airflow_runner.py")
# The only parts of the user's AIRFLOW_HOME that are used: airflow.cfg names the
# database.
HOME_FOLDERS = ("config", "plugins")
# Where Python and its packages find modules and libraries; the daemon's gate does not
# need them.
VARIABLES = ("LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONUSERBASE")


class Verdict(NamedTuple):
    """
    What the gate said about files that it accepts.

    Args:
        gate: Its name.
        checked_by: Which Airflow accepted them, when, and what it found; empty for any
            other gate.
        dag_ids: The ids of all DAGs that it loaded, sorted.
        allowed: Problems that were allowed.
    """

    gate: str
    checked_by: str = ""
    dag_ids: Sequence[str] = ()
    allowed: Sequence[str] = ()

    def lines(self) -> list[str]:
        if self.gate == "off":
            return [
                "Not checked: the gate is off (--gate airflow checks with your Airflow)"
            ]
        checked = [f"Checked with {self.checked_by}"] if self.checked_by else []
        return checked + [f"  allowed: {one}" for one in self.allowed[:NAMED]]


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
    allowed: Sequence[re.Pattern[str]] = ()


def find_airflow(
    given: str | None, allowed: Sequence[re.Pattern[str]], environ: Mapping[str, str]
) -> Airflow:
    """
    Return the Airflow for the options of a command.

    Args:
        given: The Python in which it is installed; None: ``python`` on PATH.

    Raises:
        SettingsError: The program does not exist.
    """
    python = shutil.which(given or "python", path=environ.get("PATH"))
    if python is None:
        problem = "is not an executable program; pass the Python of your Airflow"
        raise SettingsError([Problem("--airflow-python", given or "python", problem)])
    home = os.path.expanduser(os.path.expandvars(environ.get("AIRFLOW_HOME", "")))
    # It runs in another folder, where a relative path would name another file.
    return Airflow(os.path.abspath(python), home, allowed)


def judge(settings: Settings, airflow: Airflow | None, parcel: Parcel) -> Verdict:
    """
    Run the gate on a copy of exactly the files of a release.

    Args:
        airflow: The Airflow to use as gate, instead of the gate in the settings.

    Raises:
        RevisionRefused: The gate refuses the files; the error lists file, line and
            reason.
        SidecarError: The gate came to no verdict.
    """
    metrics = SyncMetrics(__version__, "publish").gate
    with scratch() as folder, scratch() as home:
        gate, advice = make_gate(settings, metrics), ""
        answer: dict[str, Any] = {}
        if airflow is not None:
            gate = Gate(_check(airflow, home, answer), settings, metrics)
            advice = " --gate-allow PATTERN accepts errors that match."
        if gate is None:
            return Verdict("off")
        parcel.write(folder)
        try:
            refusal = gate.examine(
                parcel.revision, folder, [*parcel.manifest.files], Fence()
            )
        except Undecided as error:
            said = f"the gate came to no verdict: {error.message}"
            raise SidecarError(
                "gate_undecided", said, f"{error.remedy} Publish again."
            ) from error
        if refusal is not None:
            refusal.advice = f"Fix the files and publish again.{advice}"
            refusal.exit_code = FolderError.exit_code
            raise refusal
        return _verdict(answer) if answer else Verdict(settings.gate)


def _check(airflow: Airflow, home: str, answer: dict[str, Any]) -> Check:
    """
    Return the check that lets an Airflow load the folder.

    Args:
        home: An empty folder, which becomes AIRFLOW_HOME.
        answer: Receives what `airflow_runner` wrote; stays empty if it did not finish.
    """
    for name in HOME_FOLDERS:
        given = os.path.join(airflow.home, name)
        if airflow.home and os.path.isdir(given):
            os.symlink(os.path.abspath(given), os.path.join(home, name))

    def read(said: str, code: int, _: IsFile) -> list[Finding]:
        path = Path(home, "answer")
        if code != 0 or not path.exists():
            last = said.strip().rpartition("\n")[2].strip() or "no output"
            raise Undecided(
                f"{airflow.python} ended with {ending(code)}: {last}",
                "Check that this Python has Airflow (--airflow-python), and that it starts without "
                "any settings, as it does here.",
            )
        answer.update(json.loads(path.read_text()))
        if answer["trouble"]:
            remedy = "Check the memory limit, and whether this s3-sync supports your Airflow."
            raise Undecided(answer["trouble"], remedy)
        answer["findings"] = [Finding(*row) for row in answer["findings"]]
        return [
            one
            for one in answer["findings"]
            if not any(it.search(one.problem) for it in airflow.allowed)
        ]

    return Check((airflow.python, str(RUNNER), home), read, variables=VARIABLES)


def _verdict(answer: Mapping[str, Any]) -> Verdict:
    allowed = answer["findings"]
    found = counted(len(answer["dags"]), "DAG")
    if missing := {one.path for one in allowed}:
        found += f", {counted(len(missing), 'file')} not loaded"
    now = time_text(datetime.now(UTC))
    checked_by = f"Airflow {answer['airflow']} at {now}: {found}"
    return Verdict("airflow", checked_by, answer["dags"], [*map(str, allowed)])
