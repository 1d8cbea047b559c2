"""
A real sidecar as a process: its log lines, HTTP answers and signals.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from tests import Facts, Given, Texts
from tests.support.forks import Forked, start
from tests.support.ledger.seen import Witness
from tests.support.machine.clocks import forget_clock
from tests.support.waiting import PATIENCE_SECONDS, wait_until

VENV_BIN = Path(sys.executable).parent
S3_SYNC = VENV_BIN / "s3-sync"

T = TypeVar("T")
Event = Facts
Settings = dict[str, str | None]
"""Variables; None removes a variable that would be set."""


class Server(Protocol):
    """
    Any of the S3 servers of the suite.
    """

    def environment(self) -> Texts: ...


@dataclass(frozen=True)
class Exit:
    """
    The end of a process.
    """

    code: int
    seconds: float
    """From the signal (or the call of `wait_for_exit`) until the process ended."""


@dataclass(frozen=True)
class Answer:
    """
    An HTTP answer.
    """

    status: int
    headers: Texts
    body: str

    def json(self) -> Any:
        """
        Return the body, parsed as JSON.
        """
        return json.loads(self.body)


def ask(
    address: tuple[str, int],
    path: str,
    method: str = "GET",
    timeout_seconds: float = PATIENCE_SECONDS,
) -> Answer:
    """
    Send an HTTP request on a new connection.
    """
    with contextlib.closing(
        HTTPConnection(*address, timeout=timeout_seconds)
    ) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read().decode()
        return Answer(
            response.status,
            {name.lower(): value for name, value in response.getheaders()},
            body,
        )


class SidecarProcess:
    """
    A sidecar with its own environment; a `with` statement starts it.

    Leaving the `with` statement kills it if it still runs. After the process has ended,
    `start` can be called again: the log starts over.
    """

    patience_seconds = PATIENCE_SECONDS
    """The longest wait of `wait_for`."""

    def __init__(
        self,
        program: Path,
        environment: Given,
        home: Path,
        arguments: Sequence[str] = (),
    ) -> None:
        """
        Describe a process without starting it.

        Args:
            program: The console script, or a script that runs it as another user.
            environment: All variables in addition to PATH and HOME; `None` removes a
                variable.
            home: HOME; created if missing.
            arguments: The command line, for example `("check",)`.
        """
        self.program = program
        self.arguments = tuple(arguments)
        self.home = home
        given = {"PATH": f"{VENV_BIN}:/usr/bin:/bin", "HOME": str(home), **environment}
        self.environment = {
            name: value for name, value in given.items() if value is not None
        }
        self.wrapper: tuple[str, ...] = ()
        """A command that runs the program, for example `setpriv` with arguments."""
        self.events: list[Event] = []
        """Every JSON line of stdout so far, oldest first."""
        self.stray_lines: list[str] = []
        """Everything else on stdout or stderr: tracebacks, warnings."""
        self._witness = Witness(program)
        self._news = threading.Condition()
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._threads: list[threading.Thread] = []

    def start(self) -> Self:
        """
        Start the process and return immediately.
        """
        assert not self.is_running(), "already running"
        self.home.mkdir(parents=True, exist_ok=True)
        self.events = []
        self.stray_lines = []
        self._witness.command(self.arguments, self.environment)
        out, to_out = os.pipe()
        err, to_err = os.pipe()
        command = (*self.wrapper, str(self.program), *self.arguments)
        self._process = start(command, self.environment, (to_out, to_err))
        self._threads = [
            threading.Thread(target=self._collect, args=(end,), daemon=True)
            for end in (out, err)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def _collect(self, end: int) -> None:
        with open(end, "rb") as stream:
            for raw in stream:
                line = raw.decode(errors="replace").rstrip("\n")
                event = None
                if line.startswith("{"):
                    with contextlib.suppress(ValueError):
                        event = json.loads(line)
                with self._news:
                    if event is None:
                        self._witness.output(line)
                        self.stray_lines.append(line)
                    else:
                        self._witness.event(event)
                        self.events.append(event)
                    self._news.notify_all()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self._be_seen()
        self.kill()

    def _be_seen(self) -> None:
        """
        Let the ledger see what a daemon says of itself when its test is over.
        """
        self._witness.record(self.environment)
        if self.is_running() and self.find_events("http_listening"):
            with contextlib.suppress(OSError, HTTPException, ValueError):
                for path in ("/readyz", "/metrics"):
                    self.get(path, timeout_seconds=0.5)

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """
        Return the last 60 events and the last 60 stray lines, for failure messages.
        """
        return "\n".join(
            [
                *[json.dumps(event, ensure_ascii=False) for event in self.events][-60:],
                *self.stray_lines[-60:],
            ]
        )

    def find_events(self, name: str, **match: Any) -> list[Event]:
        """
        Return the log lines so far with this event name and these values.
        """
        return [event for event in list(self.events) if _matches(event, name, match)]

    def wait_for_event(
        self,
        name: str | tuple[str, ...],
        timeout_seconds: float = PATIENCE_SECONDS,
        after: int = 0,
        **match: Any,
    ) -> Event:
        """
        Return the first log line with this event name and these values.

        Args:
            name: The `event`, or several alternatives.
            timeout_seconds: How long to wait.
            after: Skip this many lines: `len(daemon.events)` from before the action.
            match: Values that the line must contain.

        Raises:
            AssertionError: No such line arrived in time, or the process ended without
                it.
        """
        deadline = time.monotonic() + timeout_seconds
        with self._news:
            while True:
                for event in self.events[after:]:
                    if _matches(event, name, match):
                        return event
                rest = deadline - time.monotonic()
                ended = not any(thread.is_alive() for thread in self._threads)
                assert rest > 0 and not ended, (
                    f"no {name} {match} {'before the end' if ended else 'in time'}:\n{self.log()}"
                )
                self._news.wait(min(rest, 0.1))

    def wait_until_synced(self, timeout_seconds: float = PATIENCE_SECONDS) -> Event:
        """
        Wait for the first complete cycle of this process; return its `cycle_finished`
        line.
        """
        return self.wait_for_event("cycle_finished", timeout_seconds)

    def until_synced(self) -> Self:
        """
        Wait for the first complete cycle and return this process:
        `sidecar.start().until_synced()`.
        """
        self.wait_until_synced()
        return self

    def sync(self) -> Event:
        """
        Trigger a cycle with SIGHUP, and wait for the end of a cycle that started
        afterwards.

        Returns:
            Its `cycle_finished` or `cycle_failed` line.
        """
        event: Event = {}
        seen = len(self.events)
        self.sighup()
        # If a cycle is already running, it ends between the first two events.
        for step in (
            "signal_received",
            "cycle_started",
            ("cycle_finished", "cycle_failed"),
        ):
            event = self.wait_for_event(step, after=seen)
            seen = self.events.index(event, seen) + 1
        return event

    def address(self) -> tuple[str, int]:
        """
        Return host and port of the HTTP endpoint from the log.
        """
        host, _, port = str(
            self.wait_for_event("http_listening")["address"]
        ).rpartition(":")
        return host.strip("[]"), int(port)

    def get(
        self, path: str, method: str = "GET", timeout_seconds: float = PATIENCE_SECONDS
    ) -> Answer:
        """
        Send an HTTP request to the daemon.
        """
        answer = ask(self.address(), path, method, timeout_seconds)
        self._witness.answer(path, answer.status, answer.body)
        if path == "/readyz" and answer.status == 503:
            told = answer.json()
            assert told["reason"] and told["error"] and told["advice"], told
        return answer

    def status(self) -> Any:
        """
        Return the parsed answer of `/status`.
        """
        return self.get("/status").json()

    def metrics(self) -> dict[str, float]:
        """
        Return the samples of `/metrics`: `name{label="value"}` as written → value.
        """
        samples = {}
        for line in self.get("/metrics").body.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples

    def send_signal(self, number: signal.Signals) -> None:
        """
        Send a signal unless the process has ended: another process may have its id by
        now.
        """
        if self.is_running():
            os.kill(self.pid, number)

    def sighup(self) -> None:
        """
        Trigger a cycle and return immediately; `sync` waits for it.
        """
        self.send_signal(signal.SIGHUP)

    def terminate(self, timeout_seconds: float = 30.0) -> Exit:
        """
        Send SIGTERM and wait until the process ends, as long as kubelet does.
        """
        self.send_signal(signal.SIGTERM)
        return self.wait_for_exit(timeout_seconds)

    def wait_for_exit(self, timeout_seconds: float = PATIENCE_SECONDS) -> Exit:
        """
        Wait for the end of the process and for the last line of its log.

        Raises:
            AssertionError: The process still runs.
        """
        assert self._process
        began = time.monotonic()
        try:
            code = self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"still runs after {timeout_seconds} s:\n{self.log()}"
            ) from None
        seconds = time.monotonic() - began
        forget_clock(self.pid)
        for thread in self._threads:
            thread.join(5)
        self._witness.end(code)
        return Exit(code, seconds)

    def kill(self) -> None:
        """
        Kill the process with SIGKILL, unless it has ended, and wait for its end.
        """
        if self._process:
            self._process.kill()
            self._process.wait()
            forget_clock(self.pid)
            for thread in self._threads:
                thread.join(5)

    def wait_for(
        self,
        condition: Callable[[], T | None],
        what: str,
        timeout_seconds: float | None = None,
    ) -> T:
        """
        Return the first true value of a condition that the process should fulfill.

        Raises:
            AssertionError: It was not met in time, or the process ended; with the end
                of its log.
        """

        def met() -> T | None:
            value = condition()
            assert value or self.is_running(), f"the process has ended: {what}"
            return value

        try:
            value = wait_until(met, what, timeout_seconds or self.patience_seconds)
        except AssertionError as failure:
            raise AssertionError(f"{failure}\n{self.log()}") from None
        assert value is not None
        return value

    def is_alive(self) -> bool:
        return self.get("/healthz").status == 200

    def is_ready(self) -> bool:
        return self.get("/readyz").status == 200

    def reason(self) -> str | None:
        """
        Return the reason of the last failure in `/readyz`, whatever its status.
        """
        found: str | None = self.get("/readyz").json()["reason"]
        return found

    def wait_until_ready(self, timeout_seconds: float | None = None) -> Answer:
        """
        Poll `/readyz` until it answers 200; return that answer.
        """

        def ready() -> Answer | None:
            answer = self.get("/readyz")
            return answer if answer.status == 200 else None

        return self.wait_for(ready, "/readyz answers 200", timeout_seconds)


class Daemon(SidecarProcess):
    """
    An `s3-sync` with a target; `with Daemon(...) as daemon:` starts it.
    """

    def __init__(
        self,
        server: Server | None,
        bucket: str,
        target: Path,
        key_path: str = "",
        interval: str = "1h",
        settings: Given | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        """
        Describe a daemon without starting it.

        Args:
            server: The server for AWS_ENDPOINT_URL and the credentials; `None` omits
                every AWS variable except AWS_BUCKET.
            bucket: AWS_BUCKET.
            target: DEST_PATH; HOME is an empty folder beside it.
            key_path: KEY_PATH.
            interval: INTERVAL; with the default, only `sync` triggers cycles after the
                first one.
            settings: More variables; `None` removes a variable that is set here.
            arguments: The command line, for example `("check",)`.
        """
        self.target = target
        environment: dict[str, str | None] = {
            "AWS_BUCKET": bucket,
            "KEY_PATH": key_path,
            "DEST_PATH": str(target),
            "INTERVAL": interval,
            "S3_SYNC_HTTP_BIND": "127.0.0.1:0",
            "S3_SYNC_LOG_LEVEL": "debug",
        }
        if server:
            environment |= server.environment()
        super().__init__(
            S3_SYNC,
            environment | dict(settings or {}),
            target.parent / f".home-of-{target.name}",
            arguments,
        )


def _matches(
    event: Event, name: str | tuple[str, ...], match: Mapping[str, Any]
) -> bool:
    names = (name,) if isinstance(name, str) else name
    return event.get("event") in names and all(
        event.get(k) == v for k, v in match.items()
    )
