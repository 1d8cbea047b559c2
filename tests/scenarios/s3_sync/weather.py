"""
Hostile weather: a daemon sails through a storm, and what it did is written down.

A `Storm` is something that goes wrong and stays wrong for many cycles. `sail` lets it begin after
a good first sync, changes the bucket, runs cycles, looks after each, lets the storm end, and
returns a `Logbook`.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.support.daemon import Daemon, Event
from tests.support.fault_proxy import FaultProxy
from tests.support.scripted import FILES, new_content, published
from tests.support.servers import S3Server
from tests.support.waiting import wait_until

ENDS = ("cycle_finished", "cycle_failed")
LAYOUTS = ("in-place", "snapshot")


class Scene:
    """
    A real S3 server, a fault proxy before it, a daemon, and all that was ever in the bucket.

    Attributes:
        wanted: what is in the bucket now, by path in the target.
        contents: all that ever was there, by path.
    """

    def __init__(
        self,
        server: S3Server,
        proxy: FaultProxy,
        layout: str,
        place: Path,
        settings: Mapping[str, str] | None = None,
        interval: str = "1h",
    ) -> None:
        self.proxy = proxy
        self.layout = layout
        self.place = place
        self.wanted: dict[str, bytes] = {}
        self.contents: dict[str, set[bytes]] = {}
        self._client: Any = server.client()
        self._bucket = server.new_bucket("weather")
        environment = {**proxy.environment(), "S3_SYNC_LAYOUT": layout, **(settings or {})}
        target = place / "dags"
        self.daemon = Daemon(None, self._bucket, target, "dags", interval, environment)
        for path, body in FILES.items():
            self.put(path, body)
        for number in range(16):
            self.put(f"kept/{number:02}.py", new_content())

    def put(self, path: str, body: bytes) -> None:
        """Store an object, past the proxy."""
        self.contents.setdefault(path, set()).add(body)
        self.wanted[path] = body
        self._client.put_object(Bucket=self._bucket, Key=f"dags/{path}", Body=body)

    def delete(self, path: str) -> None:
        """Remove an object, past the proxy."""
        del self.wanted[path]
        self._client.delete_object(Bucket=self._bucket, Key=f"dags/{path}")

    def change(self) -> None:
        """Change, add and delete: more than a full volume has room for after the deletion."""
        self.put("a.py", new_content())
        self.delete("pkg/b.py")
        for number in range(4):
            self.put(f"more/{number}.py", new_content() * 1000)

    @property
    def visible(self) -> dict[str, bytes]:
        """What a consumer finds now; one that resolves `current` once, in the snapshot layout."""
        if self.layout == "snapshot":
            return published((self.daemon.target / "current").resolve())
        return published(self.daemon.target)

    def wounds(self, before: Mapping[str, bytes]) -> list[str]:
        """
        What consumers should never see.

        Args:
            before: what was published last without trouble.
        """
        visible = self.visible
        torn = [p for p, body in visible.items() if body not in self.contents.get(p, ())]
        lost = [p for p in before if p in self.wanted and p not in visible]
        return [f"torn: {path}" for path in torn] + [f"lost: {path}" for path in lost]

    def begin(self) -> None:
        """
        Wait for the first good cycle; on a busy machine one may fail before.

        Nothing is sent: a signal that comes late is another cycle in the storm.
        """
        self.daemon.wait_for_event("cycle_finished", 120)

    def cycle(self) -> Event:
        """Run a cycle, and return the line of its end."""
        after = len(self.daemon.events)
        self.daemon.sighup()
        ended = self.daemon.wait_for_event(ENDS, 60, after)
        self.proxy.release()  # what still hangs there is nobody's any more
        self.proxy.forget()
        return ended

    def is_in_step(self) -> bool:
        """Run a cycle; whether it is good, and all is as in the bucket."""
        return self.cycle()["event"] == "cycle_finished" and self.visible == self.wanted


@dataclass(frozen=True)
class Storm:
    """
    Something that goes wrong until it ends.

    Args:
        reason: its name in the log, in `/readyz` and in the metrics.
        settings: of the daemon, from the folder of the voyage.
        volume: makes the volume that the target lies on, in the folder of the voyage.
    """

    reason: str
    begin: Callable[[Scene], object]
    end: Callable[[Scene], object] = lambda scene: scene.proxy.heal()
    settings: Callable[[Path], dict[str, str]] = lambda folder: {}
    volume: Callable[[Path], AbstractContextManager[Path]] = nullcontext


@dataclass(frozen=True)
class Vitals:
    """
    What a process holds: open descriptors, threads, KiB of anonymous memory; and the most KiB of
    memory that it ever had.
    """

    descriptors: int
    threads: int
    memory_kib: int
    peak_kib: int

    @classmethod
    def of(cls, pid: int) -> "Vitals":
        """Look at a process."""
        status = Path(f"/proc/{pid}/status").read_text()
        facts = dict(line.split(":", 1) for line in status.splitlines())
        memory_kib, peak_kib = (int(facts[name].split()[0]) for name in ("RssAnon", "VmHWM"))
        return cls(len(os.listdir(f"/proc/{pid}/fd")), int(facts["Threads"]), memory_kib, peak_kib)


@dataclass
class Told:
    """Where the cause was named, and how: the answers of the daemon in the midst of the storm."""

    readyz: Any
    status: Any
    metrics: dict[str, float]
    healthz: int

    @classmethod
    def by(cls, daemon: Daemon) -> "Told":
        """Ask a daemon."""
        healthz = daemon.get("/healthz").status
        return cls(daemon.get("/readyz").json(), daemon.status(), daemon.metrics(), healthz)


@dataclass
class Logbook:
    """What was seen on a voyage."""

    before: dict[str, bytes]
    ends: list[Event] = field(default_factory=list)
    wounds: list[str] = field(default_factory=list)
    vitals: list[Vitals] = field(default_factory=list)
    told: Told | None = None
    recovered: dict[str, bytes] | None = None
    wanted: dict[str, bytes] = field(default_factory=dict)
    is_same_process: bool = False
    after: Told | None = None
    leftovers: list[str] = field(default_factory=list)
    stray_lines: list[str] = field(default_factory=list)


def sail(storm: Storm, layout: str, cycles: int, server: S3Server, folder: Path) -> Logbook:
    """Sail through a storm that lasts for a number of cycles."""
    with ExitStack() as stack:
        place = stack.enter_context(storm.volume(folder))
        proxy = stack.enter_context(FaultProxy(server))
        scene = Scene(server, proxy, layout, place, storm.settings(folder))
        daemon = stack.enter_context(scene.daemon)
        scene.begin()
        logbook = Logbook(before=scene.visible)
        scene.change()
        storm.begin(scene)
        pid = daemon.pid
        for _ in range(cycles):
            logbook.ends.append(scene.cycle())
            logbook.wounds += scene.wounds(logbook.before)
            logbook.vitals.append(Vitals.of(pid))
        logbook.told = Told.by(daemon)
        storm.end(scene)
        with suppress(AssertionError):  # what is missing then is for the test to say
            wait_until(scene.is_in_step, "the storm is over", 120)
        logbook.recovered, logbook.wanted = scene.visible, dict(scene.wanted)
        logbook.is_same_process = daemon.is_running() and daemon.pid == pid
        logbook.after = Told.by(daemon)
        logbook.leftovers = leftovers(daemon.target)
        logbook.stray_lines = list(daemon.stray_lines)
    return logbook


def leftovers(target: Path) -> list[str]:
    """Files in staging, and temporary ones anywhere in `.s3-sync`."""
    own = target / ".s3-sync"
    found = (Path(here, name) for here, _, names in os.walk(own) for name in names)
    paths = [path.relative_to(own) for path in found]
    return [str(p) for p in paths if p.parts[0] == "staging" or p.name.endswith((".part", ".new"))]


def is_flat(values: list[int], slack: int) -> bool:
    """
    Whether the second half of a voyage has no more than the first, in the median, but for `slack`.
    """
    half = len(values) // 2
    return median(values[half:]) <= median(values[:half]) + slack
