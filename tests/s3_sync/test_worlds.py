"""Worlds of good and bad objects, at random: what a bad one may hold back is itself."""

import json
import random
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from sidecar_runtime.errors import SidecarError
from tests.conftest import counts_of
from tests.s3_sync.process import Process
from tests.support.fake_s3 import FakeS3, error, is_get
from tests.support.faults import first, flip_first_bit, replace_body
from tests.support.loopback import Fault

LAYOUTS = [{}, {"S3_SYNC_GATE": "syntax"}, {"S3_SYNC_LAYOUT": "snapshot"}]
THEIRS = {"theirs.py": b"of another owner\n"}
# Of each kind of object, the reason that it is counted by; those that are fine, or never files,
# have none.
REASONS = {
    "fine": "", "denied": "access_denied_get", "vanishing": "object_changing",
    "rewritten": "object_changing", "corrupt": "object_corrupt", "archived": "",
}  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("seed", range(counts_of(metafunc.config).worlds))


@dataclass
class World:
    """
    A bucket, and what is to be on the volume.

    Attributes:
        kinds: Of each path, what is the matter with it.
        fine: The content of those with which nothing is.
    """

    s3: FakeS3
    chance: random.Random
    kinds: dict[str, str] = field(default_factory=dict)
    fine: dict[str, bytes] = field(default_factory=dict)

    def add(self, path: str, kind: str) -> None:
        body = f"x = {self.chance.random()}\n".encode()
        self.kinds[path] = kind
        self.s3.put(path, body, storage_class="GLACIER" if kind == "archived" else "STANDARD")
        if kind == "fine":
            self.fine[path] = body
        elif kind != "archived":
            self.s3.inject(self.fault(path, kind), is_get(path))

    def fault(self, path: str, kind: str) -> Fault:
        if kind == "corrupt":
            return replace_body(flip_first_bit)
        if kind == "rewritten":
            return first(lambda: self.s3.put(path, f"x = {self.chance.random()}\n".encode()))
        return error(403, "AccessDenied") if kind == "denied" else error(404, "NoSuchKey")

    def remove(self, path: str) -> None:
        self.s3.delete(path)
        del self.kinds[path]
        self.fine.pop(path, None)

    @property
    def lacking(self) -> dict[str, str]:
        return {path: REASONS[kind] for path, kind in self.kinds.items() if REASONS[kind]}


def test_every_fine_object_is_published_and_every_deleted_one_goes(
    seed: int, s3: FakeS3, process: Process
) -> None:
    chance = random.Random(seed)
    world = World(s3, chance)
    world.add("sure.py", "fine")  # its ETag tells what ETags of this store are
    for number in range(chance.randint(1, 25)):
        world.add(f"{chance.choice('abc')}/{number:02}.py", chance.choice(list(REASONS)))
    layout = LAYOUTS[seed % len(LAYOUTS)]
    if "S3_SYNC_LAYOUT" not in layout:
        (process.folder / "theirs.py").write_bytes(THEIRS["theirs.py"])
    process.start(layout)

    run(process, 2)
    wanted = len(world.fine) + len(world.lacking)
    is_ready = 2 * len(world.lacking) <= wanted
    agree(world, process, is_ready=is_ready)

    for path in chance.sample(sorted(world.kinds), len(world.kinds) // 2):
        if path != "sure.py":
            world.remove(path)
    world.add("new/one.py", "fine")
    run(process, 3)
    wanted = len(world.fine) + len(world.lacking)
    agree(world, process, is_ready=is_ready or 2 * len(world.lacking) <= wanted)

    process.restart(layout)
    is_ready = process.is_ready
    run(process, 1)
    agree(world, process, is_ready=is_ready or process.is_ready)


def run(process: Process, cycles: int) -> None:
    for _ in range(cycles):
        with suppress(SidecarError):
            process.cycle()


def agree(world: World, process: Process, *, is_ready: bool) -> None:
    """All that is said agrees with what is there, and both with the model."""
    assert is_ready == process.is_ready, process.problem
    assert world.lacking == process.details.get("unread", {})
    assert (is_ready and not world.lacking) == bool(process.revision)
    if is_ready:
        theirs = {} if (process.folder / "current").is_symlink() else THEIRS
        assert world.fine | theirs == process.shown
        record = json.loads((process.folder / ".s3-sync/published.json").read_bytes())
        assert (process.revision, len(world.lacking)) == (record["revision"], record["lacking"])
        assert len(world.fine) == record["files"]
