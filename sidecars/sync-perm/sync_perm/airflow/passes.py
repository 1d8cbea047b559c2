"""
Runs one pass: starts Airflow, reads its output, and interprets its exit.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sidecar_runtime import child
from sidecar_runtime.child import DeadlinePassed
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sync_perm.airflow.installation import Installation
from sync_perm.airflow.redaction import Redaction
from sync_perm.airflow.surroundings import empty_database, environment, unwritable
from sync_perm.airflow_config import AirflowConfig, name
from sync_perm.database.connection import Address
from sync_perm.database.lock import PassLock
from sync_perm.database.tables import Tables, by_role
from sync_perm.difference import DEFAULT_ROLES
from sync_perm.plan import CliCause, Pass

# Overrides settings that are meant for the real database, or that would keep Airflow from writing.
# The logging level hides a line per row, which would look like writes to the real database.
EMPTY = {
    name("logging", "logging_level"): "WARNING",
    name("database", "sql_alchemy_schema"): "",
    name("database", "sql_alchemy_engine_args"): "{}",
    name("database", "sql_alchemy_connect_args"): "__main__.NO_ARGUMENTS",  # Airflow imports it
    name("database", "sql_engine_collation_for_ids"): "",
    name("fab", "update_fab_perms"): "True",
    name("webserver", "update_fab_perms"): "True",
}
COMMAND_SECONDS = 120.0
"""The time limit for Airflow in interactive commands; the daemon has a setting for it."""
RUNNER = Path(__file__).with_name("runner.py")
LAST_LINES = 40

log = get_logger("pass")


class Misfit(SidecarError):
    """
    Our script does not fit this Airflow.
    """


class AirflowPasses:
    """
    Runs passes, one after the other, in a folder of this process.

    Attributes:
        cli_because: Why passes run the full ``airflow sync-perm``; None if our script runs.
        unimported: The plugins that could not be imported beside an empty database.
    """

    def __init__(
        self,
        installation: Installation,
        config: AirflowConfig,
        folder: str,
        cli_because: CliCause | None = None,
    ) -> None:
        self._installation = installation
        self._config = config
        self._folder = folder
        self.cli_because = cli_because
        self.unimported: list[str] = []
        self.last_cpu_seconds = 0.0

    def run(
        self, work: Pass, address: Address, lock: PassLock, fence: Fence, timeout_seconds: float
    ) -> Mapping[str, str]:
        """
        Run a pass to its end; return the DAGs that failed, with Airflow's errors.

        Raises:
            SidecarError: The whole pass failed; rows written until then stay.
            CycleAbandoned: The fence was revoked; rows written until then stay.
        """
        environ = self._environment(address)
        self.last_cpu_seconds = 0.0
        ends_at = time.monotonic() + timeout_seconds

        def start(task: Mapping[str, object]) -> Mapping[str, str]:
            seconds = ends_at - time.monotonic()
            return self._start(task, environ, address, fence, seconds, lock.check).failed_dags

        if not self.cli_because:
            try:
                return start(self._task(work))
            except Misfit as error:
                log.warning("targeted_failed", error=error.message)
                self.cli_because = "script"
        failed = start(self._task(work, self._command(work))) if work.reason != "file" else {}
        if work.given:  # Airflow has no command for the roles file
            start(self._task(replace(work, roles=False, dags=())))
        return failed

    def write_empty(self, address: Address, fence: Fence, timeout_seconds: float) -> Tables:
        """
        Return what this Airflow writes into an empty database: its roles, including configured
        ones, and its views, including those of plugins. The grants are those that Airflow restores
        later: not those of configured roles.

        The empty database is a temporary file. The real one is not touched, so no lock is needed.

        Args:
            address: The real database, to hide its password in messages.

        Raises:
            SidecarError: Airflow failed.
            CycleAbandoned: The fence was revoked.
        """
        self.last_cpu_seconds = 0.0
        with empty_database(self._folder) as empty:
            environ = {**self._environment(empty), **EMPTY}
            task = {**self._task(Pass("start", True, ())), "tell": empty.database}
            told = self._start(task, environ, address, fence, timeout_seconds, lambda: None).told
        self.unimported = sorted(told["unimported"])
        completed = told["completed"].union(DEFAULT_ROLES)
        return Tables(
            permissions=told["permissions"],
            grants=by_role(
                told["roles"] | told["configured"],
                (
                    (role, (action, resource))
                    for role, action, resource in told["grants"]
                    if role in completed
                ),
            ),
            broken=0,
            dags={},
            fresh=frozenset(),
            bare=told["bare"],
        )

    def _environment(self, address: Address) -> Mapping[str, str]:
        try:
            return environment(self._installation, self._config, address, self._folder)
        except OSError as error:
            raise unwritable(self._folder, error) from None

    def _start(
        self,
        task: Mapping[str, object],
        environ: Mapping[str, str],
        address: Address,
        fence: Fence,
        timeout_seconds: float,
        watch: Callable[[], None],
    ) -> _Listener:
        """
        Run our script to its end; return the listener that received its output.
        """
        listener = _Listener(Redaction(self._config, address))
        file = Path(self._folder, "task.json")
        try:
            file.write_text(json.dumps(task))
        except OSError as error:
            raise unwritable(self._folder, error) from None
        argv = [self._installation.python, str(RUNNER), str(file)]
        hears = child.Lines(listener.hear), child.Lines(listener.overhear)
        before = _spent_seconds()
        try:
            command = child.Command(argv, environ, self._folder)
            code = child.run(command, fence, timeout_seconds, *hears, watch)
        except DeadlinePassed:
            raise SidecarError(
                "pass_timeout",
                f"Airflow did not end within {timeout_seconds:.3g} s and was killed"
                + listener.last_words(),
                "Look for locks in the database. Raise SYNC_PERM_TIMEOUT if Airflow needs longer.",
            ) from None
        except FileNotFoundError as error:
            raise _missing(self._installation.python) from error
        except OSError as error:
            raise SidecarError(
                "pass_failed",
                f"{self._installation.python} cannot be started: {error.strerror}",
                "Check its mode, and the pod's process and memory limits.",
            ) from error
        finally:
            self.last_cpu_seconds += _spent_seconds() - before
        self._judge(code, listener, is_script=not task["command"])
        return listener

    def _command(self, work: Pass) -> list[str]:
        """
        Return the command line of the full ``airflow sync-perm``.

        Raises:
            SidecarError: The command no longer exists.
        """
        if not os.access(self._installation.command, os.X_OK):
            raise _missing(self._installation.command)
        including = ["--include-dags"] if work.dags else []
        return [self._installation.command, "sync-perm", *including]

    def _task(self, work: Pass, command: Sequence[str] = ()) -> dict[str, object]:
        """
        Return the task for our script, or the command that it should run instead.
        """
        given: dict[object, list[tuple[object, ...]]] = {}
        for item in work.given:
            role, *permission = item.row
            given.setdefault(role, []).extend([tuple(permission)] if permission else [])
        return {
            "parent": os.getpid(),
            "command": command,
            "roles": work.roles,
            "dags": work.dags,
            "given": given,
        }

    def _judge(self, code: int, listener: _Listener, *, is_script: bool) -> None:
        """
        Raise the failure that the end of the process stands for, if any.
        """
        failed = listener.failed
        if code < 0:
            raise SidecarError(
                "pass_killed",
                f"Airflow was killed by signal {-code}{listener.last_words()}",
                "It usually ran out of memory. Raise the limit: Airflow alone takes 150 to 210 MB.",
            )
        module = (failed or {}).get("module") or listener.missing_module
        if code and module and module in DRIVER_MODULES:
            raise SidecarError(
                "driver_missing",
                f"Airflow's Python has no module {module!r}, which the URL needs",
                "Add the driver to your Airflow image, and rebuild sync-perm's image from it.",
            )
        if code or failed or (is_script and not listener.is_done):
            said = failed or {}  # an error may have no text
            what = ": ".join(said[key] for key in ("kind", "error") if key in said)
            is_misfit = is_script and failed is not None and "is_misfit" in failed
            raise (Misfit if is_misfit else SidecarError)(
                "pass_failed",
                f"Airflow ended with code {code}"
                + (f": {_one_line(what)}" if what else listener.last_words()),
                "Read Airflow's full output in the log at level debug (airflow_said).",
            )


# The modules that SQLAlchemy imports for `dialect+driver` in the URL.
DRIVER_MODULES = frozenset(
    {"psycopg2", "psycopg", "asyncpg", "pg8000", "MySQLdb", "pymysql", "mysql", "aiomysql"}
)


class _Listener:
    """
    Receives the output of a pass, and hides secrets in it.
    """

    def __init__(self, redaction: Redaction) -> None:
        self._hide = redaction.hide
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self.failed_dags: dict[str, str] = {}
        self.told: dict[str, frozenset[Any]] = {}
        self.failed: dict[str, str] | None = None
        self.missing_module: str | None = None
        self.is_done = False

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
                self.failed_dags[dag_id] = _one_line(self._hide(error))
            case {"roles": list(), "bare": list(), "permissions": list(), "grants": list()}:
                self.told = {
                    name: frozenset(row if isinstance(row, str) else tuple(row) for row in rows)
                    for name, rows in said.items()
                }
            case {"failed": dict(failed)}:
                self.failed = {
                    key: self._hide(str(value)) for key, value in failed.items() if value
                }
            case {"done": int()}:
                self.is_done = True
            case _:
                self.overhear(line)

    def overhear(self, line: str) -> None:
        """
        Process a line that is not JSON: log it, and keep it for error messages.
        """
        text = self._hide(line)
        if text.strip():
            self._last.append(text)
            log.debug("airflow_said", line=text)
        if "ModuleNotFoundError: No module named " in text:
            self.missing_module = text.rpartition("named ")[2].strip("'\" ").partition(".")[0]

    def last_words(self) -> str:
        """
        Return the last error line, or else the last line, as the end of a sentence.
        """
        errors = [line for line in self._last if "rror" in line and not line.startswith(" ")]
        words = [*self._last, *errors][-1:]
        return f": {_one_line(words[0])}" if words else ""


def _spent_seconds() -> float:
    """
    Return the CPU time of all children that have ended, user and system.
    """
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _missing(path: str) -> SidecarError:
    return SidecarError(
        "airflow_missing", f"{path} does not exist", "Check the image, and mounts that hide it."
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]
