"""The folders of a volume, the state in them, and whatever may be in their place."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3_sync.folder.paths import is_link, open_own_folder
from s3_sync.folder.volume import AIRFLOWIGNORE, SNAPSHOTS, STAGING, Volume
from s3_sync.keys import RESERVED
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.runtime.recording import Log
from tests.support.machine.descriptors import held


def reopen(folder: Path) -> None:
    """Open and close the volume, as a process does that starts and ends."""
    Volume(str(folder), file_mode=0o644, fsync=False).close()


# --- opening


def test_creates_the_target_and_its_state_folder(tmp_path: Path) -> None:
    reopen(tmp_path / "a/b/target")

    assert [RESERVED] == os.listdir(tmp_path / "a/b/target")
    assert {STAGING, AIRFLOWIGNORE} == set(os.listdir(tmp_path / "a/b/target" / RESERVED))


def test_the_target_path_may_be_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    volume = Volume(str(tmp_path / "link"), file_mode=0o644, fsync=False)

    assert [RESERVED] == os.listdir(tmp_path / "real")
    assert volume.is_current()
    volume.close()


def test_removes_staging_files_of_a_killed_process(folder: Path, volume: Volume, log: Log) -> None:
    staging = folder / RESERVED / STAGING
    (staging / "7-0.part").write_bytes(b"half")
    (staging / "link").symlink_to(folder)
    (staging / "folder").mkdir()

    reopen(folder)

    assert [] == os.listdir(staging)
    assert [] == log.events("leftover_kept")


@pytest.mark.parametrize("name", [RESERVED, STAGING])
def test_a_failed_open_leaks_no_descriptor(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = os.mkdir

    def is_full(path: str, *arguments: int, **more: int) -> None:
        if path == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        mkdir(path, *arguments, **more)

    monkeypatch.setattr(os, "mkdir", is_full)
    before = held(folder)

    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            Volume(str(folder), file_mode=0o644, fsync=False)

    assert before == held(folder)


# --- hidden from Airflow


def test_airflowignore_lists_all_folders_of_the_state_folder(folder: Path, volume: Volume) -> None:
    place = folder / RESERVED / AIRFLOWIGNORE
    before = place.stat()

    reopen(folder)

    assert {STAGING, SNAPSHOTS} == set(place.read_text().splitlines())
    assert os.path.samestat(before, place.stat()), "it is not written again"


@pytest.mark.parametrize("instead", ["nothing", "other", "link", "fifo"])
def test_restores_a_missing_or_altered_airflowignore(
    folder: Path, volume: Volume, tmp_path: Path, instead: str
) -> None:
    place = folder / RESERVED / AIRFLOWIGNORE
    good = place.read_bytes()
    place.unlink()
    (tmp_path / "outside").write_bytes(good)
    if instead == "other":
        place.write_bytes(b"nothing-of-ours\n")
    elif instead == "link":
        place.symlink_to(tmp_path / "outside")
    elif instead == "fifo":
        os.mkfifo(place)

    reopen(folder)

    assert good == place.read_bytes() and not place.is_symlink()


def test_starts_even_if_airflowignore_is_a_folder(folder: Path) -> None:
    (folder / RESERVED / AIRFLOWIGNORE).mkdir(parents=True)

    reopen(folder)

    assert (folder / RESERVED / AIRFLOWIGNORE).is_dir()


# --- removed and replaced folders


@pytest.mark.parametrize("name", ["", RESERVED, f"{RESERVED}/{STAGING}"])
@pytest.mark.parametrize("is_recreated", [True, False])
def test_is_not_current_after_a_folder_was_removed(
    folder: Path, volume: Volume, name: str, is_recreated: bool
) -> None:
    place = folder / name
    place.rename(folder.with_name("away"))
    if is_recreated:
        place.mkdir()

    assert not volume.is_current()


def test_is_not_current_if_the_state_folder_is_a_symlink(folder: Path, volume: Volume) -> None:
    (folder / RESERVED).rename(folder / "moved")
    (folder / RESERVED).symlink_to("moved")

    assert not volume.is_current()


# --- state


def test_replaces_state_atomically(folder: Path, volume: Volume) -> None:
    volume.write_state("published.json", b"old", Fence())
    with (folder / RESERVED / "published.json").open("rb") as reader:
        volume.write_state("published.json", b"new", Fence())

        assert b"old" == reader.read()
    assert b"new" == (folder / RESERVED / "published.json").read_bytes()


def test_a_revoked_fence_writes_no_state(folder: Path, volume: Volume, revoked: Fence) -> None:
    with pytest.raises(CycleAbandoned):
        volume.write_state("published.json", b"x", revoked)

    assert not (folder / RESERVED / "published.json").exists()


@pytest.mark.parametrize("fsync", [True, False])
def test_flushes_state_only_if_configured(
    folder: Path, fsync: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    volume = Volume(str(folder), file_mode=0o644, fsync=fsync)
    monkeypatch.setattr(os, "fsync", flushed.append)

    volume.write_state("published.json", b"x", Fence())

    assert bool(flushed) is fsync
    volume.close()


# --- folders


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("to", ["elsewhere", "nowhere", "file", ".s3-sync"])
def test_replaces_a_link_in_place_of_the_state_folder(
    tmp_path: Path, parent: int, log: Log, to: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / ".s3-sync").symlink_to(to)

    fd = open_own_folder(".s3-sync", parent)

    assert os.path.samestat(os.fstat(fd), (tmp_path / ".s3-sync").lstat())
    assert [".s3-sync"] == [event["path"] for event in log.events("own_folder_replaced")]
    assert sorted(os.listdir(tmp_path)) == [".s3-sync", "elsewhere", "file"]
    os.close(fd)


def test_keeps_a_file_in_place_of_the_state_folder(tmp_path: Path, parent: int) -> None:
    (tmp_path / ".s3-sync").write_text("x")

    with pytest.raises(NotADirectoryError):
        open_own_folder(".s3-sync", parent)

    assert (tmp_path / ".s3-sync").read_text() == "x"


def test_distinguishes_links_from_their_targets(tmp_path: Path, parent: int) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "broken").symlink_to("nowhere")

    links = [name for name in ("folder", "link", "broken", "missing") if is_link(name, parent)]
    assert ["link", "broken"] == links
