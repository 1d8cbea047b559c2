"""
The image's own Airflow: finds it, and runs it, one child process at a time.
"""

import json
import os
import re
import shutil
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sidecar_runtime import child
from sidecar_runtime.errors import Problem, SettingsError, SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sync_perm.airflow_config import Address, AirflowConfig, redact
from sync_perm.compare import Item
from sync_perm.inside_airflow import ENDED, FAB, release_of
from sync_perm.reasons import failure
from sync_perm.roles_file import Defined

# The time limit in interactive commands, also with little CPU; the daemon has a setting
# for it.
COMMAND_SECONDS = 600.0
# Airflow is stopped a little before the cycle would be abandoned, so that it can report
# the cause.
PASS_SHARE = 0.9
LAST_LINES = 40
SCRIPT = Path(__file__).with_name("inside_airflow.py")
OLDEST = (2, 11)
OF_AIRFLOW_HOME = ("config", "plugins", "dags", "webserver_config.py")
# What libpq and the tools for tokens read in HOME, if it exists.
OF_HOME = (".pgpass", ".pg_service.conf", ".postgresql", ".aws", ".azure", ".config")

log = get_logger("pass")


# --- find it


@dataclass(frozen=True, slots=True)
class Installation:
    """
    Args:
        command: The path of ``airflow``.
        python: The interpreter that contains Airflow.
        version: Airflow's version.
        fab: The FAB provider's version.
        restores_dags: Whether Airflow applies ``access_control`` at each parse.
        lacks: What our script calls, and this FAB provider does not have.
        local_settings: The path of airflow_local_settings.py; empty without one.
    """

    command: str
    python: str
    version: str
    fab: str
    restores_dags: bool
    lacks: str = ""
    local_settings: str = ""

    @property
    def release(self) -> tuple[int, ...]:
        return release_of(self.version)

    @property
    def unfit(self) -> str:
        """
        Return why ``airflow sync-perm`` runs as a whole; empty if our script does.
        """
        if self.release == OLDEST or (3, 0) <= self.release <= (3, 4):
            return self.lacks and f"needs {self.lacks} of the FAB provider"
        return f"was never tested with Airflow {self.version}"


def find_installation(config: AirflowConfig, folder: str) -> Installation:
    """
    Inspect the image's Airflow: 0.05 s of CPU, or 2 to 4 s if its auth manager must be
    imported.

    Raises:
        SettingsError: Airflow is missing, or its auth manager is not FAB's.
        SidecarError: As :func:`ask_python`.
    """
    where = outer_path(config.environ)
    path = shutil.which("airflow", path=where) or ""
    python = _python_of(path, where)
    told = ask_python(python, config, "inspect", folder, Fence())
    version = told.get("version", "")
    problem = told.pop("problem", "")
    if "failed" in told:
        said = f"leads to {path}, whose Python failed: {told['failed']}"
    elif not version:
        said = (
            f"has no airflow command whose Python has Airflow (found {path or 'none'}); "
            "build this image on your Airflow image"
        )
    elif release_of(version) < OLDEST:
        said = f"leads to Airflow {version}; upgrade it to 2.11 or later"
    elif problem:
        raise SettingsError(
            [
                Problem(
                    "AIRFLOW__CORE__AUTH_MANAGER",
                    config.value("core", "auth_manager"),
                    problem,
                )
            ]
        )
    else:
        return Installation(command=path, python=python, **told)
    raise SettingsError([Problem("PATH", where, said)])


def outer_path(environ: Mapping[str, str]) -> str:
    """
    Return PATH without the sidecar's own virtual environment.
    """
    ours = os.path.dirname(sys.executable)
    return os.pathsep.join(
        folder
        for folder in environ.get("PATH", os.defpath).split(os.pathsep)
        if folder != ours
    )


