"""The way to a path, whatever other processes put there."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from s3_sync.folder.journal import Held
from s3_sync.folder.target import open_in_place
from s3_sync.folder.volume import Blocked, walk
from tests.s3_sync.folder.handling import open_volume, put


class Ground:
    """A target with the files of s3-sync and those of others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._volume = open_volume(folder)
        self.root = self._volume.root
        self.ours = open_in_place(self._volume)

    def close(self) -> None:
        self.ours.close()
        self._volume.close()

    def make(self, path: str, *, ours: bool = False) -> None:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.encode())
        if ours:
            self.ours.files[path] = Held("etag", 1, 1, place.stat().st_ino, 1)

    def publish(self, path: str) -> None:
        """Put a file into place."""
        put(self.ours, path, b"new")

    def tree(self) -> dict[str, bytes]:
        """Return all entries of the target except `.s3-sync`, with their contents."""
        found = {}
        for folder, folders, files in os.walk(self.folder):
            folders[:] = [name for name in folders if name != ".s3-sync"]
            for name in [*folders, *files]:
                place = Path(folder, name)
                mode = place.lstat().st_mode
                if stat.S_ISLNK(mode):
                    content = b"-> " + os.readlink(os.fsencode(place))
                else:
                    content = place.read_bytes() if stat.S_ISREG(mode) else b"/"
                found[str(place.relative_to(self.folder))] = content
        return found


@pytest.fixture
def ground(folder: Path) -> Iterator[Ground]:
    ground = Ground(folder)
    yield ground
    ground.close()


# --- walking


def test_writes_stay_inside_if_a_folder_is_swapped_after_the_walk(
    ground: Ground, tmp_path: Path
) -> None:
    ground.make("a/b")
    (tmp_path / "outside").mkdir()

    with walk(ground.root, "a/c") as (fd, name):
        (ground.folder / "a").rename(ground.folder / "moved")
        (ground.folder / "a").symlink_to(tmp_path / "outside")
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=fd))

    assert [] == os.listdir(tmp_path / "outside")
    assert (ground.folder / "moved/c").exists()


# --- replacing existing entries


# --- any situation


ACTORS = st.sampled_from(["ours", "foreign", "folder", "link", "bytecode"])
PLACES = st.sampled_from(["a", "a/b", "a/b/c", "a/x", "a/b/y", "a/b/c/z", "w"])
SETUPS = st.lists(st.tuples(PLACES, ACTORS), max_size=6)


@given(setup=SETUPS, path=st.sampled_from(["a", "a/b", "a/b/c"]))
@example(setup=[("a", "ours")], path="a/b")
@example(setup=[("a/b", "foreign")], path="a")
@example(setup=[("a/b/c", "bytecode"), ("a/x", "ours")], path="a")
@example(setup=[("a/b", "link")], path="a")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_a_publish_changes_nothing_or_no_foreign_file(
    tmp_path: Path, setup: list[tuple[str, str]], path: str
) -> None:
    folder = tmp_path / "asked"
    shutil.rmtree(folder, ignore_errors=True)
    ground = Ground(folder)
    for place, actor in setup:
        if os.path.lexists(folder / place) or _has_a_file_above(folder, place):
            continue
        if actor == "folder":
            (folder / place).mkdir(parents=True)
        elif actor == "link":
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).symlink_to("nowhere")
        elif actor == "bytecode":
            ground.make(f"{place}/__pycache__/x.pyc")
        else:
            ground.make(place, ours=actor != "foreign")
    before, managed = ground.tree(), dict(ground.ours.files)

    try:
        ground.publish(path)
    except Blocked:
        assert managed == ground.ours.files
        assert before.items() <= ground.tree().items(), "folders may be new"
    else:
        assert b"new" == ground.tree()[path]
        for place, content in before.items():
            is_foreign = (
                content == place.encode() and place not in managed and place != path
            )
            if is_foreign and "__pycache__" not in place:
                assert content == ground.tree()[place], "a foreign file"
    finally:
        ground.close()


def _has_a_file_above(folder: Path, place: str) -> bool:
    return any(
        os.path.lexists(folder / above)
        and (folder / above).is_symlink() | (folder / above).is_file()
        for above in Path(place).parents
        if str(above) != "."
    )
