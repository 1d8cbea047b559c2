"""
One sidecar process, which is watched continuously and sometimes signalled.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from pathlib import Path
from random import Random

from soak.flat import Sample, Series, sample, series_of
from tests.support.daemon import SidecarProcess

WATCH_SECONDS = 1.0
ANSWER_SECONDS = 5.0
FAILURE_THRESHOLD = 3
"""With ANSWER_SECONDS the probe settings of the values in charts-snippets."""
START_SECONDS = 60.0
MOST_LINES_A_MINUTE = 300


class Post:
    """
    A process; a `with` statement starts it, and ends it.

    Args:
        name: The name of the process in reports.
        daemon: The process, not started.
        is_spared: Whether it is never killed or restarted, so that its memory is meaningful.
        folder: Its volume, whose files are counted.
        always_ready: Whether /readyz must stay 200 once it was, in spite of all faults.
        connections: The number of connections that it may keep open or close.
    """

    def __init__(
        self,
        name: str,
        daemon: SidecarProcess,
        *,
        is_spared: bool,
        folder: Path | None = None,
        always_ready: bool = True,
        connections: int = 0,
    ) -> None:
        self.name = name
        self.daemon = daemon
        self.is_spared = is_spared
        self.folder = folder
        self.always_ready = always_ready
        self.connections = connections
        self.samples: list[Sample] = []
        self.flaws: list[str] = []
        self.probes = self.unanswered = 0
        self.slowest_seconds = 0.0
        self.lines = 0
        self.cycles = 0
        self._is_damaged = False
        self._silent: Counter[str] = Counter()
        self._signalled = threading.RLock()
        """Its holder may signal the process; meanwhile the watch sends no probes."""
        self._ended = threading.Event()
        self._stack = ExitStack()

    def __enter__(self) -> Post:
        self.began = time.monotonic()
        self._stack.callback(self.daemon.kill)
        self.daemon.start()
        self.daemon.address(START_SECONDS)
        return self

    def watch(self) -> None:
        """
        Start the watch, after the process has matched its source for the first time.
        """
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(self._ended.set)

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _watch(self) -> None:
        while not self._ended.wait(WATCH_SECONDS):
            with self._signalled:
                if self._ended.is_set():
                    return
                if not self.daemon.is_running():
                    self._say("it ended without a signal")
                    return
                self._probe("/healthz")
                if self.is_spared:
                    if self.always_ready and not self._is_damaged:
                        self._probe("/readyz")
                    seconds = time.monotonic() - self.began
                    self.samples.append(sample(self.daemon.pid, seconds, self.folder))

    def _probe(self, path: str) -> None:
        """
        Probe once. Like the kubelet, tolerate two timeouts in a row: the machine may be busy.
        """
        began = time.monotonic()
        self.probes += 1
        try:
            answer = self.daemon.get(path, timeout_seconds=ANSWER_SECONDS)
        except (OSError, HTTPException) as error:
            self.unanswered += 1
            self._silent[path] += 1
            if self._silent[path] == FAILURE_THRESHOLD:
                self._say(f"{path} did not answer {FAILURE_THRESHOLD} times in a row: {error!r}")
            return
        self._silent[path] = 0
        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
        if answer.status != 200:
            self._say(f"{path} answered {answer.status}: {answer.body[:300]}")

    def series(self) -> dict[str, Series]:
        """
        Return the figures that must stay constant, by name.
        """
        return series_of(self.samples, self.connections)

    def _say(self, flaw: str) -> None:
        self.flaws.append(f"{self.name}: {flaw}")

    @contextmanager
    def damaged(self) -> Iterator[None]:
        """
        Allow /readyz to fail while the published files are damaged on purpose.
        """
        with self._signalled:  # no probe is running
            self._is_damaged = True
        try:
            yield
        finally:
            self._is_damaged = False

    def last_error(self) -> str:
        """
        Return the error that the process itself reports; empty if none.
        """
        error = self.daemon.status()["last_error"]
        return f"{self.name}: {error['reason']}: {error['error'][:200]}" if error else ""

    def kill(self, chance: Random) -> None:
        """
        Kill the process during a cycle with SIGKILL, and start it again.
        """
        with self._signalled:
            self.daemon.sighup()
            time.sleep(chance.uniform(0, 0.3))  # the random moment is the purpose of the test
            self.daemon.kill()
            self._restart()

    def terminate(self, chance: Random) -> None:
        """
        End the process with SIGTERM, and start it again.
        """
        with self._signalled:
            time.sleep(chance.uniform(0, 0.3))
            self._end()
            self._restart()

    def freeze(self, chance: Random) -> None:
        """
        Stop the process for some seconds with SIGSTOP, like a node that swaps or is migrated.
        """
        with self._signalled:
            self.daemon.send_signal(signal.SIGSTOP)
            time.sleep(chance.uniform(1, 4))
            self.daemon.send_signal(signal.SIGCONT)

    def hurry(self, chance: Random) -> None:
        """
        Send SIGHUP several times.
        """
        for _ in range(chance.randrange(1, 6)):
            self.daemon.sighup()
            time.sleep(chance.uniform(0, 0.1))

    def stop(self) -> None:
        """
        End the watch and the process, and check its log.
        """
        with self._signalled:
            self._ended.set()
            if self.daemon.is_running():
                samples = self.daemon.metrics().items()
                self.cycles = round(
                    sum(value for name, value in samples if name.startswith("sidecar_cycles_total"))
                )
                self._end()
            self.read_log()
            minutes = (time.monotonic() - self.began) / 60
            if self.lines > MOST_LINES_A_MINUTE * (minutes + 1):
                self._say(f"{self.lines} log lines in {minutes:.1f} minutes")

    def _end(self) -> None:
        ended = self.daemon.terminate(START_SECONDS)
        if ended.code != 0:
            self._say(f"SIGTERM ended it with code {ended.code}")

    def _restart(self) -> None:
        self.read_log()
        self.daemon.start()
        self.daemon.address(START_SECONDS)

    def read_log(self) -> None:
        """
        Search the log of the process that just ended for tracebacks.
        """
        self.lines += len(self.daemon.events) + len(self.daemon.stray_lines)
        if stray := self.daemon.stray_lines[:3]:
            self._say(f"stray lines in its log: {stray}")
        for event in self.daemon.events:
            if "exception" in event or event.get("reason") == "bug":
                self._say(f"a bug: {str(event)[:600]}")


BLOWS: dict[str, Callable[[Post, Random], None]] = {
    "SIGKILL": Post.kill,
    "SIGTERM": Post.terminate,
    "SIGSTOP": Post.freeze,
    "SIGHUP": Post.hurry,
}
END_IT = ("SIGKILL", "SIGTERM")
"""The blows that a spared process never receives."""
