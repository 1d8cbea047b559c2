"""
The part of Airflow 3's REST API that `s3-sync wait` asks, as of apache-airflow 3.3.2.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from tests import Facts, Texts
from tests.support.http.loopback import Answer, LoopbackServer, Request

TOKEN = "eyJ-only-this-test-knows-it"
USER = {"username": "ci", "password": "p4ss w\u00f6rd"}


def at(seconds: float) -> str:
    """
    Return the time so many seconds from now, as Airflow writes it.
    """
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


class FakeAirflow(LoopbackServer):
    """
    An Airflow whose DAGs and import errors a test sets.

    Attributes:
        is_parsing: Whether it parses each file again after each look.
        error_rows: How often an import error counts: before Airflow 3.3, once for each
            DAG of its file.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_parsing = True
        self.error_rows = 1
        self.dags: dict[str, Facts] = {}
        self.errors: list[Facts] = []
        self.sources: Texts = {}
        self.bundle = "dags"

    def settings(self) -> Texts:
        """
        Return the variables of its user.
        """
        return {
            "AIRFLOW_API_URL": self.endpoint,
            **{f"AIRFLOW_API_{name.upper()}": text for name, text in USER.items()},
        }

    def show(
        self, dag_id: str, version: str | None, *, ended: float = 0, took: float = 1
    ) -> None:
        """
        Show a DAG as of this version.

        Args:
            ended: When its parse ended, in seconds from now.
            took: How many seconds the parse took.
        """
        self.dags[dag_id] = {
            "dag_id": dag_id,
            "relative_fileloc": f"{dag_id}.py",
            "bundle_name": self.bundle,
            "bundle_version": version,
            "last_parsed_time": at(ended),
            "last_parse_duration": took,
        }

    def break_file(self, path: str, stack: str) -> None:
        self.errors.append(
            {
                "filename": path,
                "stack_trace": stack,
                "bundle_name": self.bundle,
                "timestamp": at(0),
            }
        )

    def good_answer(self, request: Request) -> Answer:
        path = request.path.removeprefix("/api/v2")
        if path == "/auth/token":
            return (
                _json(201, {"access_token": TOKEN})
                if json.loads(request.body) == USER
                else _json(401)
            )
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return _json(401)
        if path.startswith("/dagSources/"):
            return _json(200, {"content": self.sources[path[12:]]})
        if path == "/importErrors":
            return _page(request, "import_errors", self.errors * self.error_rows)
        assert path == "/dags", request
        page = _page(request, "dags", list(self.dags.values()))
        if self.is_parsing:
            later = 3600 * len(self.requests)
            for name, row in self.dags.items():
                self.show(name, row["bundle_version"], ended=later)
            for error in self.errors:
                error["timestamp"] = at(later)
        return page


def _page(request: Request, name: str, rows: list[Facts]) -> Answer:
    first, limit = (int(request.query[key]) for key in ("offset", "limit"))
    page = rows[first : first + min(limit, 100)]
    shown = [row for number, row in enumerate(page) if row not in page[:number]]
    return _json(200, {name: shown, "total_entries": len(rows)})


def _json(status: int, said: Any = None) -> Answer:
    return Answer(
        status,
        {"Content-Type": "application/json"},
        json.dumps({"detail": "no"} if status >= 400 else said).encode(),
    )
