"""
The gate before an upload: the daemon's gate, to which every file is new, or a real Airflow.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from s3_sync.metrics import SyncMetrics
from s3_sync.publisher.folder import FolderError
from s3_sync.publisher.parcel import Parcel, scratch
from s3_sync.publisher.report import NAMED, checked_facts
from s3_sync.release.format import Checked
from s3_sync.settings import PREFIX, Settings
from sidecar_runtime import __version__
from sidecar_runtime.child import ending
from sidecar_runtime.errors import Problem, SettingsError, SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.checks import Check, Finding, IsFile, Undecided
from sidecar_runtime.gate.gate import Gate, make_gate

AIRFLOW = "airflow"
RUNNER = Path(__file__).with_name("airflow_runner.py")
ANSWERS = "answers"
# The only parts of the user's AIRFLOW_HOME that are used: airflow.cfg names the database.
HOME_FOLDERS = ("config", "plugins")
# Where Python and its packages find modules and libraries; the daemon's gate does not need them.
VARIABLES = ("LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONUSERBASE")
TAIL_LINES = 6
LINE_CHARACTERS = 300

_FRAME = re.compile(r'^\s*File "(?P<path>[^"]+)", line (?P<line>\d+)')


@dataclass(frozen=True, slots=True)
class Broken(Finding):
    """
    A problem that Airflow would show.

    Args:
        tail: The last lines of the traceback, from the folder's first frame on, without the error.
    """

    tail: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        return [str(self), *(f"  {line}" for line in self.tail)]


class Refused(FolderError):
    """
    The gate refuses the files.

    Attributes:
        broken: All problems.
        details: The first problems, as lines of text.
    """

    def __init__(self, broken: Sequence[Finding], files: int, advice: str) -> None:
        said = f"the gate refuses the files; problems: {files}"
        super().__init__("revision_refused", said, advice)
        self.broken = broken
        shown = [one.lines() if isinstance(one, Broken) else [str(one)] for one in broken[:NAMED]]
        self.details = [line for lines in shown for line in lines]
        if files > NAMED:
            self.details.append(f"and {files - NAMED} more")


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
    allowed: tuple[Broken, ...] = ()

    def facts(self) -> dict[str, Any]:
        found = checked_facts(self.checked)
        allowed = {"allowed": list(map(str, self.allowed))} if found else {}
        return {"gate": self.gate, "airflow": found and found | allowed}

    def lines(self) -> list[str]:
        if self.checked is None:
            is_off = self.gate == "off"
            said = "Not checked: the gate is off (--gate airflow checks with your Airflow)"
            return [said] if is_off else []
        lines = [f"  allowed: {one}" for one in self.allowed[:NAMED]]
        if len(self.allowed) > NAMED:
            lines.append(f"  and {len(self.allowed) - NAMED} more")
        return [f"Checked with {self.checked}", *lines]


class Airflow(NamedTuple):
    """
    An Airflow that loads folders.

    Args:
        python: The Python in which it is installed.
        home: The user's AIRFLOW_HOME; empty if it is not set.
        allowed: Which import errors are accepted.
    """

    python: str
    home: str
    allowed: tuple[re.Pattern[str], ...] = ()

    def allows(self, one: Broken) -> bool:
        return any(pattern.search(one.problem) for pattern in self.allowed)


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
    gate = make_gate(settings, metrics)
    if airflow is None and gate is None:
        return Verdict("off")
    with scratch("gate") as folder, scratch("airflow") as place:
        paths = parcel.write(folder)
        if airflow is not None:
            check = _check(airflow, folder, place)
            gate = Gate(check, settings, metrics, variables=VARIABLES)
        assert gate is not None
        try:
            refusal = gate.examine(parcel.revision, folder, paths, Fence())
        except Undecided as error:
            # The option overrides the setting.
            remedy = error.remedy.replace(f"{PREFIX}GATE_TIMEOUT", "--gate-timeout")
            raise SidecarError(
                "gate_undecided",
                f"the gate came to no verdict: {error.message}",
                f"Nothing was published. {remedy} Then publish again.",
            ) from error
        if airflow is None:
            if refusal is not None:
                files = refusal.files_refused
                raise Refused(refusal.findings, files, "Fix the files and publish again.")
            return Verdict(settings.gate)
        answer = _read_answer(place, folder)
    broken = [one for one in answer.broken if not airflow.allows(one)]
    if broken:
        advice = "Fix the files and publish again. --gate-allow accepts errors by a pattern."
        raise Refused(broken, len(broken), advice)
    not_loaded = len({one.path for one in answer.broken})
    checked = Checked(answer.airflow, datetime.now(UTC), tuple(sorted(answer.dags)), not_loaded)
    return Verdict(AIRFLOW, checked, tuple(answer.broken))


# --- Airflow


class _Answer(NamedTuple):
    """
    What `airflow_runner` wrote.

    Args:
        missing: Why Airflow cannot be imported; empty if it can.
        is_whole: Whether the program finished.
        trouble: Why a file has no verdict: a signal, or a failure of Airflow or of the program.
    """

    missing: str
    airflow: str
    is_whole: bool
    trouble: str
    dags: Mapping[str, str]
    broken: list[Broken]


def _check(airflow: Airflow, folder: str, place: str) -> Check:
    """
    Return the check of a folder.

    Args:
        place: An empty folder, which becomes AIRFLOW_HOME.
    """
    for name in HOME_FOLDERS:
        given = os.path.join(airflow.home, name)
        if airflow.home and os.path.isdir(given):
            os.symlink(os.path.abspath(given), os.path.join(place, name))

    def read(said: str, code: int, _: IsFile) -> list[Finding]:
        answer = _read_answer(place, folder)
        if answer.missing:
            raise _no_airflow(airflow.python, f"has no Airflow: {answer.missing}")
        if code != 0 or not answer.is_whole:
            last = next((line for line in reversed(said.splitlines()) if line.strip()), "")
            raise Undecided(
                f"{airflow.python} could not load the folder and ended with {ending(code)}: "
                f"{last.strip()}",
                "Check that this Airflow starts without any settings, as it does here.",
            )
        if answer.trouble:
            remedy = "Check the memory limit, and whether this s3-sync supports your Airflow."
            raise Undecided(answer.trouble, remedy)
        return [one for one in answer.broken if not airflow.allows(one)]

    return Check((airflow.python, str(RUNNER), place), read)


def _read_answer(place: str, folder: str) -> _Answer:
    """
    Read the answer; its last line may be incomplete.
    """
    path = Path(place, ANSWERS)
    facts: dict[str, Any] = {}
    dags: dict[str, str] = {}
    broken: list[Broken] = []
    trouble = ""
    for said in _lines_of(path.read_text().splitlines() if path.exists() else ()):
        facts |= said
        if "file" not in said:
            continue
        name = said["file"].removeprefix(f"{folder}/")
        if "failed" in said or said.get("ended", 0) < 0:
            what = said.get("failed") or ending(said["ended"])
            trouble = trouble or f"loading {name} failed: {what}"
        elif "ended" in said:
            text = f"it ends the process that loads it, with {ending(said['ended'])}"
            broken.append(Broken(name, None, text))
        for place_of, text in said.get("errors", {}).items():
            broken.append(_broken(place_of.removeprefix(f"{folder}/"), text, folder))
        broken += [
            Broken(name, None, f"the DAG {dag!r} is also in {first}")
            for dag in said.get("dags", ())
            if (first := dags.setdefault(dag, name)) != name
        ]
    missing, airflow = facts.get("missing", ""), facts.get("airflow", "")
    return _Answer(missing, airflow, "done" in facts, trouble, dags, broken)


def _lines_of(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            return


def _broken(path: str, text: str, folder: str) -> Broken:
    """
    Find the place and the cause of a problem in a traceback, or in an error without one.

    Args:
        path: The file that Airflow shows as broken.
    """
    lines = [line for line in text.replace(f"{folder}/", "").splitlines() if line.strip()]
    frames = [(number, found) for number, line in enumerate(lines) if (found := _FRAME.match(line))]
    ours = [
        (number, found)
        for number, found in frames
        if not os.path.isabs(found["path"]) and os.path.isfile(os.path.join(folder, found["path"]))
    ]
    # The indented source follows the last frame, then the error.
    end = frames[-1][0] + 1 if frames else 0
    while end < len(lines) - 1 and lines[end].startswith(" "):
        end += 1
    problem = " ".join(line.strip() for line in lines[end:])[:LINE_CHARACTERS]
    if ours and ours[-1][1]["path"] != path:
        problem += f" (in {ours[-1][1]['path']}:{ours[-1][1]['line']})"
    line_number = next((int(f["line"]) for _, f in reversed(ours) if f["path"] == path), None)
    tail = lines[ours[0][0] : end][-TAIL_LINES:] if ours else []
    return Broken(path, line_number, problem, tuple(one[:LINE_CHARACTERS] for one in tail))


def _no_airflow(python: str, problem: str) -> SettingsError:
    said = f"{problem}; pass the Python of your Airflow"
    return SettingsError([Problem("--airflow-python", python, said)])
