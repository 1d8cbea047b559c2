"""
Runs Airflow: its environment, one child process at a time, and what its output means.
"""

from __future__ import annotations

import json
import os
import re
import resource
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import unquote

from sidecar_runtime import child
from sidecar_runtime.child import PrivateFolder
from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sync_perm.airflow_config import AirflowConfig, name
from sync_perm.compare import Item, Permission
from sync_perm.connection import Address
from sync_perm.installation import RUNNER, Installation, outer_path
from sync_perm.reasons import failure

CliCause = Literal["setting", "version"]
"""Configured; our script was never tested with this version."""
CLI_CAUSES: tuple[CliCause, ...] = get_args(CliCause)

COMMAND_SECONDS = 120.0
"""The time limit for Airflow in interactive commands; the daemon has a setting for it."""
# How long a portion works on DAGs: long beside the start of Airflow, short beside a person's wait.
PORTION_SECONDS = 60.0
# Of the roles file, at most this many rows at a time, for the same reason.
PORTION_ROWS = 2_000
LAST_LINES = 40
# Shorter secrets are hidden in URLs only, because "airflow" is the password of many databases.
SHORTEST_SECRET = 8
_SECRET_NAME = re.compile(
    r"(password|passwd|passphrase|secret|token|key|url|uri|dsn|conn)$|^airflow_conn_", re.IGNORECASE
)
# Up to the last @ of a word, so that a password with an unquoted @ is hidden completely.
_URL_PASSWORD = re.compile(r"(://[^\s:/@'\"]*):([^\s'\"]{0,2048})@")
_JSON_TEXT = re.compile(r'"(\w+)"\s*:\s*"([^"]+)"')

log = get_logger("pass")


class Portion(NamedTuple):
    """
    The work of one run of Airflow.

    Args:
        roles: Whether to sync Airflow's own views and roles.
        dags: The DAGs to sync, until a minute has passed.
        given: Missing rows of the roles file.
        load: Whether to tell what Airflow defines for its roles, even if it does not write them.
    """

    roles: bool = False
    dags: Sequence[str] = ()
    given: Collection[Item] = ()
    load: bool = False


class Means(NamedTuple):
    """
    What a run of Airflow is given.

    Args:
        seconds: The time limit, after which it is killed.
        watch: Called several times a second; an exception that it raises ends Airflow.
    """

    address: Address
    fence: Fence
    seconds: float
    watch: Callable[[], object] = lambda: None


@dataclass(slots=True)
class Report:
    """
    What a run of Airflow has reported.

    Args:
        tried: DAG → Airflow's error, or an empty text.
        logged: The errors that Airflow logged while it synced roles.
        defined: Role → the permissions that Airflow defines for it; None if roles were not loaded.
    """

    tried: dict[str, str] = field(default_factory=dict)
    logged: list[str] = field(default_factory=list)
    defined: Mapping[str, frozenset[Permission]] | None = None


