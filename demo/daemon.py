"""
A real sidecar as a process: its environment, its log, its HTTP answers, its end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

PATIENCE_SECONDS = 20.0

T = TypeVar("T")

_opener = build_opener(ProxyHandler({}))


class StepFailed(Exception):
    """
    Something that the demo promised did not happen.
    """


class Daemon:
    """
    One process; leaving the `with` statement kills what still runs.

    Args:
        program: Its console script.
        environment: All that it gets.
        log: Where its standard output goes.
    """

    def __init__(self, program: str, environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).with_name(program))],
                env=dict(environment),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """
        End it by SIGKILL, with its group: it may have a child at this moment.
        """
        if self._process.poll() is None:  # afterwards the number may be another's
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def lines(self) -> list[str]:
        """
        Return the log so far, whole lines only.
        """
        return self.log.read_text(errors="replace").split("\n")[:-1]

    def find_event(self, name: str, **match: object) -> dict[str, Any] | None:
        """
        Return the last event of that name with these values.
        """
        for line in reversed(self.lines()):
            event: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
            if event.get("event") == name and match.items() <= event.items():
                return event
        return None

    def wait_for(self, condition: Callable[[], T | None], what: str) -> T:
        """
        Return the first true value of a condition.

        Raises:
            StepFailed: Not in time, or the daemon ended.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            value = condition()
            if value:
                return value
            if self._process.poll() is not None:
                raise StepFailed(f"{what}: the daemon ended with code {self._process.returncode}")
            if time.monotonic() > deadline:
                raise StepFailed(f"{what}: not within {PATIENCE_SECONDS:g} s")
            time.sleep(0.02)

    def url(self) -> str:
        """
        Return the address of its endpoint, as its log names it.
        """
        event = self.wait_for(lambda: self.find_event("http_listening"), "it listens")
        return f"http://{event['address']}"

    def get(self, path: str) -> tuple[int, str]:
        """
        Return status and body of one request.
        """
        try:
            with _opener.open(self.url() + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    def readiness(self) -> dict[str, Any]:
        """
        Return the body of /readyz, with its status code as `code`.
        """
        code, body = self.get("/readyz")
        return {**json.loads(body), "code": code}

    def sighup(self) -> None:
        """
        Ask for a cycle now.
        """
        self._process.send_signal(signal.SIGHUP)

    def terminate(self) -> float:
        """
        Send SIGTERM and return the seconds to its end.

        Raises:
            StepFailed: It took longer than a second, or the exit code was not 0.
        """
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise StepFailed("SIGTERM did not end it") from None
        seconds = time.monotonic() - began
        if code != 0 or seconds > 1:
            raise StepFailed(f"SIGTERM ended it after {seconds:.2f} s with code {code}")
        return seconds
