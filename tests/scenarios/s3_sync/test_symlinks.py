"""Symlinks in the target and hostile keys: nothing outside the target is ever touched."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.scenarios.s3_sync.histories import Bucket
from tests.scenarios.s3_sync.model import difference, expect, read_tree
from tests.support.daemon import Daemon
from tests.support.servers import MotoServer

OBJECTS = {
    "top.py": b"top",
    "a/one.py": b"one",
    "a/b/c/deep.py": b"deep",
    "a/b/other.py": b"other",
    "z/last.py": b"last",
}


class Outside:
    """A folder beside the target, full of what a deceived daemon would overwrite or delete."""

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
        """Check that nothing came, went or changed."""
        assert self._before == self._state()


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    """What must not change."""
    return Outside(tmp_path / "outside")


@pytest.fixture
def bucket(moto: MotoServer) -> Bucket:
    """A bucket with a few folders."""
    bucket = Bucket(moto)
    bucket.fill(OBJECTS)
    return bucket


def _replace_by_link(path: Path, destination: Path) -> None:
    """Put a symlink where a file or folder was, which goes."""
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
    when: str, change: str, moto: MotoServer, bucket: Bucket, outside: Outside, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    with Daemon(moto, bucket.name, target) as daemon:
        daemon.wait_until_synced()
        for planted in PLANTED:
            if when == "before the start":
                daemon.terminate()
            _replace_by_link(target / planted, outside.folder / planted)
            for key in OBJECTS:
                if change == "upload":
                    bucket.put(key, f"new {key} {planted}".encode())
                elif change == "delete" and key != "z/last.py":
                    bucket.delete(key)
            if when == "before the start":
                daemon.start()
                daemon.wait_until_synced()
            else:
                daemon.sync()
            if (target / planted).is_symlink():
                # A link that no key needs any more is foreign, and stays.
                assert change == "delete"
                (target / planted).unlink()

            outside.assert_untouched()
            assert [] == difference(expect(bucket.objects).files, read_tree(target)), planted
            if change == "delete":
                bucket.fill(OBJECTS)
                daemon.sync()


def test_symlink_to_the_moved_folder_itself_is_replaced(
    moto: MotoServer, bucket: Bucket, tmp_path: Path
) -> None:
    target, moved = tmp_path / "target", tmp_path / "moved"
    with Daemon(moto, bucket.name, target) as daemon:
        daemon.wait_until_synced()
        (target / "a").rename(moved)
        (target / "a").symlink_to(moved)
        daemon.sync()
        bucket.delete("a/one.py")
        bucket.put("a/b/c/deep.py", b"new")
        daemon.sync()

    assert [] == difference(expect(bucket.objects).files, read_tree(target))
    untouched = {path.removeprefix("a/"): OBJECTS[path] for path in OBJECTS if path[:2] == "a/"}
    assert untouched == read_tree(moved)


@pytest.mark.parametrize("name", OURS)
def test_symlink_in_place_of_our_own_files_before_the_first_start_is_never_followed(
    name: str, moto: MotoServer, bucket: Bucket, outside: Outside, tmp_path: Path
) -> None:
    hidden = tmp_path / "target" / ".s3-sync"
    (hidden / name).parent.mkdir(parents=True)
    (hidden / name).symlink_to(outside.folder / name)
    with Daemon(moto, bucket.name, tmp_path / "target") as daemon:
        daemon.wait_until_synced()
        bucket.delete("top.py")
        daemon.sync()

    outside.assert_untouched()
    assert [] == difference(expect(bucket.objects).files, read_tree(tmp_path / "target"))


@pytest.mark.parametrize("when", ["before a restart", "while running"])
def test_symlink_in_place_of_our_own_files_is_never_followed(
    when: str, moto: MotoServer, bucket: Bucket, outside: Outside, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    with Daemon(moto, bucket.name, target) as daemon:
        daemon.wait_until_synced()
        for name in OURS:
            if when == "before a restart":
                daemon.terminate()
            _replace_by_link(target / ".s3-sync" / name, outside.folder / name)
            bucket.put("late.py", name.encode())
            if when == "before a restart":
                daemon.start()
                daemon.wait_until_synced()
            else:
                daemon.sync()
            bucket.delete("late.py")
            daemon.sync()

            outside.assert_untouched()
            assert [] == difference(expect(bucket.objects).files, read_tree(target)), name


def test_target_may_be_a_symlink_itself(moto: MotoServer, bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "target").symlink_to("real")
    with Daemon(moto, bucket.name, tmp_path / "target") as daemon:
        daemon.wait_until_synced()

    assert [] == difference(OBJECTS, read_tree(tmp_path / "real"))


def test_hostile_keys_stay_in_the_bucket(
    moto: MotoServer, bucket: Bucket, outside: Outside, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    for key in HOSTILE_KEYS:
        bucket.put(key, b"hostile")
    before = {path for path in tmp_path.rglob("*") if target not in path.parents}
    with Daemon(moto, bucket.name, target) as daemon:
        daemon.wait_until_synced()
        daemon.sync()
        after = {path for path in tmp_path.rglob("*") if target not in path.parents}
        named = {event["key"] for event in daemon.find_events("key_skipped")}

    outside.assert_untouched()
    assert {target, daemon.home} >= after - before
    assert [] == difference(expect(bucket.objects).files, read_tree(target))
    assert set(expect(bucket.objects).skipped) == named


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("swapped", ["a", "a/b", "z"])
def test_folder_that_turns_into_a_symlink_at_any_moment_leads_nowhere(
    swapped: str, moto: MotoServer, bucket: Bucket, outside: Outside, counts: Counts, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    with Daemon(moto, bucket.name, target) as daemon:
        daemon.wait_until_synced()
        for number in range(counts.symlink_swaps):
            with swapping(target / swapped, outside.folder / swapped):
                for key in OBJECTS:
                    if key in bucket.objects and number % 2:
                        bucket.delete(key)
                    elif not number % 2:
                        bucket.put(key, b"%d of " % number + key.encode())
                bucket.put("stays.py", b"%d" % number)
                daemon.sync()
            outside.assert_untouched()
        bucket.fill(OBJECTS)
        for aside in target.rglob("*.aside"):
            shutil.rmtree(aside)
        daemon.sync()
        daemon.sync()

    outside.assert_untouched()
    assert [] == difference(expect(bucket.objects).files, read_tree(target))


@contextmanager
def swapping(place: Path, outside: Path) -> Iterator[None]:
    """Let a process swap a folder for a symlink and back, as fast as it can."""
    program = [sys.executable, "-c", SWAPPER, str(place), str(outside)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield
        finally:
            process.kill()