@dataclass(slots=True)
class Passes:
    """
    Runs Airflow in a folder of this process.

    Args:
        cli_because: Why the full ``airflow sync-perm`` runs; None if our script does.
        cpu_seconds: Of the last run.
    """

    installation: Installation
    config: AirflowConfig
    folder: str
    cli_because: CliCause | None = None
    cpu_seconds: float = 0.0

    def run(self, work: Portion, means: Means, *, tells: bool = False) -> Report:
        """
        Run Airflow to its end; rows that it wrote stay, however it ends.

        Args:
            tells: Whether the report needs what Airflow defines for its roles.

        Raises:
            SidecarError: It failed as a whole.
            CycleAbandoned: The fence was revoked.
        """
        report = Report()
        before = _spent_seconds()
        try:
            if self.cli_because and (work.roles or work.dags):
                including = ["--include-dags"] if work.dags else []
                command = [self.installation.command, "sync-perm", *including]
                self._start(self._task(work, command), report, means)
                # Airflow has no command for these.
                work = Portion(given=work.given, load=tells and work.roles)
            if not self.cli_because or work.load or work.given:
                self._start(self._task(work, ()), report, means)
        finally:
            self.cpu_seconds = _spent_seconds() - before
        return report

    def _task(self, work: Portion, command: Sequence[str]) -> dict[str, object]:
        given: dict[str, list[tuple[str, ...]]] = {}
        for item in work.given:
            role, *permission = item.row
            given.setdefault(role, []).extend([tuple(permission)] if permission else [])
        return {
            "parent": os.getpid(),
            "command": command,
            "load": work.load,
            "roles": work.roles,
            "dags": work.dags,
            "given": given,
        }

    def _start(self, task: Mapping[str, object], report: Report, means: Means) -> None:
        """
        Run our script, or the command in the task, to its end.
        """
        address, fence, seconds, watch = means
        listener = _Listener(redaction(self.config, address), report)
        file = Path(self.folder, "task.json")
        argv = [self.installation.python, str(RUNNER), "work", str(file)]
        hears = child.Lines(listener.hear), child.Lines(listener.overhear)
        try:
            file.write_text(json.dumps({**task, "seconds": min(PORTION_SECONDS, seconds / 2)}))
            command = child.Command(argv, self._environment(address), self.folder)
        except OSError as error:
            text = f"cannot write to {self.folder}: {error.strerror}"
            raise failure("tmpdir_failed", text) from None
        try:
            code = child.run(command, fence, seconds, *hears, watch)
        except child.DeadlinePassed:
            text = f"Airflow did not end within {seconds:.3g} s and was killed"
            raise failure("pass_timeout", text + listener.last_words()) from None
        except OSError as error:
            text = f"{self.installation.python} cannot be started: {error.strerror}"
            raise failure("pass_failed", text) from error
        if code < 0:
            text = f"Airflow was killed by signal {-code}{listener.last_words()}"
            raise failure("pass_killed", text)
        if listener.place:
            raise failure("config_failed", f"{listener.place}{listener.last_words()}")
        if code:
            text = f"Airflow ended with code {code}{listener.last_words()}"
            raise failure("pass_failed", text)

    def _environment(self, address: Address) -> Mapping[str, str]:
        """
        Return the environment of Airflow.

        Airflow writes into HOME, AIRFLOW_HOME and its log folder at each start, so it gets separate
        ones. Files that it reads there are still taken from the real folders by default.

        Raises:
            OSError: The folder is not writable.
        """
        config, folder = self.config, self.folder
        environ = {k: v for k, v in config.environ.items() if not k.startswith("SYNC_PERM_")}
        home = environ.get("HOME") or os.path.expanduser("~")
        with suppress(FileExistsError):
            os.mkdir(f"{folder}/logs")
        environ |= {
            "PATH": outer_path(config.environ),
            "HOME": folder,
            "TMPDIR": folder,
            "AIRFLOW_HOME": folder,
            name("database", "sql_alchemy_conn"): address.text,
            name("logging", "base_log_folder"): f"{folder}/logs",
            name("logging", "dag_processor_manager_log_location"): f"{folder}/logs/manager.log",
            name("logging", "remote_logging"): "False",
            name("scheduler", "child_process_log_directory"): f"{folder}/logs/scheduler",
            name("core", "load_examples"): "False",
        }
        # Airflow imports modules from there that airflow.cfg may name: logging_config_class.
        with suppress(FileExistsError):
            os.symlink(f"{config.home}/config", f"{folder}/config")
        if self.installation.auth_manager:
            environ[name("core", "auth_manager")] = self.installation.auth_manager
        # An arbitrary UID has no name in /etc/passwd, but Airflow needs one.
        environ.setdefault("USER", "airflow")
        # The real HOME may contain a user's site-packages; in the official image, Airflow itself.
        environ.setdefault("PYTHONUSERBASE", f"{home}/.local")
        if config.has_file:
            environ["AIRFLOW_CONFIG"] = config.path
        for section, key, file in (
            ("webserver", "config_file", "webserver_config.py"),
            ("fab", "config_file", "webserver_config.py"),
            ("core", "plugins_folder", "plugins"),
            ("core", "dags_folder", "dags"),
        ):
            real = f"{config.home}/{file}"
            if config.value(section, key) is None and os.path.exists(real):
                environ[name(section, key)] = real
        return environ


