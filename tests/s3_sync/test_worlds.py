"""Random worlds of good and bad objects: a bad object holds back only itself."""

import itertools
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from sidecar_runtime.errors import SidecarError
from tests.conftest import counts_of
from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import FakeS3, access_denied, error
from tests.support.http.faults import flip_first_bit, replace_body
from tests.support.http.loopback import Exchange

SNAPSHOT = {"S3_SYNC_LAYOUT": "snapshot"}
LAYOUTS = [{}, SNAPSHOT, SNAPSHOT | {"S3_SYNC_GATE": "syntax"}]
# The reason that each kind of object is counted under; fine and archived objects have none.
REASONS = {
    "fine": "", "denied": "access_denied_get", "vanishing": "object_changing",
    "rewritten": "object_changing", "corrupt": "object_corrupt", "archived": "",
}  # fmt: skip
ROUNDS = 4
# It keeps the listing from being empty.
SURE = "sure.py"
THEIRS = {"theirs.py": b"of another owner\n", "a/theirs.txt": b"beside ours\n"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("seed", range(counts_of(metafunc.config).worlds))


@dataclass(frozen=True)
class Version:
    """An object at one moment; the ETag of a multipart upload verifies nothing."""

    body: bytes
    is_verified: bool = True


class World:
    """
    A bucket with random events, and a model of the volume.

    Attributes:
        kinds: The kind of each path; see `REASONS`.
        fine: The current version of each fine object.
        shown: The published versions, by path.
        deeds: A log of the events, printed if the test fails.
    """

    def __init__(self, s3: FakeS3, seed: int) -> None:
        self.s3 = s3
        self.chance = random.Random(seed)
        self.share_of_fine = self.chance.choice([0.2, 0.5, 0.9])
        self.kinds: dict[str, str] = {}
        self.fine: dict[str, Version] = {}
        self.shown: dict[str, Version] = {}
        self.is_ready = False
        self.deeds: list[str] = []
        self._contents = itertools.count()
        self.is_down = False
        s3.inject(self._answer)

    def put(self, path: str, kind: str) -> None:
        """Create or overwrite an object of a kind."""
        self.deeds.append(f"{path} is {kind}")
        version = Version(self._content(), path == SURE or self.chance.random() < 0.7)
        etag = None if version.is_verified or kind != "fine" else f"{len(self.deeds):032x}-2"
        storage = "GLACIER" if kind == "archived" else "STANDARD"
        self.s3.put(path, version.body, etag=etag, storage_class=storage)
        self.kinds[path] = kind
        self.fine.pop(path, None)
        if kind == "fine":
            self.fine[path] = version

    def remove(self, path: str) -> None:
        self.deeds.append(f"{path} is gone")
        self.s3.delete(path)
        del self.kinds[path]
        self.fine.pop(path, None)

    def turn(self) -> None:
        """Change some objects, but not most of them at once."""
        for number in range(self.chance.randint(1, 6)):
            self.put(f"{self.chance.choice('abc')}/{len(self.deeds)}{number}.py", self._kind())
        others = sorted(self.kinds.keys() - {SURE})
        for path in self.chance.sample(others, len(others) // 2):
            if self.chance.random() < 0.5:
                self.remove(path)
            else:
                self.put(path, self._kind())

    def follow(self) -> None:
        """Bring the model of the volume up to date, as three cycles would."""
        missing = self.missing
        self.is_ready = self.is_ready or 2 * len(missing) <= len(missing) + len(self.fine)
        if self.is_ready:
            kept = {path: self.shown[path] for path in self.kept if path in self.shown}
            self.shown = self.fine | kept

    @property
    def missing(self) -> dict[str, str]:
        return {path: REASONS[kind] for path, kind in self.kinds.items() if REASONS[kind]}

    @property
    def kept(self) -> set[str]:
        """Paths that cannot be read but still exist."""
        return self.missing.keys() | self.archived

    @property
    def archived(self) -> set[str]:
        return {path for path, kind in self.kinds.items() if kind == "archived"}

    def _kind(self) -> str:
        if self.chance.random() < self.share_of_fine:
            return "fine"
        return self.chance.choice(sorted(REASONS.keys() - {"fine"}))

    def _content(self) -> bytes:
        return b"x = 1%06d\n" % next(self._contents)

    def _answer(self, exchange: Exchange) -> None:
        """Answer according to the kind of the object."""
        path = exchange.request.path.partition(f"/{self.s3.bucket}/")[2]
        kind = self.kinds.get(path, "fine")
        if self.is_down:
            error(500, "InternalError")(exchange)
            return
        if kind == "rewritten":
            self.s3.put(path, self._content())
        if kind == "corrupt":
            replace_body(flip_first_bit)(exchange)
        elif kind == "denied":
            access_denied("s3:GetObject", f"arn:aws:s3:::{path}", "arn:aws:iam::1:role/dags")(
                exchange
            )
        elif kind == "vanishing":
            error(404, "NoSuchKey")(exchange)
        else:
            exchange.send(exchange.good())


@pytest.fixture
def world(s3: FakeS3, seed: int) -> Iterator[World]:
    world = World(s3, seed)
    try:
        yield world
    finally:
        print(f"seed {seed}:", *world.deeds, sep="\n  ")  # pytest shows it if the test fails


def test_publishes_fine_objects_and_removes_deleted_ones(
    seed: int, world: World, process: Process
) -> None:
    # Outside AWS, only this refuses a corrupt object whose ETag is an MD5.
    settings = LAYOUTS[seed % len(LAYOUTS)] | {"S3_SYNC_VERIFY": "strict"}
    theirs = plant(process.folder) if "snapshot" not in settings.values() else {}
    world.put(SURE, "fine")
    process.start(settings)

    for _ in range(ROUNDS):
        world.turn()
        before = looks(process.folder, world.shown)
        run(process, 2)
        world.follow()
        if world.is_ready:
            bodies = {path: version.body for path, version in world.fine.items()}
            assert bodies.items() <= process.shown.items()
        run(process, 1)
        agree(world, process, theirs)
        assert unchanged(before, world.shown) <= looks(process.folder, world.shown).items()
        if world.chance.random() < 0.5:
            world.deeds.append("restart")
            process.restart(settings)
            world.is_down = True
            process.fail()
            assert world.is_ready == process.is_ready, "what is on disk counts"
            world.is_down = False
            run(process, 3)
            agree(world, process, theirs)


def plant(folder: Path) -> dict[str, bytes]:
    """Create foreign files with a date of their own beside the managed ones."""
    for path, body in THEIRS.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(body)
        os.utime(folder / path, (1_500_000_000, 1_500_000_000))
    return THEIRS


def run(process: Process, cycles: int) -> None:
    for _ in range(cycles):
        with suppress(SidecarError):
            process.cycle()


def looks(folder: Path, shown: dict[str, Version]) -> dict[tuple[str, bytes], int]:
    """Return the modification time of each published file, by path and content."""
    top = folder / "current" if (folder / "current").is_symlink() else folder
    return {(path, was.body): os.stat(top / path).st_mtime_ns for path, was in shown.items()}


def unchanged(
    before: dict[tuple[str, bytes], int], shown: dict[str, Version]
) -> set[tuple[tuple[str, bytes], int]]:
    """Return the entries of files whose content is still published unchanged."""
    now = {(path, version.body) for path, version in shown.items()}
    return {(what, at) for what, at in before.items() if what in now}


def agree(world: World, process: Process, theirs: dict[str, bytes]) -> None:
    """Check that status, metrics, record and files agree with the model."""
    missing = world.missing
    assert world.is_ready == process.is_ready, process.problem
    assert missing == process.details.get("unread", {})
    assert dict.fromkeys(world.archived, "archived") == process.details.get("keys_skipped", {})
    assert (world.is_ready and not missing) == bool(process.revision)
    counts = Counter(missing.values())
    for reason in {reason for reason in REASONS.values() if reason}:
        assert counts[reason] == (process.metric("s3_sync_unread_objects", reason=reason) or 0)
    skipped = process.metric("s3_sync_skipped_keys", reason="archived")
    assert len(world.archived) == skipped
    if not world.is_ready:
        return
    bodies = {path: version.body for path, version in world.shown.items()}
    assert bodies | theirs == process.shown
    for path in theirs:
        assert 1_500_000_000 == (process.folder / path).stat().st_mtime
    unverified = sum(not version.is_verified for version in world.shown.values())
    assert unverified == process.metric("s3_sync_unverified_files")
    assert len(bodies) == process.metric("s3_sync_managed_files")
    assert bool(missing) == process.metric("s3_sync_partial")
    assert bool(missing) == bool(process.readiness.shortfall)
    record = json.loads((process.folder / ".s3-sync/published.json").read_bytes())
    assert (process.revision, len(missing)) == (record["revision"], record["missing"])
    assert len(bodies) == record["files"]
