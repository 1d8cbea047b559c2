"""
A live Airflow 3 over the releases of a real s3-sync: its runs, and what code they ran.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from demo.airflow.components import Components
from tests.support.airflow import Airflow
from tests.support.databases import Database
from tests.support.waiting import wait_until

DAG_ID = "marked"
# What a component of Airflow may take for anything, on a small machine that has other work.
PATIENCE_SECONDS = 240.0
_DAG = '''
"""Each task notes which code it runs: this file's, a module's, and that of a file of data."""

import json, os, time
from pathlib import Path

from airflow.sdk import DAG, task

import mark_module

MARK = "{mark}"
HERE = Path(__file__).parent


def note(context):
    line = {{
        "run": context["run_id"],
        "task": context["ti"].task_id,
        "marks": [MARK, mark_module.MARK, (HERE / "mark.txt").read_text()],
    }}
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(json.dumps(line) + "\\n")


with DAG("marked", schedule=None, description=MARK):
    @task
    def first(**context):
        note(context)
        go = Path(os.environ["NOTES"] + "." + context["run_id"])
        while not go.exists():
            time.sleep(0.05)

    @task
    def second(**context):
        note(context)

    @task
    def third(**context):
        note(context)

    first() >> second() >> third()
'''


def files_of(mark: str) -> dict[str, bytes]:
    """
    A release whose every file has one mark.
    """
    return {
        "marked.py": _DAG.format(mark=mark).encode(),
        "mark_module.py": f'MARK = "{mark}"\n'.encode(),
        "mark.txt": mark.encode(),
    }


def settings_for(home: Path) -> dict[str, str]:
    """
    What Airflow's components get besides their own: everybody is an admin.
    """
    return {
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home / "bundles"),
        "AIRFLOW__CORE__AUTH_MANAGER": (
            "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "1",
    }


@dataclass
class Live:
    """
    Airflow's processes, its API and its metadata.

    Args:
        notes: Where tasks write down what they run.
    """

    components: Components
    database: Database
    notes: Path

    def __post_init__(self) -> None:
        self._opener = build_opener(ProxyHandler({}))
        self._token = ""

    def start(self) -> None:
        """
        Start all components, and wait for the API.
        """
        self.components.start()
        self.components.wait_until_answers()

    def wait_for_version(self, version: str) -> None:
        """
        Wait until Airflow's newest version of the DAG is one of the bundle's.
        """
        sql = (
            "SELECT bundle_version FROM dag_version WHERE dag_id = %s"
            " ORDER BY version_number DESC LIMIT 1"
        )

        def is_known() -> bool:
            return self.database.query(sql, (DAG_ID,)) == [(version,)]

        wait_until(is_known, f"Airflow knows {version}", PATIENCE_SECONDS, 0.2)

    def trigger(self) -> str:
        """
        Start a run; return its id.
        """
        return str(
            self.ask("POST", f"/dags/{DAG_ID}/dagRuns", {"logical_date": None})["dag_run_id"]
        )

    def let_go(self, run: str) -> None:
        """
        Let the first task of a run end.
        """
        Path(f"{self.notes}.{run}").touch()

    def clear(self, run: str, *tasks: str) -> None:
        """
        Have some tasks of a run done again.
        """
        body = {"dry_run": False, "dag_run_id": run, "task_ids": list(tasks), "only_failed": False}
        self.ask("POST", f"/dags/{DAG_ID}/clearTaskInstances", body)

    def state_of(self, run: str) -> str:
        """
        Return the state of a run.
        """
        return str(self.ask("GET", f"/dags/{DAG_ID}/dagRuns/{run}")["state"])

    def wait_for(self, run: str, *states: str) -> str:
        """
        Wait for the end of a run; return its state.
        """
        wait_until(lambda: self.state_of(run) in states, f"{run}: {states}", PATIENCE_SECONDS, 0.2)
        return self.state_of(run)

    def version_of(self, run: str) -> str:
        """
        Return the version that Airflow has for a run.
        """
        sql = "SELECT bundle_version FROM dag_run WHERE run_id = %s"
        return str(self.database.query(sql, (run,))[0][0])

    def noted(self, run: str) -> list[tuple[str, str]]:
        """
        What the tasks of a run have noted: their names, and the marks of all that they ran.
        """
        if not self.notes.exists():
            return []
        lines = map(json.loads, self.notes.read_text().splitlines())
        return [
            (line["task"], "+".join(sorted(set(line["marks"]))))
            for line in lines
            if line["run"] == run
        ]

    def wait_for_note(self, run: str, task: str) -> None:
        """
        Wait until a task of a run has noted something.
        """
        wait_until(lambda: task in dict(self.noted(run)), f"{task} of {run}", PATIENCE_SECONDS, 0.1)

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """
        Return the answer of the API.
        """
        if not self._token:
            self._token = self._send("GET", "/auth/token", None, {})["access_token"]
        headers = {"Authorization": f"Bearer {self._token}"}
        return self._send(method, f"/api/v2{path}", body, headers)

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, headers: dict[str, str]
    ) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
        request = Request(self.components.endpoint + path, data, headers, method=method)
        answers: list[Any] = []

        def is_answered() -> bool:
            try:
                with self._opener.open(request, timeout=60) as answer:
                    answers.append(json.load(answer))
            except HTTPError as error:
                if error.code < 500:  # the others pass: it is busy
                    said = error.read().decode(errors="replace")
                    raise AssertionError(f"{method} {path}: {error.code} {said}") from None
            return bool(answers)

        wait_until(is_answered, f"an answer to {method} {path}", step_seconds=1)
        return answers[0]


def open_live(airflow: Airflow, database: Database, home: Path, link: Path) -> Live:
    """
    An Airflow over a volume, not started.
    """
    components = Components(airflow, database.url, home / "airflow", link, settings_for(home))
    return Live(components, database, components.notes)
