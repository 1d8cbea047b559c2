"""
Airflow's REST API as `s3-sync wait` asks it: that of Airflow 3, and gently.

At most one request a second; a server that is busy or restarts is asked again, each
time later. Facts about the API are those of apache-airflow 3.3.2.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPException, IncompleteRead
from typing import Any
from urllib.parse import quote
from urllib.request import HTTPErrorProcessor, Request, build_opener

from sidecar_runtime.errors import Problem, SettingsError, SidecarError

# Waits before a request: doubled before each next try, up to half a minute.
PAUSE_SECONDS = 1.0
# Of a busy server, or of a proxy before one that restarts.
BUSY = {429, 500, 502, 503, 504}
ANSWER_LIMIT_BYTES = 1 << 23
# The default of [api] maximum_page_limit.
PAGE_ROWS = 100
UNSUPPORTED = (
    "airflow_unsupported",
    "Waiting needs Airflow 3.1 or later, and as AIRFLOW_API_URL what precedes its /api/v2.",
)
# What an answer without success means: the reason, and what to do.
REFUSED = {
    401: (
        "airflow_denied",
        "Correct AIRFLOW_API_TOKEN, or AIRFLOW_API_USERNAME and AIRFLOW_API_PASSWORD.",
    ),
    403: ("airflow_denied", "Add to the user's role the permission `{}`."),
    404: UNSUPPORTED,
}
OTHER = (
    "airflow_unreachable",
    "Check AIRFLOW_API_URL, HTTPS_PROXY, SSL_CERT_FILE, and what is in front of Airflow.",
)
# http.client would show one that it cannot send.
TOKEN = re.compile("[!-~]+")
# A DAG or an import error as the API shows it.
Row = dict[str, Any]


class _AsItIs(HTTPErrorProcessor):
    """
    Returns every answer: urllib would follow a redirect to any host, with the token.
    """

    def http_response(self, request: Request, response: Any) -> Any:
        return response

    https_response = http_response


class Api:
    """
    The API of one Airflow.

    Args:
        environ: Has its URL, and a token, or user and password.
        bundle: The name of the bundle that is asked for.
        say: Shows why it waits before it asks again.

    Raises:
        SettingsError: A variable is missing or wrong.
        SidecarError: From every method: Airflow refuses, or gives no usable answer.
            Neither contains the token or the password.
    """

    def __init__(
        self, environ: Mapping[str, str], bundle: str, say: Callable[[str], None]
    ) -> None:
        url, token, user, password = (
            environ.get(f"AIRFLOW_API_{name}", "").strip()
            for name in ("URL", "TOKEN", "USERNAME", "PASSWORD")
        )
        if not re.fullmatch(r"https?://[^\s@?#]+", url):
            what = "must be the http(s) URL of Airflow, without user and password"
            raise SettingsError([Problem("AIRFLOW_API_URL", None, what)])
        self._token = token if TOKEN.fullmatch(token) else ""
        if not (self._token or (user and password)):
            what = (
                "must be a token; or set AIRFLOW_API_USERNAME and AIRFLOW_API_PASSWORD"
            )
            raise SettingsError([Problem("AIRFLOW_API_TOKEN", None, what)])
        self.url = url.rstrip("/")
        self._login = json.dumps({"username": user, "password": password}).encode()
        self._headers = {"Content-Type": "application/json"}
        self._bundle = bundle
        self._say = say
        self._opener = build_opener(_AsItIs)

    def log_in(self) -> None:
        """
        Log in, unless there is a token.
        """
        token = self._token or self.ask("/auth/token", body=self._login)["access_token"]
        if not TOKEN.fullmatch(token):
            raise ValueError("access_token")
        self._headers["Authorization"] = f"Bearer {token}"

    def rows(self, path: str, name: str, right: str) -> list[Row]:
        """
        Return the bundle's rows of a collection, which is read in pages.

        Args:
            right: The permission that it needs.
        """
        rows: list[Row] = []
        offset = 0
        while True:
            answer = self.ask(f"/api/v2/{path}limit={PAGE_ROWS}&offset={offset}", right)
            page = answer[name]
            # Before Airflow 3.3, an import error counts once for each DAG of its file.
            offset += PAGE_ROWS if name == "import_errors" else len(page)
            rows += [row for row in page if row["bundle_name"] == self._bundle]
            if len(page) > PAGE_ROWS:
                raise ValueError("too many rows")
            if offset >= answer["total_entries"]:
                return rows

    def source(self, dag_id: str) -> list[str]:
        """
        Return the lines of a DAG's file; none if Airflow has no source, or no such DAG.
        """
        said = self.ask(f"/api/v2/dagSources/{quote(dag_id)}", "can read on DAG Code")
        return str(said["content"] or "").splitlines()

    def ask(self, path: str, right: str = "", body: Any = None) -> Any:
        """
        Send one request, with POST if it has a body; return the JSON of the answer.
        """
        status, text = self._send(path, body)
        if status == 404 and "/dagSources/" in path:
            return {"content": ""}  # the DAG has gone since it was listed
        with suppress(ValueError, RecursionError):
            if status < 300:
                return json.loads(text)
        # Without what it says: that may repeat the token or the password.
        reason, advice = REFUSED.get(status, OTHER)
        raise SidecarError(
            reason,
            f"{self.url} answers {path} with {status}",
            advice.format(right),
        )

    def _send(self, path: str, body: Any) -> tuple[int, bytes]:
        """
        Return status and body of an answer that is not that of a busy server; try until
        there is one.
        """
        request = Request(self.url + path, body, self._headers)  # noqa: S310 - http(s)
        pause = PAUSE_SECONDS
        while True:
            time.sleep(pause)
            pause = min(2 * pause, 30)
            try:
                with self._opener.open(request, timeout=60) as answer:
                    if answer.status not in BUSY:
                        text = answer.read(ANSWER_LIMIT_BYTES)
                        # It does not notice that the connection was cut.
                        if answer.length and len(text) < ANSWER_LIMIT_BYTES:
                            raise IncompleteRead(text, answer.length)
                        return answer.status, text
                why = f"{answer.status} {answer.reason}"
                asked = answer.headers.get("Retry-After", "")
                if asked.isdecimal():  # it may also be a date
                    pause = max(pause, int(asked[:5]))
            except (OSError, HTTPException) as error:
                why = str(error) or type(error).__name__
            self._say(f"{self.url} does not answer: {why}")
