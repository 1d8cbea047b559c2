"""
The gate before an upload: the daemon's gate, to which every file is new, or a real
Airflow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from s3_sync.metrics import SyncMetrics
from s3_sync.publisher.folder import Parcel, scratch
from s3_sync.settings import Settings
from sidecar_runtime.child import ending
from sidecar_runtime.errors import EXIT_SETTINGS, SidecarError, counted
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import (
    FRAME,
    Check,
    Finding,
    Gate,
    IsFile,
    Undecided,
    make_gate,
)

NAMED = 20
RUNNER = Path(__file__).with_name("airflow_runner.py")


class Verdict(NamedTuple):
    """
    What the gate said about files that it accepts.

    Args:
        gate: Its name.
        text: What was checked, for people.
    """

    gate: str
    text: str


class Airflow(NamedTuple):
    """
    An Airflow that loads folders.

    Args:
        python: The Python in which it is installed: a path, or a name on PATH.
        home: The user's AIRFLOW_HOME, or a path without folders.
        allowed: Regular expressions: which errors are accepted.
    """

    python: str
    home: str
    allowed: Sequence[re.Pattern[str]]


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
    metrics = SyncMetrics().gate
    with scratch() as folder, scratch() as home:
        gate = make_gate(settings, metrics)
        verdicts = [Verdict(settings.gate, f"Checked: {settings.gate}")]
        if airflow:
            gate = Gate(_check(airflow, home, verdicts), settings, metrics)
        if gate is None:
            return Verdict(
                "off",
                "Not checked: the gate is off (--gate airflow checks with your Airflow)",
            )
        parcel.write(folder)
        try:
            refusal = gate.examine(
                parcel.revision, folder, [*parcel.manifest.files], Fence()
            )
        except Undecided as error:
            raise SidecarError(
                "gate_undecided",
                f"the gate came to no verdict: {error.message}",
                f"{error.remedy} Publish again.",
            ) from error
        if refusal:
            refusal.message = "the gate refuses the release"
            refusal.advice = (
                "Fix the files and publish again. With --gate airflow, --gate-allow PATTERN "
                "accepts errors that match."
            )
            refusal.exit_code = EXIT_SETTINGS
            raise refusal
    return verdicts[-1]


def _check(airflow: Airflow, home: str, verdicts: list[Verdict]) -> Check:
    """
    Return the check that lets an Airflow load the folder.

    Args:
        home: An empty folder, which becomes AIRFLOW_HOME.
        verdicts: Receives which Airflow has checked what, if it came to a verdict.
    """
    # Nothing else of the user's AIRFLOW_HOME is used: airflow.cfg names the database.
    for name in ("config", "plugins"):
        given = Path(airflow.home, name).expanduser()
        if given.is_dir():
            Path(home, name).symlink_to(given.absolute())

    def read(said: str, code: int, _: IsFile) -> list[Finding]:
        path = Path(home, "answer")
        if code != 0 or not path.exists():
            last = said.strip().rpartition("\n")[2] or "no output"
            raise Undecided(
                f"{airflow.python} ended with {ending(code)}: {last}",
                "Check the memory limit, that this Python has an Airflow which this s3-sync "
                "supports (--airflow-python), and that it starts without any settings, as here.",
            )
        answer = json.loads(path.read_text())
        text = f"Checked with Airflow {answer['airflow']}: {counted(answer['dags'], 'DAG')}"
        refused = []
        for file, trace in answer["errors"]:
            if any(pattern.search(trace) for pattern in airflow.allowed):
                text += f"; allowed: {file}"
            else:
                refused.append(broken_file(file, trace))
        verdicts.append(Verdict("airflow", text))
        return refused

    # Where Python and its packages find modules and libraries; the daemon's gate does
    # not need them.
    return Check(
        (airflow.python, str(RUNNER), home),
        read,
        variables=("LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONUSERBASE"),
    )


def broken_file(path: str, trace: str) -> Finding:
    """
    Return an error of Airflow with the last line of its file in the traceback.
    """
    lines = [
        int(line)
        for place, line in FRAME.findall(trace)
        if f"/{place}".endswith(f"/{path}")
    ]
    return Finding(path, lines[-1] if lines else None, trace.strip())
