"""Symlinks in the target and hostile keys: nothing outside the target is ever touched."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sidecar_runtime.errors import SidecarError
from tests.conftest import Counts
from tests.runtime.recording import Log
from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import FakeS3
from tests.support.s3_sync.target_model import Expectation, difference, expect, read_tree

OBJECTS = {
    "top.py": b"top",
    "a/one.py": b"one",
    "a/b/c/deep.py": b"deep",
    "a/b/other.py": b"other",
    "z/last.py": b"last",
}


class Outside:
    """A folder beside the target with files that a deceived daemon would overwrite or delete."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for path in OBJECTS:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(b"outside")
        for name in ("staging/kept", "lock", "managed", "published.json"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"outside")
        self._before = self._state()

    def _state(self) -> dict[str, tuple[int, ...]]:
        state: dict[str, tuple[int, ...]] = {}
        for path in sorted(self.folder.rglob("*")):
            found = path.lstat()
            times = (found.st_mtime_ns, found.st_ctime_ns)
            state[str(path)] = (found.st_ino, found.st_mode, found.st_size, *times)
        return state

    def assert_untouched(self) -> None:
        """Check that no file was added, removed or changed."""
        assert self._before == self._state()


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    """A folder that must not change."""
    return Outside(tmp_path / "outside")


@pytest.fixture
def s3(s3: FakeS3) -> FakeS3:
    """A bucket with a few folders."""
    s3.put_all(OBJECTS)
    return s3


def flaws(s3: FakeS3, target: Path) -> list[str]:
    """Return the differences between target and bucket."""
    return difference(expected(s3).files, read_tree(target))


def expected(s3: FakeS3) -> Expectation:
    return expect({key: stored.body for key, stored in s3.objects.items()})


def _replace_by_link(path: Path, destination: Path) -> None:
    """Replace a file or folder with a symlink."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.symlink_to(destination)


HOSTILE_KEYS = (
    "../outside/top.py",
    "../../escaped.py",
    "a/../../outside/a/one.py",
    "a/..",
    "..",
    "/etc/s3-sync-was-here",
    "//outside/top.py",
    "./../outside/z/last.py",
    "..\\outside\\top.py",
    "%2e%2e/outside/top.py",
    "..%2Foutside%2Ftop.py",
    ".s3-sync/managed",
    ".s3-sync/staging/evil.py",
    ".s3-sync",
)

SWAPPER = """
import os, sys
place, outside = sys.argv[1:]
aside = place + ".aside"
print("ready", flush=True)
while True:
    try:
        os.rename(place, aside)
        os.symlink(outside, place)
        os.unlink(place)
        os.rename(aside, place)
    except OSError:
        # The daemon has recreated the folder in between; take whichever is there.
        try:
            os.unlink(place)
        except OSError:
            pass