@contextmanager
def own_folder() -> Iterator[str]:
    """
    Yield the private folder that all passes of this process share, and remove it at the end.

    Raises:
        SettingsError: No folder below TMPDIR is writable.
    """
    try:
        folder = PrivateFolder("sync-perm-", tempfile.gettempdir())
    except OSError:
        problem = "is not writable; mount an emptyDir at /tmp"
        parent = os.environ.get("TMPDIR", "/tmp")  # noqa: S108 - tempfile tries it too
        raise SettingsError([Problem("TMPDIR", parent, problem)]) from None
    try:
        yield folder.path
    finally:
        folder.remove()


@dataclass(slots=True)
class _Listener:
    """
    Receives the output of Airflow, and hides secrets in it.

    Attributes:
        place: The file and line of the user's that made Airflow fail.
    """

    hide: Callable[[str], str]
    report: Report
    last: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    place: str = ""

    def hear(self, line: str) -> None:
        """
        Process a line of standard output.
        """
        try:
            said: Any = json.loads(line) if line.startswith("{") else None
        except ValueError:
            said = None
        match said:
            case {"dag": str(dag_id), "error": str(error)}:
                self.report.tried[dag_id] = _one_line(self.hide(error))
            case {"logged": str(text)}:
                self.report.logged.append(_one_line(self.hide(text)))
            case {"defined": dict(roles)}:
                defined = {role: frozenset(map(tuple, held)) for role, held in roles.items()}
                self.report.defined = defined
            case {"failed": str(text), "where": str(place)}:
                self.place = place
                self.overhear(text)
            case _:
                self.overhear(line)

    def overhear(self, line: str) -> None:
        """
        Process a line that is not JSON: log it, and keep it for error messages.
        """
        text = self.hide(line)
        if text.strip():
            self.last.append(text)
            log.debug("airflow_said", line=text)

    def last_words(self) -> str:
        """
        Return the last error line, or else the last line, as the end of a sentence.
        """
        lines = [line for line in self.last if "rror" in line and not line.startswith(" ")]
        words = [*self.last, *lines][-1:]
        return f": {_one_line(words[0])}" if words else ""


def redaction(config: AirflowConfig, address: Address) -> Callable[[str], str]:
    """
    Return a function that hides passwords in URLs, and the values of variables and options with
    names of secrets.

    Pages without authentication show the last lines of Airflow, which may quote any secret that its
    processes know, such as the broker's URL or the Fernet key.
    """
    found = {secret.strip() for given in config.given() for secret in _secrets(*given)}
    found.discard(address.text)  # only its password is secret; its host helps
    # The longest first, because it may contain another secret.
    fit = (secret for secret in found if len(secret) >= SHORTEST_SECRET)
    secrets = sorted(fit, key=len, reverse=True)

    def hide(text: str) -> str:
        text = _URL_PASSWORD.sub(r"\1:***@", address.redact(text))
        for secret in secrets:
            text = text.replace(secret, "***")
        return text

    return hide


def _secrets(variable: str, value: str) -> Iterator[str]:
    if match := _URL_PASSWORD.search(value):
        yield from (match[2], unquote(match[2]))
    if _SECRET_NAME.search(variable):
        yield from value.splitlines()
    for key, text in _JSON_TEXT.findall(value):  # a connection may be JSON
        yield text if _SECRET_NAME.search(key) else ""


def _spent_seconds() -> float:
    """
    Return the CPU time of all children that have ended, user and system.
    """
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]
