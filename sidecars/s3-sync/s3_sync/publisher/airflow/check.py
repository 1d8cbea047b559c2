"""
The check with a real Airflow, which loads the folder as its DAG processor would.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from s3_sync.publisher.airflow.answer import LACKS, Broken, LoadAnswer, read_answer
from s3_sync.release.facts import Checked
from sidecar_runtime.child import ending
from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.gate.checks import Check, Finding, IsFile, Undecided
from sidecar_runtime.parsers import allows

RUNNER = Path(__file__).with_name("runner.py")
# The only parts of the user's AIRFLOW_HOME that are used: airflow.cfg names the database.
HOME_FOLDERS = ("config", "plugins")

# Where Python and its packages find modules and libraries; the daemon's gate does not need them.
VARIABLES = ("LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONUSERBASE")

_KINDS = ", ".join(LACKS)


@allows(f"one of {_KINDS}, a colon and a name, with or without wildcards: package:pandas*")
def pattern(text: str) -> str:
    """
    Read a pattern of what may be missing.
    """
    kind, _, name = text.partition(":")
    if kind not in LACKS or not name:
        raise ValueError(f"is not KIND:NAME with a KIND of {_KINDS}")
    return text


@dataclass(frozen=True, slots=True)
class Airflow:
    """
    An Airflow that loads folders.

    Args:
        python: The Python in which it is installed.
        home: The user's AIRFLOW_HOME; empty if it is not set.
        allowed: Patterns of what may be missing.
    """

    python: str
    home: str
    allowed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Passed:
    """
    The result for a folder that Airflow accepts.

    Args:
        allowed: Problems that were allowed, because this Airflow lacks something.
    """

    checked: Checked
    allowed: tuple[Broken, ...]


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
    # It runs in another folder, where a relative path would name another file.
    program = os.path.abspath(python)
    home = os.path.expandvars(environ.get("AIRFLOW_HOME", ""))
    return Airflow(program, os.path.expanduser(home), tuple(allowed))


class AirflowCheck:
    """
    One check and its result.

    Attributes:
        refused: Problems that are not allowed.
    """

    def __init__(self, airflow: Airflow, folder: str, place: str) -> None:
        """
        Args:
            folder: The folder to load.
            place: An empty folder, which becomes AIRFLOW_HOME.
        """
        self._airflow = airflow
        self._folder = folder
        self._place = place
        self._answer: LoadAnswer | None = None
        self._allowed: tuple[Broken, ...] = ()
        self.refused: list[Broken] = []
        for name in HOME_FOLDERS:
            given = os.path.join(airflow.home, name)
            if airflow.home and os.path.isdir(given):
                os.symlink(os.path.abspath(given), os.path.join(place, name))

    def check(self) -> Check:
        """
        Return the check, to be run once.
        """
        return Check((self._airflow.python, str(RUNNER), self._place), self._read)

    def passed(self) -> Passed:
        """
        Return the result, if Airflow accepts the folder.
        """
        assert self._answer is not None
        dags = tuple(sorted(self._answer.dags))
        not_loaded = len({one.path for one in self._allowed})
        checked = Checked(
            self._answer.airflow,
            datetime.now(UTC),
            len(dags),
            () if not_loaded else dags,
            not_loaded,
        )
        return Passed(checked, self._allowed)

    def _read(self, said: str, code: int, _: IsFile) -> list[Finding]:
        """
        Raises:
            SettingsError: The Python has no Airflow.
            Undecided: The check did not finish.
        """
        answers = Path(self._place, "answers")
        lines = answers.read_text().splitlines() if answers.exists() else []
        answer = self._answer = read_answer(lines, self._folder, self._airflow.allowed)
        if answer.missing:
            raise _no_airflow(self._airflow.python, f"has no Airflow: {answer.missing}")
        if code != 0 or not answer.is_whole:
            last = next((line for line in reversed(said.splitlines()) if line.strip()), "")
            raise Undecided(
                f"{self._airflow.python} could not load the folder and ended with "
                f"{ending(code)}: {last.strip()}",
                "Check that this Airflow starts without any settings, as it does here.",
            )
        if answer.trouble:
            remedy = "Check the memory limit, and whether this s3-sync supports your Airflow."
            raise Undecided(answer.trouble, remedy)
        self._allowed = tuple(one for one in answer.broken if self._may_lack(one.lacks))
        self.refused = [one for one in answer.broken if not self._may_lack(one.lacks)]
        return list(self.refused)

    def _may_lack(self, what: str) -> bool:
        return any(fnmatchcase(what, pattern) for pattern in self._airflow.allowed)


def _no_airflow(python: str, problem: str) -> SettingsError:
    said = f"{problem}; pass the Python of your Airflow"
    return SettingsError([Problem("--airflow-python", python, said)])