"""

OURS = (".", "staging", "lock", "managed", "published.json")
PLANTED = ("top.py", "a/b/c/deep.py", "a", "a/b", "a/b/c", "z")


@pytest.mark.parametrize("when", ["before the start", "while running"])
@pytest.mark.parametrize("change", ["nothing", "upload", "delete"])
def test_symlink_at_or_above_a_file_is_replaced_and_never_followed(
    when: str, change: str, s3: FakeS3, process: Process, outside: Outside
) -> None:
    target = process.folder
    process.run({})
    for planted in PLANTED:
        if when == "before the start":
            process.stop()
        _replace_by_link(target / planted, outside.folder / planted)
        for key in OBJECTS:
            if change == "upload":
                s3.put(key, f"new {key} {planted}".encode())
            elif change == "delete" and key != "z/last.py":
                s3.delete(key)
        if when == "before the start":
            process.start({})
        process.cycle()
        if (target / planted).is_symlink():
            # A link at a path that no key needs is foreign, and stays.
            assert change == "delete"
            (target / planted).unlink()

        outside.assert_untouched()
        assert [] == flaws(s3, target), planted
        if change == "delete":
            s3.put_all(OBJECTS)
            process.cycle()


def test_symlink_to_a_moved_folder_is_replaced(
    s3: FakeS3, process: Process, tmp_path: Path
) -> None:
    target, moved = process.folder, tmp_path / "moved"
    process.run({})
    (target / "a").rename(moved)
    (target / "a").symlink_to(moved)
    process.cycle()
    s3.delete("a/one.py")
    s3.put("a/b/c/deep.py", b"new")
    process.cycle()

    assert [] == flaws(s3, target)
    untouched = {path.removeprefix("a/"): OBJECTS[path] for path in OBJECTS if path[:2] == "a/"}
    assert untouched == read_tree(moved)


@pytest.mark.parametrize("name", OURS)
def test_symlink_in_place_of_a_state_file_at_first_start_is_never_followed(
    name: str, s3: FakeS3, process: Process, outside: Outside
) -> None:
    place = process.folder / ".s3-sync" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(outside.folder / name)
    process.run({})
    s3.delete("top.py")
    process.cycle()

    outside.assert_untouched()
    assert [] == flaws(s3, process.folder)


@pytest.mark.parametrize("when", ["before a restart", "while running"])
def test_symlink_in_place_of_a_state_file_is_never_followed(
    when: str, s3: FakeS3, process: Process, outside: Outside
) -> None:
    process.run({})
    for name in OURS:
        if when == "before a restart":
            process.stop()
        _replace_by_link(process.folder / ".s3-sync" / name, outside.folder / name)
        s3.put("late.py", name.encode())
        if when == "before a restart":
            process.start({})
        process.cycle()
        s3.delete("late.py")
        process.cycle()

        outside.assert_untouched()
        assert [] == flaws(s3, process.folder), name


def test_target_may_be_a_symlink(s3: FakeS3, process: Process, tmp_path: Path) -> None:
    (tmp_path / "target").symlink_to(process.folder)
    process.run({"DEST_PATH": str(tmp_path / "target")})

    assert [] == difference(OBJECTS, read_tree(process.folder))


def test_hostile_keys_stay_in_the_bucket(
    s3: FakeS3, process: Process, outside: Outside, tmp_path: Path, log: Log
) -> None:
    target = process.folder
    s3.put_each(HOSTILE_KEYS, b"hostile")
    before = {path for path in tmp_path.rglob("*") if target not in path.parents}
    process.run({})
    process.cycle()

    outside.assert_untouched()
    assert before == {path for path in tmp_path.rglob("*") if target not in path.parents}
    assert [] == flaws(s3, target)
    assert set(expected(s3).skipped) == {event["key"] for event in log.events("key_skipped")}


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("swapped", ["a", "a/b", "z"])
def test_folder_swapped_for_a_symlink_is_never_followed(
    swapped: str, s3: FakeS3, process: Process, outside: Outside, counts: Counts
) -> None:
    target = process.folder
    process.run({})
    for number in range(counts.symlink_swaps):
        with swapping(target / swapped, outside.folder / swapped):
            for key in OBJECTS:
                if key in s3.objects and number % 2:
                    s3.delete(key)
                elif not number % 2:
                    s3.put(key, b"%d of " % number + key.encode())
            s3.put("stays.py", b"%d" % number)
            with suppress(SidecarError):  # the folder may be missing
                process.cycle()
        outside.assert_untouched()
    s3.put_all(OBJECTS)
    for aside in target.rglob("*.aside"):
        shutil.rmtree(aside)
    for _ in range(2):
        process.cycle(is_asked_for=True)

    outside.assert_untouched()
    assert [] == flaws(s3, target)


@contextmanager
def swapping(place: Path, outside: Path) -> Iterator[None]:
    """Swap a folder for a symlink and back in another process, as fast as possible."""
    program = [sys.executable, "-c", SWAPPER, str(place), str(outside)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield
        finally:
            process.kill()
