"""
The check that a real Airflow makes: it loads the folder as its DAG processor would.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from s3_sync.publisher.airflow.answer import LACKS, Answer, Broken, read_answer
from s3_sync.release.facts import Checked
from sidecar_runtime.child import ending
from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.gate.checks import Check, Finding, IsFile, Undecided
from sidecar_runtime.parsers import allows

RUNNER = Path(__file__).with_name("runner.py")
# Of the user's AIRFLOW_HOME, and nothing else: airflow.cfg names the database.
HOME_FOLDERS = ("config", "plugins")

# What says where Python and its packages find what they load; of no use to the daemon's gate.
VARIABLES = ("LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONUSERBASE")

_KINDS = ", ".join(LACKS)


@allows(f"one of {_KINDS}, a colon and a name, which may have wildcards: package:pandas*")
def pattern(text: str) -> str:
    """
    Read what may be missing.
    """
    kind, _, name = text.partition(":")
    if kind not in LACKS or not name:
        raise ValueError(f"is not KIND:NAME, where KIND is one of {_KINDS}")
    return text


@dataclass(frozen=True, slots=True)
class Airflow:
    """
    An Airflow that loads folders.

    Args:
        python: The Python that has it.
        home: The user's AIRFLOW_HOME; empty where there is none.
        allowed: Patterns of what may be missing.
    """

    python: str
    home: str
    allowed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Passed:
    """
    What Airflow said of a folder that it accepts.

    Args:
        allowed: What it lacks, and may.
    """

    checked: Checked
    allowed: tuple[Broken, ...]


def find_airflow(given: str | None, allowed: Sequence[str], environ: Mapping[str, str]) -> Airflow:
    """
    Return the Airflow that is meant.

    Args:
        given: The Python that has it; None for the one on PATH.

    Raises:
        SettingsError: There is no such program.
    """
    python = shutil.which(given or "python", path=environ.get("PATH"))
    if python is None:
        raise _no_airflow(given or "python", "is not a program that can be run")
    # It runs in another folder, where a relative name would be another file.
    return Airflow(os.path.abspath(python), environ.get("AIRFLOW_HOME", ""), tuple(allowed))


class AirflowCheck:
    """
    One check, and what came of it.

    Attributes:
        refused: What is broken, and not allowed.
    """

    def __init__(self, airflow: Airflow, folder: str, place: str) -> None:
        """
        Args:
            folder: What is loaded.
            place: An empty folder, which becomes AIRFLOW_HOME.
        """
        self._airflow = airflow
        self._folder = folder
        self._place = place
        self._answer: Answer | None = None
        self._allowed: tuple[Broken, ...] = ()
        self.refused: list[Broken] = []
        for name in HOME_FOLDERS:
            given = os.path.join(airflow.home, name)
            if airflow.home and os.path.isdir(given):
                os.symlink(os.path.abspath(given), os.path.join(place, name))

    def check(self) -> Check:
        """
        Return the check, to be made once.
        """
        return Check((self._airflow.python, str(RUNNER), self._place), self._read)

    def passed(self) -> Passed:
        """
        Return what Airflow said of a folder that it accepts.
        """
        assert self._answer is not None
        dags = tuple(sorted(self._answer.dags))
        lacking = len({one.path for one in self._allowed})
        checked = Checked(
            self._answer.airflow, datetime.now(UTC), len(dags), () if lacking else dags, lacking
        )
        return Passed(checked, self._allowed)

    def _read(self, said: str, code: int, _: IsFile) -> list[Finding]:
        """
        Raises:
            SettingsError: There is no Airflow.
            Undecided: It did not come to an end.
        """
        answers = Path(self._place, "answers")
        lines = answers.read_text().splitlines() if answers.exists() else []
        answer = self._answer = read_answer(lines, self._folder)
        if answer.missing:
            raise _no_airflow(self._airflow.python, f"has no Airflow: {answer.missing}")
        if code != 0 or not answer.is_whole:
            last = next((line for line in reversed(said.splitlines()) if line.strip()), "")
            raise Undecided(
                f"{self._airflow.python} could not load the folder, and ended with "
                f"{ending(code)}: {last.strip()}",
                "Look whether its Airflow starts without settings, as it does here.",
            )
        if answer.trouble:
            remedy = "Look at the memory limit, and whether this s3-sync knows this Airflow."
            raise Undecided(answer.trouble, remedy)
        self._allowed = tuple(one for one in answer.broken if self._may_lack(one.lacks))
        self.refused = [one for one in answer.broken if not self._may_lack(one.lacks)]
        return list(self.refused)

    def _may_lack(self, what: str) -> bool:
        return any(fnmatchcase(what, pattern) for pattern in self._airflow.allowed)


def _no_airflow(python: str, problem: str) -> SettingsError:
    said = f"{problem}; name the Python of your Airflow"
    return SettingsError([Problem("--airflow-python", python, said)])
