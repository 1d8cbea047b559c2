"""
Snapshots that are built beside the current one: requested, abandoned and renewed ones.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from s3_sync.layout.snapshots import SnapshotLayout
from s3_sync.names import RESERVED
from s3_sync.plan import State
from s3_sync.published import Published, Record
from s3_sync.settings import load_settings
from s3_sync.tree import Build, Fill, Tree
from s3_sync.volume import Volume
from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.snapshots import Snapshots
from tests.s3_sync.handling import damaged, put
from tests.support.raising import raised

SHOWN = "b" * 64
REVISION = "a" * 64
FILES = ("one.py", "two.py", "pkg/three.py")


GIVEN = {
    "AWS_BUCKET": "a-bucket",
    "DEST_PATH": "/nowhere",
    "S3_SYNC_LAYOUT": "snapshot",
}
SETTINGS = load_settings(GIVEN)[0]


@pytest.fixture
def layout(volume: Volume) -> Iterator[SnapshotLayout]:
    """A layout that shows a snapshot with three files."""
    layout = opened(volume)
    publish(layout, SHOWN)
    yield layout
    layout.close()


@pytest.fixture
def store(folder: Path) -> Path:
    return folder / RESERVED / "snapshots"


def opened(volume: Volume, published: str = "") -> SnapshotLayout:
    """Open the layout as a process does that reads this in the record."""
    record = Record(SETTINGS, volume.state)
    if published:
        record.published = Published(published, published, published)
    return SnapshotLayout(SETTINGS, volume, record)


def begin(layout: SnapshotLayout) -> Tree:
    return layout.begin(Build(State("", {}), set()), Fence())


def finish(layout: SnapshotLayout, name: str, tree: Tree) -> None:
    """Publish a tree; its record is nothing but this process' memory."""
    build = Build(State(name, {}), set(), name=name)
    build.fill = Fill(tree, Fence(), math.inf)
    layout.publish(build, lambda: None, Fence())


def publish(layout: SnapshotLayout, name: str, content: bytes = b"1 = 1\n") -> None:
    tree = begin(layout)
    for path in FILES:
        put(tree, path, content)
    finish(layout, name, tree)


def hidden(store: Path) -> list[str]:
    return [name for name in os.listdir(store) if name[0] == "."]


def test_a_build_is_continued_unless_it_was_changed_or_moved_away(
    layout: SnapshotLayout, store: Path
) -> None:
    put(begin(layout), "one.py", b"2 = 2\n")
    Path(begin(layout).path, "left.by.a.gate").touch()
    assert ["one.py"] == list(begin(layout).files) == os.listdir(begin(layout).path)

    Path(begin(layout).path, "one.py").unlink()

    assert {} == begin(layout).files
    assert 1 == len(hidden(store))

    put(begin(layout), "one.py", b"2 = 2\n")
    Path(begin(layout).path).rename(store / "moved")
    assert {} == begin(layout).files


def test_a_folder_that_a_gate_left_gives_way_to_a_file(layout: SnapshotLayout) -> None:
    os.makedirs(Path(begin(layout).path, "tools/cache"))

    put(build := begin(layout), "tools")

    assert Path(build.path, "tools").is_file()


def test_an_altered_file_takes_no_other_with_it(layout: SnapshotLayout) -> None:
    """Not even if its folder is empty without it."""
    build = begin(layout)
    paths = ["old/2023/a.py", "old/2024/b.py", "old/c.py"]
    for path in paths:
        put(build, path)
    finish(layout, REVISION, build)
    Path(build.path, paths[0]).unlink()
    Path(build.path, paths[0]).touch()

    layout._link(paths, after := begin(layout), Fence())

    assert paths[1:] == sorted(after.files)


def test_after_a_kill_or_an_error_before_the_swap_the_record_decides(
    layout: SnapshotLayout,
    volume: Volume,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = begin(layout)
    put(build, "one.py", b"2 = 2\n")
    with monkeypatch.context() as broken:
        broken.setattr(Snapshots, "swap_link", Mock(side_effect=OSError(5, "EIO")))
        raised(OSError, finish, layout, REVISION, build)
    assert SHOWN == os.readlink(folder / "current").rpartition("/")[2]

    after = opened(volume, REVISION)
    assert after.problem
    assert "link_elsewhere" == after.problem.reason
    after.correct(Fence())

    assert REVISION == after.name == os.readlink(folder / "current").rpartition("/")[2]
    after.close()


def test_a_return_to_a_retained_snapshot_leaves_no_hole_for_its_readers(
    layout: SnapshotLayout, store: Path, folder: Path
) -> None:
    """Its files get later times, since Python and Airflow compare them."""
    reader = os.open(store / SHOWN, os.O_RDONLY)
    old = {path: (store / SHOWN / path).stat() for path in FILES}
    publish(layout, REVISION, b"2 = 2\n")
    newer = {path: (folder / "current" / path).stat() for path in FILES}

    publish(layout, SHOWN)

    for path in FILES:
        found = os.stat(path, dir_fd=reader)
        assert found.st_ino not in (old[path].st_ino, newer[path].st_ino)
        assert int(found.st_mtime) > int(newer[path].st_mtime) > int(old[path].st_mtime)
    os.close(reader)
    assert SHOWN == layout.name == os.readlink(folder / "current").rpartition("/")[2]
    assert set() == damaged(layout.shown)
    assert [] == hidden(store)
    layout.shown.damaged.add("one.py")
    assert not layout.is_whole(SHOWN)
