"""
What whoever can write to a bucket can do there, and two daemons on it: one that trusts a key.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from s3_sync.release.facts import Checked, Origin
from s3_sync.release.names import POINTER_KEY, bundle_key, manifest_key
from s3_sync.release.pointer import Pointer, Turn, serialize_pointer
from s3_sync.release.signed import sign_pointer
from s3_sync.revision import ends_chunk, revision_of
from tests.scenarios.s3_sync.snapshots import SNAPSHOT, consumed
from tests.support.daemon import Daemon, Event
from tests.support.fake_s3 import FakeS3
from tests.support.releases import AT, Release, make_release
from tests.support.scripted import new_content
from tests.support.shelf import PREFIX, release_daemon
from tests.support.signing import Key, write_keys

BUCKET = "dags-bucket"
ORIGIN = Origin(by="ci", commit="1" * 40, message="Honest", ci_url="https://ci.example.com/1")
CHECKED = Checked("3.3.2", AT, 1, ("sales",))
HONEST, THIEF = Key(), Key()
# Ends a chunk, so that an honest release has two.
LAST = next(path for path in (f"m{n}.py" for n in count()) if ends_chunk(path))

Facts = dict[str, Any]
Objects = dict[str, bytes | None]
"""By name below the prefix, in the order in which they are put; None: deleted."""


@dataclass(frozen=True)
class Scene:
    """
    What there is when an attack begins.

    Args:
        old: The pointer before the good one, as it was.
        good: The release that is current, and shown.
        next: What the honest publisher makes current next.
        files: Of the next one.
    """

    old: bytes
    good: Release
    next: Release
    files: Mapping[str, bytes]

    def objects(self, **instead: bytes | None) -> Objects:
        """
        Return the objects of the next release, some of them replaced, the pointer last.
        """
        found = {"bundle": self.next.bundle_bytes, "manifest": self.next.manifest_bytes}
        found["pointer"] = self.next.pointer_bytes
        names = {
            "bundle": bundle_key(self.next.manifest.head.bundle_sha256),
            "manifest": manifest_key(self.next.revision),
            "pointer": POINTER_KEY,
        }
        return {names[part]: body for part, body in (found | instead).items()}


Attack = Callable[[Scene], Objects]


def signed(
    pointer: Pointer, key: Key = HONEST, bucket: str = BUCKET, prefix: str = PREFIX
) -> bytes:
    """Sign a pointer, for this place unless told otherwise."""
    return sign_pointer(serialize_pointer(pointer), bucket, prefix, key.signer)


class Stage:
    """
    One bucket, and two daemons on it whose cycles are asked for: one that has keys.

    Attributes:
        files: Of the good release.
    """

    def __init__(self, s3: FakeS3, trusting: Daemon, plain: Daemon) -> None:
        self.s3 = s3
        self.trusting = trusting
        self.plain = plain
        self._sequence = 100
        self.good, self.files = self._make(None)
        self.old = self.good.pointer_bytes

    @property
    def daemons(self) -> tuple[Daemon, Daemon]:
        return self.trusting, self.plain

    def _make(self, old: Pointer | None, more: int = 0) -> tuple[Release, dict[str, bytes]]:
        """
        Make what the honest publisher publishes.
        """
        files = {name: new_content() for name in ("a.py", LAST, "z.py")}
        files |= {"pkg/b.py": new_content() * 9}
        files |= {f"many/{number}.py": new_content() for number in range(more)}
        self._sequence += 1
        release = make_release(files, origin=ORIGIN, checked=CHECKED, signer=HONEST.signer)
        turn = Turn(release.revision, self._sequence, AT)
        pointer = replace(release.pointer, turn=turn, history=old.turns() if old else ())
        return replace(release, pointer=pointer, pointer_bytes=signed(pointer)), files

    def put(self, objects: Objects) -> None:
        for name, body in objects.items():
            if body is not None:
                self.s3.put(f"{PREFIX}{name}", body)
            elif f"{PREFIX}{name}" in self.s3.objects:
                self.s3.delete(f"{PREFIX}{name}")

    def scene(self, more: int = 0) -> Scene:
        """
        Args:
            more: How many more files the next release has.
        """
        return Scene(self.old, self.good, *self._make(self.good.pointer, more))

    def sync(self) -> list[Event]:
        """Let both run a cycle; return how it ended, of the one that has keys first."""
        with ThreadPoolExecutor() as both:
            return list(both.map(Daemon.sync, self.daemons))

    def assert_refused(self, daemon: Daemon, ended: Event, reason: str) -> None:
        """Assert that a daemon has taken nothing of what is there, for this reason."""
        assert reason == ended.get("reason"), ended
        assert self.files == consumed(daemon.target)
        ready = daemon.get("/readyz")
        assert (200, reason) == (ready.status, ready.json()["reason"])

    def recover(self) -> None:
        """Publish as if nothing had happened, and assert that both take it."""
        self.s3.heal()
        self.old = self.good.pointer_bytes
        self.good, self.files = self._make(self.good.pointer)
        self.put(dict(self.good.objects()))
        for daemon, ended in zip(self.daemons, self.sync(), strict=True):
            assert self.good.revision == ended.get("revision"), ended
            assert self.files == consumed(daemon.target)


@contextmanager
def staged(home: Path) -> Iterator[Stage]:
    """Start both daemons on a good release."""
    keys = write_keys(home / "keys", HONEST)
    with FakeS3() as s3:
        settings = {**SNAPSHOT, "S3_SYNC_JITTER": "0"}
        trusting = release_daemon(
            s3, home / "dags", {**settings, "S3_SYNC_TRUSTED_KEYS": str(keys)}
        )
        plain = release_daemon(s3, home / "plain", settings)
        stage = Stage(s3, trusting, plain)
        stage.put(dict(stage.good.objects()))
        with trusting, plain:
            for daemon in stage.daemons:
                daemon.wait_until_synced()
            stage.recover()
            yield stage


def assert_consistent(target: Path) -> None:
    """
    Assert that what is shown is what its revision names.
    """
    record = json.loads((target / ".s3-sync/published.json").read_text())
    shown = sorted(consumed(target).items())
    digests = ((path, hashlib.sha256(body).hexdigest(), False) for path, body in shown)
    assert record["revision"] == revision_of(digests)
