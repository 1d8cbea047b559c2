"""
Runs of a DAG on a live Airflow 3, and which version of the code each task executed.
"""

import json
import threading
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener
from urllib.request import Request as Question

from tests import Bodies, Texts
from tests.support.airflow.databases import Database
from tests.support.http.loopback import Answer, LoopbackServer, Request
from tests.support.waiting import wait_until

DAG_ID = "marked"
TASKS = ("first", "second", "third")
# The longest wait for a component of Airflow, on a small and busy machine.
PATIENCE_SECONDS = 240.0
_DAG = '''
"""Each task says which code it runs: this file's, a module's, and that of a file of data."""

import json
from pathlib import Path
from urllib.request import Request, urlopen

from airflow.sdk import DAG, task

import mark_module

MARK = "{mark}"
HERE = Path(__file__).parent


def note(name, context):
    line = {{
        "run": context["run_id"],
        "task": name,
        "marks": [MARK, mark_module.MARK, (HERE / "mark.txt").read_text()],
    }}
    urlopen(Request("{notes}", json.dumps(line).encode())).read()


def called(context):
    note("called", context)


with DAG("marked", schedule=None, description=MARK{options}):
    @task
    def first(**context):
        note("first", context)

    @task
    def second(**context):
        note("second", context)

    @task
    def third(**context):
        note("third", context)

    first() >> second() >> third()
'''


class Notes(LoopbackServer):
    """
    Receives notes from tasks; blocks the first task of each run until the run is
    released.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__(host=host)
        self._may_go: dict[str, threading.Event] = {}

    def good_answer(self, request: Request) -> Answer:
        line = json.loads(request.body)
        if line["task"] == TASKS[0]:
            self._event(line["run"]).wait()
        return Answer(200)

    def let_go(self, run: str) -> None:
        """
        Release the first task of a run, now or as soon as it starts.
        """
        self._event(run).set()

    def of(self, run: str) -> list[tuple[str, str]]:
        """
        Return a run's notes: each task's name, and the marks of all the code that it
        executed.
        """
        return [
            (line["task"], "+".join(sorted(set(line["marks"]))))
            for line in [json.loads(request.body) for request in self.seen()]
            if line["run"] == run
        ]

    def files_of(self, mark: str, **options: str) -> Bodies:
        """
        Return the files of a release, all with the same mark.

        Args:
            options: More arguments of the DAG, as source code.
        """
        more = "".join(f", {name}={value}" for name, value in options.items())
        return {
            "marked.py": _DAG.format(
                mark=mark, notes=self.endpoint, options=more
            ).encode(),
            "mark_module.py": f'MARK = "{mark}"\n'.encode(),
            "mark.txt": mark.encode(),
        }

    def _event(self, run: str) -> threading.Event:
        return self._may_go.setdefault(run, threading.Event())


class Runs:
    """
    An Airflow in which every user is an admin: its API, its metadata, and its tasks'
    notes.
    """

    def __init__(self, endpoint: str, database: Database, notes: Notes) -> None:
        self.endpoint = endpoint
        self.database = database
        self.notes = notes
        self._opener = build_opener(ProxyHandler({}))
        self._token = ""

    def wait_for_version(self, version: str) -> None:
        """
        Wait until Airflow's newest version of the DAG is from this version of the
        bundle.
        """
        sql = (
            "SELECT bundle_version FROM dag_version WHERE dag_id = %s"
            " ORDER BY version_number DESC LIMIT 1"
        )

        def is_known() -> bool:
            return self.database.query(sql, (DAG_ID,)) == [(version,)]

        wait_until(is_known, f"Airflow knows {version}", PATIENCE_SECONDS, 0.2)

    def wait_for_description(self, description: str) -> None:
        """
        Wait until the DAG has this description, which means that Airflow has parsed its
        file.
        """

        wait_until(
            lambda: self.ask("GET", f"/dags/{DAG_ID}")["description"] == description,
            f"the description {description}",
            PATIENCE_SECONDS,
            0.2,
        )

    def unpause(self) -> None:
        self.ask("PATCH", f"/dags/{DAG_ID}", {"is_paused": False})

    def begin(self) -> str:
        """
        Trigger a run, wait until its first task runs, and return its id.
        """
        run = str(
            self.ask("POST", f"/dags/{DAG_ID}/dagRuns", {"logical_date": None})[
                "dag_run_id"
            ]
        )
        self.wait_for_note(run, TASKS[0])
        return run

    def clear(self, run: str, *tasks: str) -> None:
        """
        Clear tasks of a run, so that they run again.
        """
        body = {
            "dry_run": False,
            "dag_run_id": run,
            "task_ids": list(tasks),
            "only_failed": False,
        }
        self.ask("POST", f"/dags/{DAG_ID}/clearTaskInstances", body)

    def state_of(self, run: str) -> str:
        return str(self.ask("GET", f"/dags/{DAG_ID}/dagRuns/{run}")["state"])

    def wait_for(self, run: str, *states: str) -> str:
        """
        Wait until a run is in one of these states; return its state.
        """
        wait_until(
            lambda: self.state_of(run) in states,
            f"{run}: {states}",
            PATIENCE_SECONDS,
            0.2,
        )
        return self.state_of(run)

    def version_of(self, run: str) -> str:
        """
        Return the bundle version that Airflow recorded for a run.
        """
        return str(
            self.database.query(
                "SELECT bundle_version FROM dag_run WHERE run_id = %s", (run,)
            )[0][0]
        )

    def wait_for_note(self, run: str, task: str) -> None:
        """
        Wait until a task of a run has sent a note.
        """
        wait_until(
            lambda: task in dict(self.notes.of(run)),
            f"{task} of {run}",
            PATIENCE_SECONDS,
            0.1,
        )

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """
        Send a request to the API and return its answer.
        """
        if not self._token:
            self._token = self._send("GET", "/auth/token", None, {})["access_token"]
        return self._send(
            method, f"/api/v2{path}", body, {"Authorization": f"Bearer {self._token}"}
        )

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        headers: Texts,
    ) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
        question = Question(self.endpoint + path, data, headers, method=method)
        answers: list[Any] = []

        def is_answered() -> bool:
            try:
                with self._opener.open(question, timeout=PATIENCE_SECONDS) as answer:
                    answers.append(json.load(answer))
            except HTTPError as error:
                if error.code < 500:  # 5xx is temporary: Airflow is busy
                    said = error.read().decode(errors="replace")
                    raise AssertionError(
                        f"{method} {path}: {error.code} {said}"
                    ) from None
            return bool(answers)

        wait_until(is_answered, f"an answer to {method} {path}", step_seconds=1)
        return answers[0]
