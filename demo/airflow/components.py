"""
The processes of a real Airflow, and its settings in this demo.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self
from urllib.request import ProxyHandler, build_opener

from demo.daemon import Daemon, StepFailed
from tests.support.airflow.installed import ROOT, Airflow, Version
from tests.support.airflow.sync_perm import descendants_of, signal_all
from tests.support.program import own_port

PATIENCE_SECONDS = 300.0
"""The longest wait for Airflow: the machine may be small and busy."""
PARSE_SECONDS = 15
COMMANDS: Mapping[Version, tuple[tuple[str, ...], ...]] = {
    "3": (("api-server", "--workers", "1"), ("scheduler", "--skip-serve-logs"), ("dag-processor",)),
    "2.11": (("webserver", "--workers", "1"), ("scheduler", "--skip-serve-logs")),
}
"""The first command of each version answers HTTP."""
API: Mapping[Version, str] = {"3": "/api/v2", "2.11": "/api/v1"}
SECRET = "only the processes of this demo know it: 64 bytes and a bit more"


class Components:
    """
    Airflow's long-running processes; leaving the `with` statement kills them.

    Args:
        airflow: The installation.
        url: The URL of its metadata database.
        home: HOME of all processes, and the folder for their logs.
        dags: The DAG folder.
        settings: More variables, which its tasks inherit.
        more: The command lines of additional processes.
    """

    def __init__(
        self,
        airflow: Airflow,
        url: str,
        home: Path,
        dags: Path,
        settings: Mapping[str, str],
        more: Sequence[tuple[str, ...]] = (),
    ) -> None:
        self.version = airflow.version
        self._commands = (*COMMANDS[self.version], *more)
        self._port = own_port()
        self.endpoint = f"http://127.0.0.1:{self._port}"
        self._program = airflow.bin / "airflow"
        self._home = home
        self.notes = home / "notes"
        """The file in which tasks write notes for the demo."""
        self._environment = {
            **airflow.environment(url, home),
            **short_loops(airflow.version),
            "NOTES": str(self.notes),
            **(bundle_of(dags) if airflow.version == "3" else {}),
            "PYTHONDONTWRITEBYTECODE": "1",  # as on the read-only mount of a pod
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "1",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.endpoint}/execution/",
            "AIRFLOW__API_AUTH__JWT_SECRET": SECRET,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__SECRET_KEY": SECRET,
            "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
            "AIRFLOW__WEBSERVER__SECRET_KEY": SECRET,
            **settings,
        }
        if airflow.version == "2.11":
            backend = "airflow.providers.fab.auth_manager.api.auth.backend.basic_auth"
            self._environment["AIRFLOW__API__AUTH_BACKENDS"] = backend
        self._stack = ExitStack()
        self.processes: dict[str, Daemon] = {}
        """By name, for example `scheduler`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def web(self) -> Daemon:
        """
        The process that answers HTTP.
        """
        return self.processes[COMMANDS[self.version][0][0]]

    @property
    def parser(self) -> Daemon:
        """
        The process that reads the DAG folder.
        """
        return list(self.processes.values())[-1]

    def start(self) -> None:
        """
        Start all processes, and return immediately.
        """
        (self._home / "airflow").mkdir(parents=True, exist_ok=True)
        for command in self._commands:
            self._start(command)

    def restart(self, name: str) -> None:
        """
        Kill a process with all its descendants, and start it again.
        """
        below = descendants_of(self.processes[name].pid)
        self.processes[name].kill()
        signal_all(below, signal.SIGKILL)
        (command,) = (command for command in self._commands if command[0] == name)
        self._start(command)

    def _start(self, command: tuple[str, ...]) -> None:
        is_first = command == COMMANDS[self.version][0]
        daemon = Daemon(
            self._program,
            self._environment,
            self._home / f"{command[0]}.log",
            (*command, *(("--port", str(self._port)) if is_first else ())),
            PATIENCE_SECONDS,
        )
        self.processes[command[0]] = self._stack.enter_context(daemon)

    def wait_until_answers(self) -> None:
        """
        Wait for the first successful answer of the API.

        Raises:
            StepFailed: The API did not answer in time.
        """
        opener = build_opener(ProxyHandler({}))
        url = f"{self.endpoint}{API[self.version]}/version"

        def answers() -> bool:
            with suppress(OSError), opener.open(url, timeout=20) as answer:
                return bool(answer.status == 200)
            return False

        self.web.wait_for(answers, "Airflow's API answers")

    def stop(self) -> float:
        """
        Send SIGTERM to all processes at once; return the seconds until the last one ended.

        A process that ignores it is killed after a minute; Airflow is not under test here.
        """
        began = time.monotonic()
        for daemon in self.processes.values():
            daemon.ask_to_end()
        for daemon in self.processes.values():
            with suppress(StepFailed):
                daemon.wait_for_end(began + 60 - time.monotonic())
        self._stack.close()
        return time.monotonic() - began


def bundle_of(dags: Path) -> dict[str, str]:
    """
    Return the settings of Airflow 3 for DAG versions of the folder that a link shows.
    """
    bundle = {
        "name": "dags",
        "classpath": "airflow_sidecar_bundle.SidecarDagBundle",
        "kwargs": {"path": str(dags), "refresh_interval": 1},
    }
    return {
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
        "PYTHONPATH": str(ROOT / "airflow-bundle"),
    }


def short_loops(version: Version) -> dict[str, str]:
    """
    Return the settings that make Airflow read its DAG folder more often than by default.
    """
    section = "DAG_PROCESSOR" if version == "3" else "SCHEDULER"
    common = {
        f"AIRFLOW__{section}__MIN_FILE_PROCESS_INTERVAL": str(PARSE_SECONDS),
        f"AIRFLOW__{section}__PARSING_PROCESSES": "1",
        "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
        "AIRFLOW__CORE__MIN_SERIALIZED_DAG_FETCH_INTERVAL": "0",
    }
    if version == "2.11":
        return {**common, "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "1"}
    return {
        **common,
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "1",
        "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
        "AIRFLOW__FAB__CACHE_TTL": "1",
    }
