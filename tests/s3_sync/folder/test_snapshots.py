"""Snapshots that are built beside the current one: requested, abandoned and renewed ones."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from s3_sync.folder.snapshots import SnapshotLayout
from s3_sync.folder.volume import Volume
from s3_sync.keys import RESERVED
from s3_sync.settings import load_settings
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.volume.files import TargetError
from tests.s3_sync.folder.handling import damaged, put

SHOWN, REVISION = "b" * 64, "a" * 64
FILES = ("one.py", "two.py", "pkg/three.py")


@pytest.fixture
def layout(folder: Path) -> Iterator[SnapshotLayout]:
    """A layout that shows a snapshot with three files."""
    given = {"AWS_BUCKET": "a-bucket", "DEST_PATH": str(folder), "S3_SYNC_LAYOUT": "snapshot"}
    volume = Volume(str(folder), file_mode=0o444, fsync=False)
    layout = SnapshotLayout(load_settings(given)[0], volume, "")
    publish(layout, SHOWN)
    yield layout
    layout.close()
    volume.close()


@pytest.fixture
def store(folder: Path) -> Path:
    return folder / RESERVED / "snapshots"


def publish(layout: SnapshotLayout, name: str, content: bytes = b"1 = 1\n") -> None:
    build = layout.begin()
    for path in FILES:
        put(build, path, content)
    layout.publish(name, build, Fence())


def hidden(store: Path) -> list[str]:
    return [name for name in os.listdir(store) if name[0] == "."]


# --- requested snapshots


def test_two_downloads_of_one_revision_use_separate_folders(
    layout: SnapshotLayout, store: Path
) -> None:
    """An abandoned cycle removes only its own folder when it ends."""
    with layout.aside(REVISION) as second:
        layout.link(FILES, second, Fence())
        with layout.aside(REVISION) as first:
            assert first.path != second.path
        layout.keep(REVISION, second, Fence())

    assert {"one.py", "two.py", "pkg"} == set(os.listdir(store / REVISION))
    assert [] == hidden(store)


@pytest.mark.parametrize("deed", ["removed", "changed"])
def test_a_folder_changed_during_the_download_is_not_kept(
    layout: SnapshotLayout, store: Path, deed: str
) -> None:
    with layout.aside(REVISION) as folder:
        layout.link(FILES, folder, Fence())
        path = Path(folder.path, "one.py")
        path.unlink()
        if deed == "changed":
            path.write_text("1 = 2\n")
        with pytest.raises(TargetError):
            layout.keep(REVISION, folder, Fence())

    assert not (store / REVISION).exists() and [] == layout.snapshots.asked()


def test_an_abandoned_cycle_leaves_no_snapshot(
    layout: SnapshotLayout, store: Path, revoked: Fence
) -> None:
    with layout.aside(REVISION) as folder:
        layout.link(FILES, folder, Fence())
        with pytest.raises(CycleAbandoned):
            layout.keep(REVISION, folder, revoked)

    assert not (store / REVISION).exists()
    assert [] == hidden(store)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "replaced": lambda folder: (
        (folder / "one.py").unlink(),
        (folder / "one.py").write_bytes(b"2 = 2\n"),
    ),
    "removed": lambda folder: (folder / "pkg/three.py").unlink(),
    "its list removed": lambda folder: Path(f"{folder}.managed").unlink(),
    "a folder that someone has made": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_requested_snapshot_can_be_kept_again(
    layout: SnapshotLayout, store: Path, damage: str
) -> None:
    for is_damaged in (False, True):
        if is_damaged:
            DAMAGES[damage](store / REVISION)
        assert not layout.is_whole(REVISION)
        with layout.aside(REVISION) as folder:
            layout.link(FILES, folder, Fence())
            layout.keep(REVISION, folder, Fence())
        assert layout.is_whole(REVISION)

    assert "1 = 1\n" == (store / REVISION / "one.py").read_text()
    assert [] == hidden(store)


# --- builds


def test_a_build_is_continued_unless_it_was_changed(layout: SnapshotLayout, store: Path) -> None:
    put(layout.begin(), "one.py", b"2 = 2\n")
    Path(layout.begin().path, "left.by.a.gate").touch()
    assert ["one.py"] == list(layout.begin().files) == os.listdir(layout.begin().path)

    Path(layout.begin().path, "one.py").unlink()

    assert {} == layout.begin().files
    assert 1 == len(hidden(store))


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
    assert layout.shown is not None and set() == damaged(layout.shown)
    assert [] == hidden(store)


def test_a_blocked_link_leaves_nothing_open(
    layout: SnapshotLayout, store: Path, folder: Path
) -> None:
    (folder / "current").unlink()
    (folder / "current/theirs").mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))

    for number in range(3):
        with pytest.raises(Exception, match="cannot be replaced with the link"):
            publish(layout, f"{number}" * 64)

    assert before == len(os.listdir("/proc/self/fd"))
    assert SHOWN == layout.name
