"""
One sidecar with its source: rounds of a change, a fault and a blow, and the checks
after each.
"""

import os
import random
import signal
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from http.client import HTTPException
from pathlib import Path

from bench.measure import children_of
from tests.support.daemon import SidecarProcess
from tests.support.http.faults import answer_with, drip, hang, reset, truncate
from tests.support.http.loopback import Answer, Fault, LoopbackServer

RECOVERY_SECONDS = 180.0
ANSWER_SECONDS = 15.0
"""As long as the kubelet waits: three probes of five seconds."""
WARM_UP_SECONDS = 120.0
"""Python first touches most of its memory within minutes."""
LEAST_SAMPLES = 20
PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20
ALLOWED = (("MiB", 2.0), ("descriptors", 34.0), ("threads", 2.0), ("children", 2.0))
"""How much the first process may grow; s3-sync keeps up to 32 connections open."""
ANSWERS: dict[str, Fault] = {
    "500": answer_with(Answer(500)),
    "nonsense": answer_with(Answer(200, {}, b"<html>Sign in to the network</html>")),
    "silence": hang(),
    "a stop in the answer": hang(after=60),
    "drips": drip(7, 0.2),
    "a short answer": truncate(60),
    "a reset": reset(),
}


class Reader(threading.Thread):
    """
    Reads again and again until `ended`; `held` is taken while it may not read.
    """

    def __init__(self, read: Callable[[], object], pause_seconds: float) -> None:
        super().__init__(daemon=True)
        self.reads = 0
        self.flaws: Counter[str] = Counter()
        self.held = threading.Lock()
        self.ended = threading.Event()
        self._read = read
        self._pause_seconds = pause_seconds

    def run(self) -> None:
        while not self.ended.wait(self._pause_seconds):
            with self.held:
                self.reads += 1
                try:
                    self._read()
                except Exception as error:  # noqa: BLE001 - a consumer would see any
                    self.flaws[f"a reader saw {type(error).__name__}: {error}"] += 1


