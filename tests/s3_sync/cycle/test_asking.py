"""Requested older releases: abandoned cycles, and folders that other processes change."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from s3_sync.layouts.snapshot import Snapshot
from s3_sync.tree.journal import Managed
from s3_sync.tree.target import Torn
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.s3_sync.stage import SNAPSHOT, Stage

REVISION = "a" * 64


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path / "dags", **SNAPSHOT)
    stage.publish("b" * 64, one="1 = 1\n", two="2 = 2\n", pkg__three="3 = 3\n")
    yield stage
    stage.close()


def layout_of(stage: Stage) -> Snapshot:
    assert isinstance(stage.layout, Snapshot)
    return stage.layout


def wanted(stage: Stage) -> dict[str, Managed]:
    """Return the published files."""
    shown = layout_of(stage).shown
    assert shown is not None
    return dict(shown.managed.files)


def test_two_downloads_of_one_revision_use_separate_folders(stage: Stage) -> None:
    """An abandoned cycle removes only its own folder when it ends."""
    layout = layout_of(stage)
    with layout.aside(REVISION, wanted(stage), Fence()) as second:
        with layout.aside(REVISION, wanted(stage), Fence()) as first:
            assert first.path != second.path
        layout.keep(REVISION, second, Fence())

    folder = stage.state / "snapshots" / REVISION
    assert {"one.py", "two.py", "pkg"} == set(os.listdir(folder))
    assert [] == [name for name in os.listdir(stage.state / "snapshots") if name[0] == "."]


@pytest.mark.parametrize("deed", ["removed", "changed"])
def test_a_folder_changed_during_the_download_is_not_kept(stage: Stage, deed: str) -> None:
    layout = layout_of(stage)
    with layout.aside(REVISION, wanted(stage), Fence()) as target:
        path = Path(target.path, "one.py")
        path.unlink()
        if deed == "changed":
            path.write_text("1 = 2\n")
        with pytest.raises(Torn):
            layout.keep(REVISION, target, Fence())

    assert not layout.has(REVISION) and 0 == layout.asked_count


def test_an_abandoned_cycle_leaves_no_snapshot(stage: Stage) -> None:
    fence = Fence()
    layout = layout_of(stage)
    with layout.aside(REVISION, wanted(stage), fence) as target:
        fence.revoke()
        with pytest.raises(CycleAbandoned):
            layout.keep(REVISION, target, fence)

    assert {"b" * 64} == stage.snapshots


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
def test_a_damaged_requested_release_is_downloaded_again(stage: Stage, damage: str) -> None:
    layout, folder = layout_of(stage), stage.state / "snapshots" / REVISION
    for is_damaged in (False, True):
        if is_damaged:
            DAMAGES[damage](folder)
            assert layout.has(REVISION)
        assert not layout.is_whole(REVISION)
        with layout.aside(REVISION, wanted(stage), Fence()) as target:
            layout.keep(REVISION, target, Fence())
        assert layout.is_whole(REVISION)

    assert "1 = 1\n" == (folder / "one.py").read_text()
    assert [] == [name for name in os.listdir(stage.state / "snapshots") if name[0] == "."]
