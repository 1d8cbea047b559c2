"""
Airflow's REST API as `s3-sync wait` asks it: that of Airflow 3, and gently.

At most one request a second; a server that is busy or restarts is asked again, each
time later. Facts about the API are those of apache-airflow 3.3.2.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from sidecar_runtime.errors import Problem, SettingsError, SidecarError

PREFIX = "AIRFLOW_API_"
PACE_SECONDS = 1.0
REQUEST_SECONDS = 60.0
# Waits before a request is repeated: a server restarts within a minute.
PAUSES_SECONDS = (2.0, 4.0, 8.0, 16.0, 30.0)
# Of a busy server, or of a proxy before one that restarts.
BUSY = {429, 500, 502, 503, 504}
ANSWER_LIMIT_BYTES = 1 << 25
# The default of [api] maximum_page_limit; and far more pages than an Airflow has.
PAGE_ROWS = 100
PAGES_LIMIT = 500
UNSUPPORTED = (
    "airflow_unsupported",
    f"Waiting needs Airflow 3.1 or later. If it is one, correct {PREFIX}URL.",
)
# What an answer without success means: the reason, and what to do.
REFUSED = {
    401: (
        "airflow_denied",
        f"Correct {PREFIX}TOKEN, or {PREFIX}USERNAME and {PREFIX}PASSWORD.",
    ),
    403: ("airflow_denied", "Add to the user's role the permission `{}`."),
    404: UNSUPPORTED,
}
OTHER = (
    "airflow_unreachable",
    f"Check {PREFIX}URL, HTTPS_PROXY, SSL_CERT_FILE, and what is in front of Airflow.",
)


class _NoRedirect(HTTPRedirectHandler):
    """
    Follows no redirect: urllib would send the token along, to any host.
    """

    def redirect_request(self, *_: Any) -> None:
        return None


class Api:
    """
    The API of one Airflow.

    Args:
        environ: Has its URL, and a token, or user and password.

    Raises:
        SettingsError: A variable is missing or wrong.
        SidecarError: From every method: Airflow refuses, or gives no usable answer.
            Neither contains the token or the password.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        names = ("URL", "TOKEN", "USERNAME", "PASSWORD")
        url, token, user, password = (
            environ.get(f"{PREFIX}{name}", "").strip() for name in names
        )
        if not re.fullmatch(r"https?://[^\s@?#]+", url):
            what = "must be the http(s) URL of Airflow, without user and password"
            raise SettingsError([Problem(f"{PREFIX}URL", None, what)])
        if not re.fullmatch("[!-~]*", token):  # http.client would show it
            token = ""
        if not token and not (user and password):
            what = f"must be a token; or set {PREFIX}USERNAME and {PREFIX}PASSWORD"
            raise SettingsError([Problem(f"{PREFIX}TOKEN", None, what)])
        self.url = url.rstrip("/")
        self._deadline = 0.0
        self._token = token
        self._login = {"username": user, "password": password}
        self._headers = {"Content-Type": "application/json"}
        self._next = 0.0
        self._opener = build_opener(_NoRedirect)

    def begin(self, deadline: float) -> None:
        """
        Find out that this is an Airflow 3, and log in.

        Args:
            deadline: Until when requests are repeated, on the monotonic clock.
        """
        self._deadline = deadline
        self.ask("GET", "/api/v2/version")
        if not self._token:
            said = self.ask("POST", "/auth/token", body=self._login)
            self._token = said["access_token"]
        self._headers["Authorization"] = f"Bearer {self._token}"

    def rows(self, path: str, name: str, right: str) -> list[dict[str, Any]]:
        """
        Return all rows of a collection, which is read in pages.

        Args:
            right: The permission that it needs.
        """
        rows: list[dict[str, Any]] = []
        for _ in range(PAGES_LIMIT):
            page = f"limit={PAGE_ROWS}&offset={len(rows)}"
            answer = self.ask("GET", f"/api/v2/{path}{page}", right)
            rows += answer[name]
            if not answer[name] or len(rows) >= answer["total_entries"]:
                break
        return rows

    def ask(self, method: str, path: str, right: str = "", body: Any = None) -> Any:
        """
        Send one request; return the JSON of the answer.
        """
        status, text = self._send(method, path, body)
        said = None
        with suppress(ValueError, RecursionError):
            said = json.loads(text)
        if status < 300 and (said is not None or method == "PUT"):
            return said
        reason, advice = REFUSED.get(status, OTHER)
        what = f"{self.url} answers {method} {path.partition('?')[0]} with {status}"
        if isinstance(said, dict) and body is None:  # else it may repeat the password
            what += f" {said.get('detail', ''):.300}"
        raise SidecarError(reason, what, advice.format(right))

    def _send(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        """
        Return status and body of an answer that is not that of a busy server.
        """
        data = None if body is None else json.dumps(body).encode()
        url = self.url + path
        request = Request(url, data, self._headers, method=method)  # noqa: S310 - http(s)
        for pause in (*PAUSES_SECONDS, 0.0):
            time.sleep(max(0.0, self._next - time.monotonic()))
            self._next = time.monotonic() + PACE_SECONDS
            try:
                with self._opener.open(request, timeout=REQUEST_SECONDS) as answer:
                    return answer.status, answer.read(ANSWER_LIMIT_BYTES)
            except HTTPError as error:
                with error:
                    if error.code not in BUSY:
                        return error.code, error.read(ANSWER_LIMIT_BYTES)
                    why = f"{error.code} {error.reason}"
            except (OSError, HTTPException) as error:
                why = str(error) or type(error).__name__
            self._next = time.monotonic() + pause
            if self._next > self._deadline:
                break
        raise SidecarError(OTHER[0], f"{self.url} does not answer: {why}", OTHER[1])