def _python_of(path: str, where: str) -> str:
    """
    Return the interpreter in the first line of a script; empty if it names none.

    Installers write ``#!/bin/sh`` and ``'''exec' "/path/python" …`` if the path is too
    long for the kernel.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as script:
            head = script.readline() + script.readline()
    except OSError:
        return ""
    match = re.match(r"#!.*?([^\s\"'!]*python[\w.]*)", head, re.DOTALL)
    return shutil.which(match[1], path=where) or "" if match else ""


def ask_python(
    python: str,
    config: AirflowConfig,
    question: str,
    folder: str,
    fence: Fence,
) -> dict[str, Any]:
    """
    Ask the script about the Airflow beside it; empty without a Python.

    Args:
        question: ``inspect``, or ``connect``, which takes 2 to 4 s of CPU.
        folder: For what Airflow writes.

    Returns:
        Its answer; ``failed``: why there is none.

    Raises:
        SidecarError: The folder cannot be written, or a limit of processes is reached,
            which says nothing about Airflow.
        CycleAbandoned: The fence was revoked, and Airflow killed.
    """
    if not python:
        return {}
    argv = [python, str(SCRIPT), question, config.value("core", "plugins_folder")]
    said = child.Kept()
    with writing(folder):
        command = child.Command(argv, environment(config, folder), "/", title="Airflow")
    end = f"killed after {COMMAND_SECONDS:.3g} s"
    with suppress(child.DeadlinePassed):
        code = child.run(command, fence, COMMAND_SECONDS, said, lambda _: None)
        end = child.ending(code)
    try:
        told: dict[str, Any] = json.loads(str(said))
    except ValueError:
        return {"failed": end}
    if "failed" in told:  # which may quote what a command told Airflow
        told["failed"] = redact(told["failed"], config.secrets())
    return told


@contextmanager
def writing(folder: str) -> Iterator[None]:
    """
    A context that names the folder that cannot be written in it.
    """
    try:
        yield
    except OSError as error:
        raise failure(
            "tmpdir_failed", f"cannot write to {folder}: {error.strerror}"
        ) from None


def environment(config: AirflowConfig, folder: str) -> Mapping[str, str]:
    """
    Return the environment of Airflow, which finds its database itself.

    Airflow writes into HOME, AIRFLOW_HOME and its log folder at each start, so it
    gets a folder of its own, with links to what it reads in the real ones.

    Raises:
        OSError: The folder is not writable.
    """
    environ = {
        # Airflow takes an empty AIRFLOW_CONFIG for the working folder, and fails.
        key: text
        for key, text in config.environ.items()
        if not key.startswith(("SYNC_PERM_", "AIRFLOW_CONFIG"))
    }
    home = environ.get("HOME") or os.path.expanduser("~")
    os.makedirs(f"{folder}/logs", exist_ok=True)
    environ |= {
        "PATH": outer_path(config.environ),
        "HOME": folder,
        "TMPDIR": folder,
        "AIRFLOW_HOME": folder,
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": f"{folder}/logs",
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "False",
        "AIRFLOW__SCHEDULER__CHILD_PROCESS_LOG_DIRECTORY": f"{folder}/logs/scheduler",
    }
    places = [f"{config.home}/{one}" for one in OF_AIRFLOW_HOME]
    places += [f"{home}/{one}" for one in OF_HOME]
    # Through a link to nothing, Airflow would write a webserver_config.py.
    for real in filter(os.path.exists, places):
        with suppress(FileExistsError):
            os.symlink(real, f"{folder}/{os.path.basename(real)}")
    # The chart configures its own containers through airflow.cfg, which extra
    # containers lack; its default is FAB, unlike that of Airflow 3.
    environ["AIRFLOW__CORE__AUTH_MANAGER"] = config.value("core", "auth_manager") or FAB
    # An arbitrary UID has no name in /etc/passwd, but Airflow needs one.
    environ.setdefault("USER", "airflow")
    # The real HOME may contain a user's site-packages; in the official image,
    # Airflow itself.
    environ.setdefault("PYTHONUSERBASE", f"{home}/.local")
    if config.has_file:
        environ["AIRFLOW_CONFIG"] = config.path
    return environ


# --- run it


class Work(NamedTuple):
    """
    The work of one run.

    Args:
        roles: Whether to sync Airflow's own views and roles.
        dags: The DAGs to sync, as many as the time permits.
        given: Missing rows of the roles file.
        load: Whether to tell what Airflow defines for its roles, even if it does not
            write them.
    """

    roles: bool = False
    dags: Sequence[str] = ()
    given: Collection[Item] = ()
    load: bool = False


@dataclass(slots=True)
class Report:
    """
    What a run has reported.

    Args:
        hide: Hides secrets in a text.
        tried: DAG, or role of the file → Airflow's error, an empty text, or
            :data:`ENDED`.
        error: Why it failed as a whole; None if it did not.
        is_synced: Whether Airflow has synced its own roles, without an error.
        defined: Role → the permissions that Airflow defines for it; None if roles were
            not loaded.
        place: The file and line of the user's that made Airflow fail.
        last: Its last lines.
    """

    hide: Callable[[str], str] = str
    tried: dict[str, str] = field(default_factory=dict)
    error: SidecarError | None = None
    is_synced: bool = False
    defined: Defined | None = None
    place: str = ""
    last: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))

    def hear(self, line: str) -> None:
        """
        Process a line of standard output: an answer of our script in JSON, if it is
        that.
        """
        said: Any = None
        with suppress(ValueError):
            said = json.loads(line)
        match said:
            case {"tried": str(name), "error": str(error)}:
                self.tried[name] = self._shown(error)
            case {"logged": str(error)}:
                self.error = failure(
                    "pass_failed",
                    f"Airflow logged while it synced roles: {self._shown(error)}",
                )
            case {"synced": bool(is_synced)}:
                self.is_synced = is_synced
            case {"defined": dict(roles)}:
                self.defined = {
                    role: frozenset(map(tuple, held)) for role, held in roles.items()
                }
            case {"failed": str(text), "where": str(place)}:
                self.place = place
                self.overhear(text)
            case _:
                self.overhear(line)

    def overhear(self, line: str) -> None:
        """
        Process a line of Airflow: log it, and keep it for error messages.
        """
        if line.strip():
            self.last.append(self.hide(line))
            log.debug("airflow_said", line=self.last[-1])

    def last_words(self) -> str:
        """
        Return the last error line, or else the last line, as the end of a sentence.
        """
        lines = [
            line
            for line in self.last
            if "rror" in line and not line.startswith((" ", "("))
        ]
        words = lines or self.last
        return f": {self._shown(words[-1])}" if words else ""

    def _shown(self, text: str) -> str:
        return " ".join(self.hide(text).split())[:500]


@dataclass(frozen=True, slots=True)
class Airflow:
    """
    Runs Airflow in a folder of this process.
    """

    installation: Installation
    config: AirflowConfig
    folder: str

    def run(
        self,
        work: Work,
        address: Address,
        fence: Fence,
        seconds: float = COMMAND_SECONDS,
        watch: child.Watch = lambda: None,
    ) -> Report:
        """
        Run Airflow to its end; rows that it wrote stay, however it ends.

        Args:
            seconds: The time limit, after which it is killed.
            watch: Called several times a second; an exception that it raises ends
                Airflow.

        Returns:
            What it has done, also if it failed as a whole: see ``error``.

        Raises:
            SidecarError: A limit of processes is reached.
            CycleAbandoned: The fence was revoked.
        """
        report = Report(partial(address.redact, others=self.config.secrets()))
        hears = child.Lines(report.hear), child.Lines(report.overhear)
        file = Path(self.folder, "task.json")
        argv = [self.installation.python, str(SCRIPT), "work", str(file)]
        try:
            with writing(self.folder):
                file.write_text(json.dumps(self._task(work, seconds * PASS_SHARE)))
                command = child.Command(
                    argv,
                    environment(self.config, self.folder),
                    self.folder,
                    title="Airflow",
                )

            def ended(how: str) -> str:
                rest = (
                    f" before DAG {one!r} was done"
                    for one in work.dags
                    if report.tried.get(one, ENDED) == ENDED
                )
                return f"Airflow {how}{next(rest, '')}{report.last_words()}"

            try:
                code = child.run(command, fence, seconds, *hears, watch)
            except child.DeadlinePassed:
                raise failure(
                    "pass_timeout", ended(f"was killed after {seconds:.3g} s")
                ) from None
            if code < 0:
                raise failure("pass_killed", ended(f"died of signal {-code}"))
            if report.place:
                raise failure("config_failed", f"{report.place}{report.last_words()}")
            if code:
                text = ended(f"ended with code {code}")
                raise failure(
                    "database_not_migrated" if "`airflow db" in text else "pass_failed",
                    text,
                )
            if self.installation.unfit:  # its own command syncs and tries all
                report.is_synced = True
                report.tried = dict.fromkeys(work.dags, "")
        except SidecarError as error:
            if error.reason == "process_limit":  # Airflow has not failed
                raise
            report.error = error  # beside what it had reported until then
        return report

    def _task(self, work: Work, limit: float) -> dict[str, object]:
        """
        Return the task of our script, or of Airflow's own command where ours was never
        tested.
        """
        given: dict[str, list[list[str]]] = {}
        for item in work.given:
            role, *permission = item.row
            held = given.setdefault(role, [])
            if permission:
                held.append(permission)
        command = [self.installation.command, "sync-perm"]
        command += ["--include-dags"] if work.dags else []
        return {
            **work._asdict(),
            "parent": os.getpid(),
            "command": command if self.installation.unfit else [],
            "given": given,
            "seconds": limit,
        }