class Station:
    """
    A sidecar, its source and its readers; a `with` statement starts and ends
    everything.

    A subclass starts its servers in `set_up`, and fills `daemons`, `readers`,
    `changes`, `faults`.

    Args:
        seed: The seed of the events; their times depend on the machine.
    """

    name = ""
    outage = "no server", ""
    """The fault that takes the source away, and the change when it returns."""
    stays_ready = True
    """Whether /readyz of the first process must stay 200 in spite of all faults."""

    def __init__(self, seed: str) -> None:
        self.chance = random.Random(f"{seed} {self.name}")
        self.stack = ExitStack()
        self.ended = threading.Event()
        self.daemons: list[SidecarProcess] = []
        self.readers: list[Reader] = []
        self.changes: dict[str, Callable[[], object]] = {}
        self.faults: dict[str, Callable[[], AbstractContextManager[object]]] = {
            "no fault": nullcontext
        }
        self.peers: dict[str, Callable[[], object]] = {}
        """What else follows the source, by name; empty or false if it shows it."""
        self.counts: Counter[str] = Counter()
        self.flaws: list[str] = []
        self.recoveries: list[float] = []
        self._samples: list[tuple[float, ...]] = []
        self._blows = threading.RLock()
        """
        Whoever holds it may signal processes or damage files; nobody probes meanwhile.
        """

    def set_up(self) -> None:
        """
        Start the servers, and describe daemons and readers; skips as the tests do.
        """
        raise NotImplementedError

    def behind(self) -> str:
        """
        Return how the daemons differ from the source; empty if they do not.
        """
        raise NotImplementedError

    def run(self, until: float) -> None:
        """
        Run at least one round, then more until a time of the monotonic clock.
        """
        with self.alive():
            self._round()
            while not self.ended.is_set() and time.monotonic() < until:
                self._round()

    @contextmanager
    def alive(self) -> Iterator[None]:
        """
        Start everything, and end it after the body; the daemons show the source, and
        are watched.
        """
        with self.stack:
            self.set_up()
            for daemon in self.daemons:
                self.stack.enter_context(daemon)
            self._recover("the start")
            watch = threading.Thread(target=self._watch, daemon=True)
            watch.start()
            for reader in self.readers:
                reader.start()
                self.stack.callback(reader.ended.set)
            try:
                yield
            finally:
                self.ended.set()
                watch.join()
            self._end()

    def lose_source(self, minutes: float) -> dict[str, float]:
        """
        Take the source away, and change it when it returns.

        Returns:
            After how many seconds the daemons and each peer had the newest data; those
            that had not within `RECOVERY_SECONDS` are left out.
        """
        fault, change = self.outage
        with self.faults[fault]():
            self.ended.wait(minutes * 60)
        began = time.monotonic()
        self.changes[change]()
        behind = {self.name: lambda: self.behind() or self._error(), **self.peers}
        found: dict[str, float] = {}
        while len(found) < len(behind) and time.monotonic() < began + RECOVERY_SECONDS:
            for name, lack in behind.items():
                if name not in found and not lack():
                    found[name] = time.monotonic() - began
            self.ended.wait(0.1)
        return found

    def _round(self) -> None:
        change, fault = (
            self.chance.choice(sorted(x)) for x in (self.changes, self.faults)
        )
        blow = self.chance.choice(
            ("SIGKILL", "SIGTERM", "SIGSTOP", "SIGHUP", "no signal")
        )
        what = f"{change}, {fault}, {blow}"
        self.changes[change]()
        with self.faults[fault]():
            self.hold(3)
            self._strike(blow)
            self.hold(2)
        self.counts.update(("rounds", blow))
        self._recover(what)

    def _strike(self, blow: str) -> None:
        ends = blow in ("SIGKILL", "SIGTERM")
        daemon = self.chance.choice(self.daemons[1:] if ends else self.daemons)
        with self._blows:
            if ends:
                daemon.sighup()
                # a random moment is the purpose
                time.sleep(self.chance.uniform(0, 0.3))
                if blow == "SIGKILL":
                    daemon.kill()
                else:
                    self._terminate(daemon)
                self._read_log(daemon)
                daemon.start().address()
            elif blow == "SIGSTOP":
                daemon.send_signal(signal.SIGSTOP)
                time.sleep(self.chance.uniform(1, 4))
                daemon.send_signal(signal.SIGCONT)
            elif blow == "SIGHUP":
                for _ in range(self.chance.randrange(1, 6)):
                    daemon.sighup()

    def hold(self, most_seconds: float) -> None:
        """
        Wait for a random time, or until the run ends.
        """
        self.ended.wait(self.chance.uniform(0, most_seconds))

    def _recover(self, what: str) -> None:
        """
        Wait until all daemons show the source and report no error.
        """
        began = time.monotonic()
        while behind := self.behind() or self._error():
            if time.monotonic() - began > RECOVERY_SECONDS:
                self.flaws.append(f"{RECOVERY_SECONDS:g} s after {what}: {behind}")
                break
            if self.ended.wait(0.1):
                return
        self.recoveries.append(time.monotonic() - began)

    def _error(self) -> str:
        said = [daemon.status() for daemon in self.daemons]
        return "; ".join(
            f"{facts['reason']}: {facts['error'][:200]}"
            for facts in said
            if facts["reason"]
        )

    def _watch(self) -> None:
        """
        Probe all daemons each second, and sample the first.
        """
        began = time.monotonic()
        while not self.ended.wait(1):
            with self._blows:
                for daemon in self.daemons:
                    self._probe(daemon, "/healthz")
                if self.stays_ready:
                    self._probe(self.daemons[0], "/readyz")
                if time.monotonic() - began > WARM_UP_SECONDS:
                    self._samples.append(sample(self.daemons[0].pid))

    def _probe(self, daemon: SidecarProcess, path: str) -> None:
        self.counts["probes"] += 1
        try:
            answer = daemon.get(path, timeout_seconds=ANSWER_SECONDS)
        except (OSError, HTTPException, AssertionError) as error:
            self.flaws.append(f"{path} did not answer: {error!r}")
            return
        if answer.status != 200:
            self.flaws.append(f"{path} answered {answer.status}: {answer.body[:300]}")

    @contextmanager
    def damage(self, readers: Sequence[Reader]) -> Iterator[None]:
        """
        Damage what is shown in the body, then wait for the repair; nobody reads
        meanwhile.
        """
        with ExitStack() as stack:
            for reader in readers:
                stack.enter_context(reader.held)
            stack.enter_context(self._blows)
            yield
            self._recover("damage by hand")

    def folder(self) -> Path:
        """
        Return an empty folder that every user can reach; it is removed at the end.
        """
        made = tempfile.TemporaryDirectory(prefix=f"soak-{self.name}-")
        folder = Path(self.stack.enter_context(made))
        folder.chmod(0o755)
        return folder

    def break_servers(self, *servers: LoopbackServer) -> None:
        """
        Add the faults of HTTP servers that fail together.
        """

        def each(deed: Callable[[LoopbackServer], object]) -> Callable[[], None]:
            def on_all() -> None:
                for server in servers:
                    deed(server)

            return on_all

        heal = each(LoopbackServer.heal)
        for name, fault in ANSWERS.items():
            spoil = each(partial(LoopbackServer.inject, fault=fault))
            self.faults[f"answers: {name}"] = partial(between, spoil, heal)
        down = each(LoopbackServer.stop)
        up = each(LoopbackServer.start)
        self.faults["no server"] = partial(between, down, up)

    def _terminate(self, daemon: SidecarProcess) -> None:
        if (code := daemon.terminate(60).code) != 0:
            self.flaws.append(f"SIGTERM ended it with code {code}")

    def _read_log(self, daemon: SidecarProcess) -> None:
        """
        Find tracebacks in the log of a process that has ended.
        """
        self.flaws += [
            f"a stray line in its log: {line}" for line in daemon.stray_lines[:3]
        ]
        for event in daemon.events:
            if "exception" in event or event.get("reason") == "bug":
                self.flaws.append(f"a bug: {str(event)[:600]}")

    def _end(self) -> None:
        for reader in self.readers:
            reader.ended.set()
            reader.join()
            self.flaws += [
                f"{flaw} ({count} times)" for flaw, count in reader.flaws.items()
            ]
        for daemon in self.daemons:
            self._terminate(daemon)
            self._read_log(daemon)
        third = len(self._samples) // 3
        if third >= LEAST_SAMPLES:
            for (unit, most), values in zip(
                ALLOWED, zip(*self._samples, strict=True), strict=True
            ):
                first, last = map(statistics.median, (values[:third], values[-third:]))
                if last - first > most:
                    self.flaws.append(f"grew from {first:.1f} to {last:.1f} {unit}")

    def line(self) -> str:
        """
        Return the results in a line.
        """
        reads = sum(reader.reads for reader in self.readers)
        counts = ", ".join(
            f"{count:,} {name}" for name, count in sorted(self.counts.items())
        )
        median = statistics.median(self.recoveries or [0.0])
        longest = max(self.recoveries or [0.0])
        return (
            f"{self.name}: {counts}; {reads:,} reads; recovery: median {median:.1f} s,"
            f" longest {longest:.1f} s; {len(self.flaws)} flaws"
        )


@contextmanager
def between(begin: Callable[[], object], end: Callable[[], object]) -> Iterator[None]:
    """
    Call `begin`, and `end` after the body.
    """
    begin()
    try:
        yield
    finally:
        end()


def sample(pid: int) -> tuple[float, ...]:
    """
    Return memory in MiB, open descriptors, threads and children of a process; without
    the memory of children, because whether one runs is chance.
    """
    process = Path(f"/proc/{pid}")
    pages = int((process / "statm").read_text().split()[1])
    counts = (len(os.listdir(process / name)) for name in ("fd", "task"))
    return pages * PAGE_MIB, *counts, len(children_of(pid))
