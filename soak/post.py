"""
One sidecar process on its post: watched all the time, and now and then signalled.
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
"""With ANSWER_SECONDS what the values of charts-snippets tell the kubelet."""
START_SECONDS = 60.0
MOST_LINES_A_MINUTE = 300


class Post:
    """
    One process; a `with` statement starts it and the watch over it.

    Args:
        name: Of the process in reports.
        daemon: The process, not started.
        is_spared: It is never killed nor restarted, so that its memory says something.
        folder: Its volume, whose files are counted.
        always_ready: /readyz must be 200 from the first time on, whatever happens.
        connections: How many it may keep open, or not, as it likes.
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
        """Whoever has it may signal the process; meanwhile nobody expects answers."""
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
        Begin to look after it: it has come into step for the first time.
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
                    self._say("it has ended by itself")
                    return
                self._probe("/healthz")
                if self.is_spared:
                    if self.always_ready and not self._is_damaged:
                        self._probe("/readyz")
                    seconds = time.monotonic() - self.began
                    self.samples.append(sample(self.daemon.pid, seconds, self.folder))

    def _probe(self, path: str) -> None:
        """
        Ask once. Like the kubelet, bear silence twice in a row: the machine may be busy.
        """
        began = time.monotonic()
        self.probes += 1
        try:
            answer = self.daemon.get(path, timeout_seconds=ANSWER_SECONDS)
        except (OSError, HTTPException) as error:
            self.unanswered += 1
            self._silent[path] += 1
            if self._silent[path] == FAILURE_THRESHOLD:
                self._say(f"{path} does not answer {FAILURE_THRESHOLD} times in a row: {error!r}")
            return
        self._silent[path] = 0
        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
        if answer.status != 200:
            self._say(f"{path} answers {answer.status}: {answer.body[:300]}")

    def series(self) -> dict[str, Series]:
        """
        All that must be flat, by name.
        """
        return series_of(self.samples, self.connections)

    def _say(self, flaw: str) -> None:
        self.flaws.append(f"{self.name}: {flaw}")

    @contextmanager
    def damaged(self) -> Iterator[None]:
        """
        What it publishes is damaged by hand meanwhile: /readyz may say so.
        """
        with self._signalled:  # nobody asks in this very moment
            self._is_damaged = True
        try:
            yield
        finally:
            self._is_damaged = False

    def last_error(self) -> str:
        """
        What the process itself says is wrong; empty when all is well.
        """
        error = self.daemon.status()["last_error"]
        return f"{self.name}: {error['reason']}: {error['error'][:200]}" if error else ""

    def kill(self, chance: Random) -> None:
        """
        SIGKILL in the midst of a cycle, and a new start.
        """
        with self._signalled:
            self.daemon.sighup()
            time.sleep(chance.uniform(0, 0.3))  # the moment itself is what is tried
            self.daemon.kill()
            self._restart()

    def terminate(self, chance: Random) -> None:
        """
        SIGTERM, and a new start.
        """
        with self._signalled:
            time.sleep(chance.uniform(0, 0.3))
            self._end()
            self._restart()

    def freeze(self, chance: Random) -> None:
        """
        SIGSTOP for some seconds, as a node does that swaps or is moved.
        """
        with self._signalled:
            self.daemon.send_signal(signal.SIGSTOP)
            time.sleep(chance.uniform(1, 4))
            self.daemon.send_signal(signal.SIGCONT)

    def hurry(self, chance: Random) -> None:
        """
        SIGHUP, several times.
        """
        for _ in range(chance.randrange(1, 6)):
            self.daemon.sighup()
            time.sleep(chance.uniform(0, 0.1))

    def stop(self) -> None:
        """
        End the watch and the process, and look through its log.
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
                self._say(f"{self.lines} lines of log in {minutes:.1f} minutes")

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
        Look for tracebacks in the log of this life, which ends now.
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
"""The blows that a spared process never gets."""
