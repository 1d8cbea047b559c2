"""A daemon behind a fault proxy, its resource usage, its user and its clock."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.support.aws.fault_proxy import FaultProxy
from tests.support.aws.servers import S3Server
from tests.support.daemon import Daemon, Event
from tests.support.machine.clocks import libfaketime
from tests.support.s3_sync.scripted import FILES, new_content, published

LAYOUTS = ("in-place", "snapshot")


class Scene:
    """
    A real S3 server behind a fault proxy, a daemon, and the history of the bucket.

    Attributes:
        wanted: The content of the bucket now, by path in the target.
        contents: All contents that each path ever had.
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
        """Store an object, bypassing the proxy."""
        self.contents.setdefault(path, set()).add(body)
        self.wanted[path] = body
        self._client.put_object(Bucket=self._bucket, Key=f"dags/{path}", Body=body)

    def delete(self, path: str) -> None:
        """Remove an object, bypassing the proxy."""
        del self.wanted[path]
        self._client.delete_object(Bucket=self._bucket, Key=f"dags/{path}")

    def change(self) -> None:
        """Change, add and delete files; the new ones do not fit on a full volume."""
        self.put("a.py", new_content())
        self.delete("pkg/b.py")
        for number in range(4):
            self.put(f"more/{number}.py", new_content() * 1000)

    @property
    def visible(self) -> dict[str, bytes]:
        """The files that a consumer finds now, after resolving `current` once."""
        if self.layout == "snapshot":
            return published((self.daemon.target / "current").resolve())
        return published(self.daemon.target)

    def wounds(self, before: Mapping[str, bytes]) -> list[str]:
        """
        Return the damage that consumers see: torn and lost files.

        Args:
            before: The files that were published before the fault.
        """
        visible = self.visible
        torn = [p for p, body in visible.items() if body not in self.contents.get(p, ())]
        lost = [p for p in before if p in self.wanted and p not in visible]
        return [f"torn: {path}" for path in torn] + [f"lost: {path}" for path in lost]

    def begin(self) -> None:
        """
        Wait for the first successful cycle; on a busy machine others may fail before.

        Sends no signal, because a late one would trigger another cycle during the fault.
        """
        self.daemon.wait_for_event("cycle_finished", 120)

    def cycle(self) -> Event:
        """Run a cycle; return the log line of its end."""
        after = len(self.daemon.events)
        self.daemon.sighup()
        ended = self.daemon.wait_for_event(("cycle_finished", "cycle_failed"), 60, after)
        self.proxy.release()  # requests that still hang there are abandoned
        self.proxy.forget()
        return ended

    def is_in_step(self) -> bool:
        """Run a cycle; return whether it succeeded and the files equal the bucket."""
        return self.cycle()["event"] == "cycle_finished" and self.visible == self.wanted


@dataclass(frozen=True)
class Vitals:
    """
    The resources of a process: open descriptors, threads and anonymous memory in KiB.
    """

    descriptors: int
    threads: int
    memory_kib: int

    @classmethod
    def of(cls, pid: int) -> "Vitals":
        """Measure a process."""
        status = Path(f"/proc/{pid}/status").read_text()
        facts = dict(line.split(":", 1) for line in status.splitlines())
        memory_kib = int(facts["RssAnon"].split()[0])
        return cls(len(os.listdir(f"/proc/{pid}/fd")), int(facts["Threads"]), memory_kib)


def leftovers(target: Path) -> list[str]:
    """Return files in staging, and temporary files anywhere in `.s3-sync`."""
    own = target / ".s3-sync"
    found = (Path(here, name) for here, _, names in os.walk(own) for name in names)
    paths = [path.relative_to(own) for path in found]
    return [str(p) for p in paths if p.parts[0] == "staging" or p.name.endswith((".part", ".new"))]


def is_flat(values: list[int], times: float = 1.5) -> bool:
    """Whether the median of the second half is at most `times` that of the first."""
    half = len(values) // 2
    return median(values[half:]) <= median(values[:half]) * times


def as_user(uid: int, gid: int) -> tuple[str, ...]:
    """Return a prefix that runs a command as this user, who can read Python in root's home."""
    setpriv = shutil.which("setpriv")
    if os.getuid() != 0 or setpriv is None:
        pytest.skip("another user needs root")
    kept = "-all,+dac_read_search"
    capabilities = [f"--{kind}={kept}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    return (setpriv, f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *capabilities)


def clock_settings(folder: Path) -> dict[str, str]:
    """Return settings that let `set_clock` set a daemon's clock, except the monotonic one."""
    set_clock(folder, "+0")
    return {
        "LD_PRELOAD": str(libfaketime()),
        "FAKETIME_TIMESTAMP_FILE": str(folder / "clock"),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


def set_clock(folder: Path, offset: str) -> None:
    """
    Set the clock atomically.

    Args:
        offset: The offset from the true time, such as `+2d` or `-56y`.
    """
    following = folder / "clock.new"
    following.write_text(f"{offset}\n")
    following.rename(folder / "clock")
