"""Attacks by a writer to the bucket, on two sidecars: one with trusted keys, one without."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from s3_sync.release.facts import Checked, Origin
from s3_sync.release.names import POINTER_KEY, bundle_key, manifest_key
from s3_sync.release.pointer import Pointer, Turn, serialize_pointer
from s3_sync.release.signed import sign_pointer
from s3_sync.revision import ends_chunk, revision_of
from sidecar_runtime.errors import SidecarError
from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import FakeS3
from tests.support.s3_sync.releases import AT, Release, make_release
from tests.support.s3_sync.scripted import new_content
from tests.support.s3_sync.shelf import PREFIX, RELEASE
from tests.support.s3_sync.signing import Key, write_keys

BUCKET = "dags-bucket"
ORIGIN = Origin(by="ci", commit="1" * 40, message="Honest", ci_url="https://ci.example.com/1")
CHECKED = Checked("3.3.2", AT, 1, ("sales",))
HONEST, THIEF = Key(), Key()
# Ends a chunk, so that an honest release has two.
LAST = next(path for path in (f"m{n}.py" for n in count()) if ends_chunk(path))

Facts = dict[str, Any]
Objects = dict[str, bytes | None]
"""Content by name below the prefix, in upload order; None deletes the object."""


@dataclass(frozen=True)
class Scene:
    """
    The state when an attack begins.

    Args:
        old: The pointer before the good one.
        good: The release that is current and published.
        next: The release that the honest publisher makes current next.
        files: The files of `next`.
    """

    old: bytes
    good: Release
    next: Release
    files: Mapping[str, bytes]

    def objects(self, **instead: bytes | None) -> Objects:
        """Return the objects of the next release, some of them replaced, the pointer last."""
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
    """Sign a pointer, by default with the honest key and for this place."""
    return sign_pointer(serialize_pointer(pointer), bucket, prefix, key.signer)


def named(path: str) -> Attack:
    """Make a release with a file of this name current, completely signed with the honest key."""

    def attack(scene: Scene) -> Objects:
        release = make_release({path: b"evil = 1\n"}, signer=HONEST.signer)
        turn = scene.next.pointer.turn._replace(revision=release.revision)
        pointer = release.pointer._replace(turn=turn, history=scene.next.pointer.history)
        return {**release.objects(), POINTER_KEY: signed(pointer)}

    return attack


class Stage:
    """
    One bucket, its honest publisher, and two sidecars that follow it, cycle by cycle.

    Attributes:
        old: The pointer before the good one.
        good: The release that is current.
        files: The files of the good release.
        trusting: The sidecar with trusted keys.
        plain: The sidecar without keys.
    """

    def __init__(self, s3: FakeS3, trusting: Process, plain: Process) -> None:
        self.s3 = s3
        self.trusting = trusting
        self.plain = plain
        self._sequence = 100
        self.good, self.files = self._make(None)
        self.old = self.good.pointer_bytes
        self.put(dict(self.good.objects()))

    def put(self, objects: Objects) -> None:
        for name, body in objects.items():
            if body is not None:
                self.s3.put(f"{PREFIX}{name}", body)
            elif f"{PREFIX}{name}" in self.s3.objects:
                self.s3.delete(f"{PREFIX}{name}")

    def scene(self, more: int = 0) -> Scene:
        """Return the state for an attack; the next release has `more` additional files."""
        return Scene(self.old, self.good, *self._make(self.good.pointer, more))

    def publish(self) -> None:
        """End all faults, and publish the next good release."""
        self.s3.heal()
        self.old = self.good.pointer_bytes
        self.good, self.files = self._make(self.good.pointer)
        self.put(dict(self.good.objects()))

    def _make(self, old: Pointer | None, more: int = 0) -> tuple[Release, dict[str, bytes]]:
        """Create the next release of the honest publisher, and its files."""
        files = {name: new_content() for name in ("a.py", LAST, "z.py")}
        files |= {"pkg/b.py": new_content() * 9}
        files |= {f"many/{number}.py": new_content() for number in range(more)}
        self._sequence += 1
        release = make_release(files, origin=ORIGIN, checked=CHECKED, signer=HONEST.signer)
        turn = Turn(release.revision, self._sequence, AT)
        pointer = release.pointer._replace(turn=turn, history=old.turns() if old else ())
        return replace(release, pointer=pointer, pointer_bytes=signed(pointer)), files

    @property
    def sidecars(self) -> tuple[Process, Process]:
        return self.trusting, self.plain

    def sync(self) -> list[str]:
        """Run a cycle of each sidecar; return revisions or reasons, the trusting one first."""
        return [_end_of(sidecar) for sidecar in self.sidecars]

    def assert_refused(self, sidecar: Process, ended: str, reason: str) -> None:
        """Assert that a sidecar failed for this reason, and that the good release stays."""
        assert reason == ended
        assert self.files == sidecar.shown
        assert sidecar.is_ready

    def assert_both_refuse(self, trusting: str, plain: str = "") -> None:
        """
        Assert that both sidecars refuse the objects, and publish the next good release.

        Args:
            trusting: The reason of the sidecar with keys.
            plain: The reason of the other one; empty: the same.
        """
        reasons = (trusting, plain or trusting)
        try:
            for sidecar, ended, reason in zip(self.sidecars, self.sync(), reasons, strict=True):
                self.assert_refused(sidecar, ended, reason)
        finally:
            self.recover()

    def recover(self) -> None:
        """Publish the next good release, and assert that both sidecars publish it."""
        self.publish()
        assert [self.good.revision] * 2 == self.sync()
        for sidecar in self.sidecars:
            assert self.files == sidecar.shown


def _end_of(sidecar: Process) -> str:
    try:
        return sidecar.cycle().revision
    except SidecarError as error:
        failed = error
    assert failed.message.isprintable()
    return failed.reason


@contextmanager
def staged(home: Path) -> Iterator[Stage]:
    """Start both sidecars on a good release."""
    keys = write_keys(home / "keys", HONEST)
    # A hundred attacks share the volume: retained snapshots would slow down the later ones.
    settings = {"KEY_PATH": PREFIX, **RELEASE, "S3_SYNC_LAYOUT": "snapshot"}
    settings["S3_SYNC_RETAIN_FOR"] = "0"
    with FakeS3() as s3, pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment().items():
            patch.setenv(name, value)
        trusting, plain = Process(s3, home / "dags"), Process(s3, home / "plain")
        stage = Stage(s3, trusting, plain)
        trusting.start({**settings, "S3_SYNC_TRUSTED_KEYS": str(keys)})
        plain.start(settings)
        try:
            stage.sync()
            stage.recover()
            yield stage
        finally:
            for sidecar in stage.sidecars:
                sidecar.stop()


def assert_consistent(sidecar: Process) -> None:
    """Assert that the published files match their recorded revision."""
    record = json.loads((sidecar.folder / ".s3-sync/published.json").read_text())
    shown = sorted(sidecar.shown.items())
    digests = ((path, hashlib.sha256(body).hexdigest(), False) for path, body in shown)
    assert record["revision"] == revision_of(digests)
