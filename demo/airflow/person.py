"""
A user of Airflow's REST API with a name and a password.
"""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from demo.airflow.components import API
from demo.daemon import StepFailed
from tests.support.airflow.installed import Version


class Person:
    """
    A user of the API.
    """

    def __init__(self, version: Version, endpoint: str, name: str, password: str) -> None:
        self._version = version
        self._endpoint = endpoint
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
        if status not in (200, 403):
            raise StepFailed(f"GET /dags/{dag_id}: {status} {answer}")
        return status == 200

    def trigger(self, dag_id: str) -> str:
        """
        Trigger a run of a DAG and return its id.
        """
        body = {"logical_date": None} if self._version == "3" else {}
        status, answer = self.ask("POST", f"/dags/{dag_id}/dagRuns", body)
        if status != 200:
            raise StepFailed(f"POST /dags/{dag_id}/dagRuns: {status} {answer}")
        return str(answer["dag_run_id"])

    def state_of(self, dag_id: str, run_id: str) -> str:
        """
        Return the state of a run.
        """
        _, answer = self.ask("GET", f"/dags/{dag_id}/dagRuns/{run_id}")
        return str(answer.get("state", answer))

    def clear(self, dag_id: str, run_id: str, task_id: str) -> bool:
        """
        Clear a task of a run, so that it runs again; return whether this user is allowed to.
        """
        body = {"dry_run": False, "only_failed": False, "dag_run_id": run_id, "task_ids": [task_id]}
        status, answer = self.ask("POST", f"/dags/{dag_id}/clearTaskInstances", body)
        if status not in (200, 403):
            raise StepFailed(f"POST /dags/{dag_id}/clearTaskInstances: {status} {answer}")
        return status == 200

    def _log_in(self) -> str:
        if self._version == "2.11":
            pair = f"{self._name}:{self._password}"
            return f"Basic {base64.b64encode(pair.encode()).decode()}"
        body = {"username": self._name, "password": self._password}
        status, answer = self._send("POST", "/auth/token", body, {})
        if status != 201:
            raise StepFailed(f"POST /auth/token: {status} {answer}")
        return f"Bearer {answer['access_token']}"

    def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json", **headers}
        request = Request(self._endpoint + path, data, headers, method=method)
        try:
            with self._opener.open(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            return error.code, {"error": error.read().decode(errors="replace")[-300:]}
