"""
A crash, an error or a revoked fence at each call of a cycle that opens or changes a
file: nothing is torn, mixed, lost or left over, and the next cycles converge, in the
same process and after a restart.

With `--full` at every call; otherwise at a few, which a seed draws.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import Bodies
from tests.support.aws.fake_s3 import FakeS3, error
from tests.support.each_call.drawing import points
from tests.support.each_call.stage import Life, Stage
from tests.support.s3_sync.shelf import RELEASE, Shelf

SNAPSHOT = {"S3_SYNC_LAYOUT": "snapshot"}
WORLDS = {
    "in-place": {},
    "in-place-fsync": {"S3_SYNC_FSYNC": "true"},
    "snapshot": SNAPSHOT,
    "release": RELEASE,
}
KINDS = ("crash", "EIO", "ENOSPC", "EACCES", "revoke")

# From the first to the second, a file changes, moves, becomes a folder, or the other
# way round, comes, goes, and is emptied.
BEFORE = {
    "a.py": b"a1\n",
    "pkg/b.py": b"b1\n",
    "pkg/c.py": b"c1\n",
    "x": b"x1\n",
    "d/e/f.py": b"f1\n",
    "same.py": b"s\n",
}
AFTER = {
    "a.py": b"a2 longer\n",
    "pkg/b.py": b"b1\n",
    "x/y.py": b"y1\n",
    "d": b"a file now\n",
    "new/n.py": b"n\n",
    "same.py": b"s\n",
    "zero.py": b"",
}
FOREIGN = {"foreign.txt": b"of another program"}


class World:
    """
    A bucket, a volume, and the lives of s3-sync on it.
    """

    def __init__(self, stage: Stage, s3: FakeS3, folder: Path, kind: str) -> None:
        self._stage = stage
        self._s3 = s3
        self._kind = kind
        self._is_in_place = kind.startswith("in-place")
        self.root = folder / "dags"
        s3.objects.clear()
        self._shelf = Shelf(s3)

    def put(self, files: Bodies) -> None:
        """
        Let the source contain exactly these files.
        """
        if self._kind == "release":
            self._shelf.publish(files)
            return
        self._s3.objects.clear()
        for path, content in files.items():
            self._s3.put(f"dags/{path}", content)

    def open(self, kind: str = "") -> Life:
        """
        Start s3-sync, with the settings of this world or of another one.
        """
        place = {
            "AWS_BUCKET": self._s3.bucket,
            "KEY_PATH": "dags",
            "DEST_PATH": str(self.root),
            "PATH": "/usr/bin:/bin",
        }
        return self._stage.open(
            "s3-sync", {**place, **self._s3.environment(), **WORLDS[kind or self._kind]}
        )

    def add_foreign_file(self) -> None:
        for path, content in FOREIGN.items():
            (self.root / path).write_bytes(content)

    def shown(self) -> Bodies:
        """
        Return what a consumer reads.
        """
        root = self.root if self._is_in_place else (self.root / "current").resolve()
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file() and ".s3-sync" not in path.relative_to(root).parts
        }

    def wanted(self, files: Bodies) -> Bodies:
        """
        Return what a consumer should read: files of others stay in place.
        """
        return {**files, **FOREIGN} if self._is_in_place else files

    def left_over(self) -> list[str]:
        """
        Return what only a cycle at work may have on the volume.
        """
        own = self.root / ".s3-sync"
        return [path.name for path in (own / "staging").glob("*")] + [
            path.name for path in (own / "snapshots").glob(".*")
        ]

    def assert_nothing_is_torn(self, where: str) -> None:
        """
        Assert that each file is an old or a new one; in a snapshot, all of one state.
        """
        shown = self.shown()
        if not self._is_in_place:
            assert shown in (BEFORE, AFTER), where
            return
        for path, content in shown.items():
            if path not in FOREIGN:
                assert content in (BEFORE.get(path), AFTER.get(path)), (where, path)

    def assert_the_record_says_what_is_shown(self, life: Life, where: str) -> None:
        """
        Assert that consumers have what they need while S3 is down.
        """
        self._s3.inject(error(403, "AccessDenied"))
        life.cycle()
        self._s3.heal()
        assert life.last["ready"], (where, life.last)
        record = json.loads((self.root / ".s3-sync/published.json").read_bytes())
        assert (self.root / "current").resolve().name in (record["name"], "current"), (
            where
        )

    def assert_it_has_converged(
        self, life: Life, where: str, wanted: Bodies | None = None
    ) -> None:
        """
        Assert that the newest state is published and nothing else is there.
        """
        results = life.settle()
        assert results[-1] == "unchanged", (where, results, life.last)
        assert self.shown() == (self.wanted(AFTER) if wanted is None else wanted), (
            where,
            results,
        )
        assert life.last["ready"], (where, life.last)
        assert not life.last["shortfall"], (where, life.last)
        # A file that could not be removed stays until the next start.
        if not life.last_fault.startswith(("unlink", "rmdir")):
            assert [] == self.left_over(), where
        record = json.loads((self.root / ".s3-sync/published.json").read_bytes())
        assert len(AFTER) == record["files"], where
        assert not record["missing"], where
        assert not record["damaged"], where


@pytest.fixture(scope="module")
def s3() -> Iterator[FakeS3]:
    with FakeS3() as s3:
        yield s3


@contextmanager
def changed(world: World) -> Iterator[Life]:
    """
    Publish the first state, add a file of somebody else, and change the source.
    """
    world.put(BEFORE)
    with world.open() as life:
        results = life.settle()
        assert results[-1] == "unchanged", (results, life.last)
        world.add_foreign_file()
        world.put(AFTER)
        yield life


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", WORLDS)
def test_a_fault_at_any_call_of_a_change_tears_loses_and_leaves_nothing(
    stage: Stage,
    s3: FakeS3,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    layout: str,
    kind: str,
) -> None:
    counting = World(stage, s3, tmp_path / "counting", layout)
    with changed(counting) as life:
        calls = life.cycle()["calls"]
    assert counting.shown() == counting.wanted(AFTER)
    assert calls > len(AFTER)

    for at in points(calls, request, f"{layout} {kind}"):
        world = World(stage, s3, tmp_path / str(at), layout)
        with changed(world) as life:
            descriptors = life.last["descriptors"]
            answer = life.cycle((at, kind))
            where = f"{kind} at call {at} of {calls}: {answer}"
            world.assert_nothing_is_torn(where)
            if kind == "crash":
                assert life.has_crashed, where
            else:
                assert answer["fired"], where
                if kind == "revoke":
                    world.assert_the_record_says_what_is_shown(life, where)
                world.assert_it_has_converged(life, where)
                assert life.last["descriptors"] <= descriptors + 1, (where, life.last)
        with world.open() as life:
            world.assert_it_has_converged(life, f"restart after {where}")


def test_a_file_that_somebody_writes_after_a_crash_stays_theirs(
    stage: Stage, s3: FakeS3, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """
    At the paths that the killed cycle was about to publish or has just deleted, where
    the file system may give the new file the inode of the old one. Their keys are
    gone, so that only a wrong list of files could make s3-sync remove them.
    """
    counting = World(stage, s3, tmp_path / "counting", "in-place")
    with changed(counting) as life:
        calls = life.cycle()["calls"]

    for at in points(calls, request, "theirs"):
        world = World(stage, s3, tmp_path / str(at), "in-place")
        with changed(world) as life:
            life.cycle((at, "crash"))
        present = world.shown()
        theirs = {}
        for path in sorted({*BEFORE, *AFTER} - present.keys()):
            place = world.root / path
            if place.parent.is_dir() and not place.exists():
                place.write_bytes(b"theirs")
                theirs[path] = b"theirs"
        world.put({path: body for path, body in AFTER.items() if path not in theirs})
        with world.open() as life:
            life.settle()
        shown = world.shown()
        assert theirs.items() <= shown.items(), (at, theirs.keys() - shown.keys())


@pytest.mark.parametrize("kind", ["crash", "EIO", "ENOSPC"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("", "in-place", id="first-in-place"),
        pytest.param("", "snapshot", id="first-snapshot"),
        pytest.param("in-place", "in-place", id="restart-in-place"),
        pytest.param("snapshot", "snapshot", id="restart-snapshot"),
        pytest.param("in-place", "snapshot", id="to-snapshot"),
        pytest.param("snapshot", "in-place", id="to-in-place"),
    ],
)
def test_a_fault_at_any_call_of_a_start_loses_and_leaves_nothing(
    stage: Stage,
    s3: FakeS3,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    before: str,
    after: str,
    kind: str,
) -> None:
    """
    The first publish, a start on the volume of an earlier process, and a change of the
    layout; the source changed meanwhile.
    """

    def prepared(name: str) -> World:
        world = World(stage, s3, tmp_path / name, after)
        if before:
            world.put(BEFORE)
            with world.open(before) as life:
                life.settle()
            world.add_foreign_file()
        world.put(AFTER)
        return world

    def wanted(world: World) -> Bodies:
        return world.wanted(AFTER) if before else AFTER

    with prepared("counting").open() as life:
        calls = life.cycle()["calls"]
    assert calls > len(AFTER)

    for at in points(calls, request, f"{before} {after} {kind}"):
        world = prepared(str(at))
        with world.open() as life:
            answer = life.cycle((at, kind))
            where = f"{kind} at call {at} of {calls}: {answer}"
            if kind == "crash":
                assert life.has_crashed, where
            else:
                world.assert_it_has_converged(life, where, wanted(world))
        with world.open() as life:
            world.assert_it_has_converged(life, f"restart {where}", wanted(world))
