"""
The processes of a real Airflow with its settings in this demo, and a user of its API.
"""

import base64
import json
import signal
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from tests import ROOT
from tests.support.airflow.installed import Airflow, Version
from tests.support.airflow.sync_perm import descendants_of, signal_all
from tests.support.daemon import SidecarProcess, ask
from tests.support.program import own_port

PATIENCE_SECONDS = 300.0
"""The longest wait for Airflow: the machine may be small and busy."""
PARSE_SECONDS = 15
COMMANDS: Mapping[Version, tuple[tuple[str, ...], ...]] = {
    "3": (
        ("api-server", "--workers", "1"),
        ("scheduler", "--skip-serve-logs"),
        ("dag-processor",),
    ),
    "2.11": (("webserver", "--workers", "1"), ("scheduler", "--skip-serve-logs")),
}
"""The first command of each version answers HTTP, the last one reads the DAG folder."""
API: Mapping[Version, str] = {"3": "/api/v2", "2.11": "/api/v1"}
SECRET = "only the processes of this demo know it: 64 bytes and a bit more"


class Components:
    """
    Airflow's long-running processes, and the settings that make them read the folder
    often.

    Args:
        url: The URL of the metadata database.
        home: HOME of all processes.
        dags: The DAG folder.
        settings: More variables, which the tasks inherit.
    """

    def __init__(
        self,
        airflow: Airflow,
        url: str,
        home: Path,
        dags: Path,
        settings: Mapping[str, str],
    ) -> None:
        self.airflow = airflow
        self.home = home
        self.port = own_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.notes = home / "notes"
        """The file in which tasks write notes for the demo."""
        self.processes: dict[str, SidecarProcess] = {}
        """By name, for example `scheduler`."""
        self._commands = COMMANDS[airflow.version]
        self._stack = ExitStack()
        section = "DAG_PROCESSOR" if airflow.is_3 else "SCHEDULER"
        self._environment = {
            **airflow.environment(url, home),
            "NOTES": str(self.notes),
            "PYTHONDONTWRITEBYTECODE": "1",  # as on the read-only mount of a pod
            f"AIRFLOW__{section}__MIN_FILE_PROCESS_INTERVAL": str(PARSE_SECONDS),
            f"AIRFLOW__{section}__PARSING_PROCESSES": "1",
            "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
            "AIRFLOW__CORE__MIN_SERIALIZED_DAG_FETCH_INTERVAL": "0",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "1",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            **(self._of_3(dags) if airflow.is_3 else self._of_2()),
            **settings,
        }

    def _of_3(self, dags: Path) -> dict[str, str]:
        bundle = {
            "name": "dags",
            "classpath": "airflow_sidecar_bundle.SidecarDagBundle",
            "kwargs": {"path": str(dags), "refresh_interval": 1},
        }
        return {
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "1",
            "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
            "AIRFLOW__FAB__CACHE_TTL": "1",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.endpoint}/execution/",
            "AIRFLOW__API_AUTH__JWT_SECRET": SECRET,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__SECRET_KEY": SECRET,
            "PYTHONPATH": str(ROOT / "airflow-bundle"),
        }

    def _of_2(self) -> dict[str, str]:
        backend = "airflow.providers.fab.auth_manager.api.auth.backend.basic_auth"
        return {
            "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "1",
            "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
            "AIRFLOW__WEBSERVER__SECRET_KEY": SECRET,
            "AIRFLOW__API__AUTH_BACKENDS": backend,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        running = [
            process.pid for process in self.processes.values() if process.is_running()
        ]
        below = [pid for above in running for pid in descendants_of(above)]
        self._stack.close()
        # LocalExecutor's workers outlive their scheduler
        signal_all(below, signal.SIGKILL)

    @property
    def web(self) -> SidecarProcess:
        """
        The process that answers HTTP.
        """
        return self.processes[COMMANDS[self.airflow.version][0][0]]

    @property
    def parser(self) -> SidecarProcess:
        """
        The process that reads the DAG folder.
        """
        return self.processes[COMMANDS[self.airflow.version][-1][0]]

    def start(self) -> None:
        """
        Start all processes, and return immediately.
        """
        (self.home / "airflow").mkdir(parents=True, exist_ok=True)
        for command in self._commands:
            more = (
                ("--port", str(self.port))
                if command[0] in ("api-server", "webserver")
                else ()
            )
            program = self.airflow.bin / "airflow"
            process = SidecarProcess(
                program, self._environment, self.home, (*command, *more)
            )
            process.patience_seconds = PATIENCE_SECONDS
            self.processes[command[0]] = self._stack.enter_context(process)

    def restart(self, name: str) -> None:
        """
        Kill a process with all its descendants, and start it again.
        """
        below = descendants_of(self.processes[name].pid)
        self.processes[name].kill()
        signal_all(below, signal.SIGKILL)
        self.processes[name].start()

    def wait_until_answers(self) -> None:
        """
        Wait for the first successful answer of the API.
        """
        address = ("127.0.0.1", self.port)
        path = f"{API[self.airflow.version]}/version"

        def answers() -> bool:
            with suppress(OSError, HTTPException):
                return ask(address, path, timeout_seconds=20).status == 200
            return False

        self.web.wait_for(answers, "Airflow's API answers")


class Person:
    """
    A user of the API with a name and a password.
    """

    def __init__(self, components: Components, name: str, password: str) -> None:
        self._version = components.airflow.version
        self._endpoint = components.endpoint
        self._name = name
        self._password = password
        self._opener = build_opener(ProxyHandler({}))
        self._authorization = ""

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """
        Return the status and body of a request to the API.
        """
        if not self._authorization:
            self._authorization = self._log_in()
        headers = {"Authorization": self._authorization}
        return self._send(method, API[self._version] + path, body, headers)

    def may_read(self, dag_id: str) -> bool:
        """
        Whether Airflow shows a DAG to this user.
        """
        status, answer = self.ask("GET", f"/dags/{dag_id}")
        assert status in (200, 403), f"GET /dags/{dag_id}: {status} {answer}"
        return status == 200

    def trigger(self, dag_id: str) -> str:
        """
        Trigger a run of a DAG and return its id.
        """
        body = {"logical_date": None} if self._version == "3" else {}
        status, answer = self.ask("POST", f"/dags/{dag_id}/dagRuns", body)
        assert status == 200, f"POST /dags/{dag_id}/dagRuns: {status} {answer}"
        return str(answer["dag_run_id"])

    def clear(self, dag_id: str, run_id: str) -> None:
        """
        Clear all tasks of a run, so that they run again.
        """
        path = f"/dags/{dag_id}/dagRuns/{run_id}/clear"
        status, answer = self.ask("POST", path, {"dry_run": False})
        assert status == 200, f"POST {path}: {status} {answer}"

    def state_of(self, dag_id: str, run_id: str) -> str:
        """
        Return the state of a run.
        """
        _, answer = self.ask("GET", f"/dags/{dag_id}/dagRuns/{run_id}")
        return str(answer.get("state", answer))

    def _log_in(self) -> str:
        if self._version == "2.11":
            pair = f"{self._name}:{self._password}"
            return f"Basic {base64.b64encode(pair.encode()).decode()}"
        body = {"username": self._name, "password": self._password}
        status, answer = self._send("POST", "/auth/token", body, {})
        assert status == 201, f"POST /auth/token: {status} {answer}"
        return f"Bearer {answer['access_token']}"

    def _send(
        self, method: str, path: str, body: Any, headers: dict[str, str]
    ) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            **headers,
        }
        request = Request(self._endpoint + path, data, headers, method=method)
        try:
            with self._opener.open(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            return error.code, {"error": error.read().decode(errors="replace")[-300:]}
