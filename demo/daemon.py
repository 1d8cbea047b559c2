"""
A real sidecar as a process: its environment, log, HTTP answers and end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

PATIENCE_SECONDS = 20.0

T = TypeVar("T")

_opener = build_opener(ProxyHandler({}))


class StepFailed(Exception):
    """
    A check of the demo failed.
    """


class Daemon:
    """
    A process; leaving the `with` statement kills it if it still runs.

    Args:
        program: Its console script, or the path of another program.
        environment: Its complete environment.
        log: The file for its output.
        arguments: The command line.
        patience_seconds: The longest wait for a condition.
    """

    def __init__(
        self,
        program: str | Path,
        environment: Mapping[str, str],
        log: Path,
        arguments: Sequence[str] = (),
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self.name = " ".join([Path(program).name, *arguments])
        self.log = log
        self._patience_seconds = patience_seconds
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).parent / program), *arguments],
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
        Kill it with SIGKILL, including its process group: it may have a child.
        """
        if self._process.poll() is None:  # afterwards the id may belong to another process
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def lines(self) -> list[str]:
        """
        Return the complete lines of the log so far.
        """
        return self.log.read_text(errors="replace").split("\n")[:-1]

    def find_event(self, name: str, **match: object) -> dict[str, Any] | None:
        """
        Return the last event with this name and these values.
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
            StepFailed: The condition was not met in time, or the daemon ended.
        """
        deadline = time.monotonic() + self._patience_seconds
        while True:
            value = condition()
            if value:
                return value
            if self._process.poll() is not None:
                raise StepFailed(f"{what}: the daemon ended with code {self._process.returncode}")
            if time.monotonic() > deadline:
                raise StepFailed(f"{what}: not within {self._patience_seconds:g} s")
            time.sleep(0.02)

    def url(self) -> str:
        """
        Return the address of its endpoint from its log.
        """
        event = self.wait_for(lambda: self.find_event("http_listening"), "it listens")
        return f"http://{event['address']}"

    def get(self, path: str) -> tuple[int, str]:
        """
        Return the status and body of a GET request.
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

    def metric(self, sample: str) -> float:
        """
        Return a sample of /metrics, 0 if it does not exist.

        Args:
            sample: Name and labels, as in the exposition.
        """
        for line in self.get("/metrics")[1].splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        return 0.0

    @property
    def pid(self) -> int:
        """
        The process id.
        """
        return self._process.pid

    def sighup(self) -> None:
        """
        Trigger a cycle with SIGHUP.
        """
        self._process.send_signal(signal.SIGHUP)

    def terminate(self, within_seconds: float = 1.0) -> float:
        """
        Send SIGTERM and return the seconds until the process ended.

        Raises:
            StepFailed: It took longer than `within_seconds`, or the exit code was not 0.
        """
        began = time.monotonic()
        self.ask_to_end()
        code = self.wait_for_end(self._patience_seconds)
        seconds = time.monotonic() - began
        if code != 0 or seconds > within_seconds:
            raise StepFailed(f"SIGTERM ended it after {seconds:.2f} s with code {code}")
        return seconds

    @contextmanager
    def held(self) -> Iterator[None]:
        """
        Stop it (SIGSTOP), and continue it afterwards.
        """
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def ask_to_end(self) -> None:
        """
        Send SIGTERM, and return immediately.
        """
        self._process.send_signal(signal.SIGTERM)

    def wait_for_end(self, timeout_seconds: float) -> int:
        """
        Wait for the process to end and return its exit code.

        Raises:
            StepFailed: It did not end in time.
        """
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise StepFailed("SIGTERM did not end it") from None
