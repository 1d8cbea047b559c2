"""Damage to snapshots is repaired, and planted symlinks are never followed."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar_runtime.errors import SidecarError
from tests.conftest import Counts
from tests.runtime.recording import Log
from tests.s3_sync.cycle.test_symlinks import OBJECTS, Outside, swapping
from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import is_get
from tests.support.s3_sync.scripted import published
from tests.support.s3_sync.shelf import RELEASE, Shelf
from tests.support.s3_sync.snapshots import (
    SETTINGS,
    A,
    B,
    SwappingS3,
    bucket_of_a,
    current,
    overwrite,
    shown,
    snapshot_leftovers,
    snapshots,
)

__all__ = ["bucket_of_a"]


# --- repairs


def point(path: str) -> Callable[[Path], None]:
    """Return a damage that points `current` elsewhere."""

    def damage(target: Path) -> None:
        (target / "current").unlink()
        (target / "current").symlink_to(path)

    return damage


def remove(path: str) -> Callable[[Path], None]:
    """Return a damage that removes a file, link or folder."""

    def damage(target: Path) -> None:
        place = target / path
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink()

    return damage


def in_place_of(path: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return a damage that replaces a path with something else."""

    def damage(target: Path) -> None:
        remove(path)(target)
        make(target / path)

    return damage


def move_away(path: str) -> Callable[[Path], object]:
    """Return a damage that moves a folder out of the target."""

    def damage(target: Path) -> None:
        moved = target.parent / "moved"
        shutil.rmtree(moved, ignore_errors=True)
        (target / path).rename(moved)

    return damage


def remove_snapshot(target: Path) -> None:
    shutil.rmtree(os.path.realpath(target / "current"))


def old_snapshot(target: Path) -> None:
    """Point `current` to the previous snapshot."""
    (older,) = snapshots(target) - {current(target)}
    point(f".s3-sync/snapshots/{older}")(target)


def own_lists(target: Path) -> None:
    for path in (target / ".s3-sync").rglob("*managed"):
        path.write_bytes(b"nonsense")


Damage = Callable[[Path], object]

OFFLINE: dict[str, Damage] = {
    "file removed": remove("current/pkg/c.py"),
    "folder removed": remove("current/pkg"),
    "file replaced": in_place_of("current/a.py", lambda path: path.write_bytes(b"a of B")),
    "file is a link": in_place_of("current/a.py", lambda path: path.symlink_to("/etc/passwd")),
    "folder is a link": in_place_of("current/pkg", lambda path: path.symlink_to("/etc")),
    "link removed": remove("current"),
    "link elsewhere": point("/etc"),
    "link to nothing": point(".s3-sync/snapshots/0123456789ab"),
    "link to the tree": point(".s3-sync/tree"),
    "link to the old one": old_snapshot,
    "link absolute": lambda target: point(os.path.realpath(target / "current"))(target),
    "file in place of the link": in_place_of("current", lambda path: path.write_bytes(b"file")),
    "empty folder for the link": in_place_of("current", lambda path: path.mkdir()),
    "snapshot removed": remove_snapshot,
}

"""What the copy in `.s3-sync/tree` is enough to repair."""

EDITED: dict[str, Damage] = {
    "file edited": lambda target: overwrite(target / "current/a.py", b"a of X"),
    "file truncated": lambda target: overwrite(target / "current/pkg/sub/d.py", b""),
    "file appended to": lambda target: overwrite(target / "current/b.py", B["b.py"] + b"!"),
    "mode changed": lambda target: (target / "current/a.py").chmod(0o777),
}

"""What is edited in one snapshot is edited in all, and in the copy: it costs a download."""

REPAIRED: dict[str, Damage] = {
    "snapshots removed": remove(".s3-sync/snapshots"),
    "tree removed": remove(".s3-sync/tree"),
    "file of the tree removed": remove(".s3-sync/tree/a.py"),
    "both removed": lambda target: [
        remove(f"{folder}/a.py")(target) for folder in ("current", ".s3-sync/tree")
    ],
    "lists damaged": own_lists,
    "list of the tree removed": remove(".s3-sync/tree.managed"),
    "record removed": remove(".s3-sync/published.json"),
    ".s3-sync removed": remove(".s3-sync"),
    "everything removed": lambda target: [remove(".s3-sync")(target), remove("current")(target)],
    "target removed": shutil.rmtree,
    "target moved away": move_away(""),
    "snapshots moved away": move_away(".s3-sync/snapshots"),
    "snapshot moved away": lambda target: move_away(f".s3-sync/snapshots/{current(target)}")(
        target
    ),
    "tree moved away": move_away(".s3-sync/tree"),
    "staging moved away": move_away(".s3-sync/staging"),
}


class Steady:
    """A process that publishes B and has A as an old snapshot."""

    def __init__(self, s3: SwappingS3, process: Process) -> None:
        self.s3 = s3
        self.process = process
        self.target = process.folder
        process.run(SETTINGS)
        self.until_shown(B)
        s3.forget()

    def until_shown(self, files: dict[str, bytes]) -> None:
        """Swap the bucket to these files, and run cycles until `current` contains exactly them."""
        self.s3.swap(files)
        for _ in range(10):
            with contextlib.suppress(SidecarError):
                self.process.cycle()
            with contextlib.suppress(AssertionError, OSError):  # the link is missing or damaged
                if shown(self.target) == files:
                    return
        assert shown(self.target) == files

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Stop S3 for the duration of the block."""
        self.s3.stop()
        try:
            yield
        finally:
            self.s3.start()

    def fail(self) -> None:
        """Run a cycle that fails only because of the outage: B is published, and ready."""
        assert "endpoint_unreachable" == self.process.fail().reason
        assert B == shown(self.target)
        assert self.process.is_ready


@pytest.fixture
def steady(s3: SwappingS3, process: Process) -> Steady:
    """A process that publishes B and has A as an old snapshot."""
    return Steady(s3, process)


@pytest.mark.parametrize("damage", OFFLINE)
def test_damage_is_repaired_while_s3_is_down(damage: str, steady: Steady) -> None:
    with steady.outage():
        OFFLINE[damage](steady.target)
        steady.fail()
    steady.process.cycle()

    assert B == shown(steady.target)
    assert [] == snapshot_leftovers(steady.target)


@pytest.mark.parametrize("damage", REPAIRED | EDITED)
def test_damage_is_repaired(damage: str, steady: Steady) -> None:
    (REPAIRED | EDITED)[damage](steady.target)
    for _ in range(2):
        with contextlib.suppress(SidecarError):  # the cycle that notices
            steady.process.cycle()
    if damage in EDITED:
        assert 1 == len(steady.s3.seen(is_get()))

    assert B == shown(steady.target)
    assert steady.process.is_ready
    steady.until_shown(A)
    assert [] == snapshot_leftovers(steady.target)


@pytest.mark.parametrize("damage", sorted(OFFLINE.keys() - {"link to the old one"}))
def test_damage_while_stopped_is_repaired_at_start_without_s3(damage: str, steady: Steady) -> None:
    """A link to the old snapshot is excluded: a kill may have left it."""
    steady.process.stop()
    with steady.outage():
        OFFLINE[damage](steady.target)
        steady.process.start(SETTINGS)
        steady.fail()


@pytest.mark.parametrize("damage", OFFLINE | REPAIRED | EDITED)
def test_damage_while_stopped_is_repaired_at_start(damage: str, steady: Steady) -> None:
    steady.process.stop()
    (OFFLINE | REPAIRED | EDITED)[damage](steady.target)
    steady.process.start(SETTINGS)
    for _ in range(2):
        steady.process.cycle()

    assert B == shown(steady.target)
    assert steady.process.is_ready


# --- older snapshots

C = B | {"b.py": b"b of C", "pkg/sub/d.py": b"d of C"}

SHARED: dict[str, Damage] = {
    "edited": lambda target: overwrite(target / "current/b.py", b"b of evil"),
    "truncated": lambda target: overwrite(target / "current/pkg/sub/d.py", b""),
    "mode changed": lambda target: (target / "current/b.py").chmod(0o777),
}

"""What is done to a file of the current snapshot, and so to the older one that shares it."""

OWN: dict[str, Damage] = {
    "emptied": lambda older: overwrite(older / "a.py", b""),
    "removed": lambda older: (older / "only/in_a.py").unlink(),
    "replaced": in_place_of("pkg/c.py", lambda path: path.write_bytes(b"x")),
    "list removed": lambda older: Path(f"{older}.managed").unlink(),
    "list damaged": lambda older: Path(f"{older}.managed").write_bytes(b"nonsense"),
    "all files removed": lambda older: (shutil.rmtree(older), older.mkdir()),
}

"""What is done to an older snapshot alone."""


def older(target: Path) -> Path:
    (name,) = snapshots(target) - {current(target)}
    return target / ".s3-sync/snapshots" / name


def all_shown(target: Path) -> list[dict[str, bytes]]:
    store = target / ".s3-sync/snapshots"
    return [published(store / name) for name in sorted(snapshots(target))]


@pytest.mark.parametrize("files", [B, C], ids=["same", "new revision"])
@pytest.mark.parametrize("is_running", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("damage", SHARED)
def test_damage_to_the_current_snapshot_stays_in_no_older_one(
    damage: str, is_running: bool, files: dict[str, bytes], steady: Steady
) -> None:
    place = older(steady.target)
    if not is_running:
        steady.process.stop()
    SHARED[damage](steady.target)
    steady.s3.swap(files)
    if not is_running:
        steady.process.start(SETTINGS)
    steady.process.cycle()
    steady.process.cycle()

    assert files == shown(steady.target)
    assert all(found in (A, B, C) for found in all_shown(steady.target))
    assert all(not path.stat().st_mode & 0o222 for path in place.rglob("*.py"))
    if is_running and files == B:
        assert A == published(place)


def test_an_older_snapshot_is_repaired_from_the_current_one(steady: Steady) -> None:
    place = older(steady.target)
    steady.process.stop()
    (place / "b.py").unlink()
    shutil.rmtree(place / "pkg/sub")
    steady.process.start(SETTINGS)
    with steady.outage():
        steady.fail()

    assert A == published(place)


@pytest.mark.parametrize("damage", OWN)
def test_a_damaged_older_snapshot_is_removed_at_start(
    damage: str, steady: Steady, log: Log
) -> None:
    place = older(steady.target)
    steady.process.stop()
    OWN[damage](place)
    steady.process.start(SETTINGS)
    with steady.outage():
        steady.fail()

    assert not place.exists()
    assert not place.with_name(f"{place.name}.managed").exists()
    (event,) = log.events("snapshot_damaged")
    assert (place.name, True) == (event["revision"], event["is_removed"])
    steady.until_shown(A)
    assert [] == snapshot_leftovers(steady.target)


def test_a_damaged_older_snapshot_in_use_is_removed_afterwards(steady: Steady, log: Log) -> None:
    place = older(steady.target)
    steady.process.stop()
    overwrite(place / "a.py", b"")
    reader = os.open(place, os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_SH)
    steady.process.start(SETTINGS)
    for _ in range(3):
        steady.process.cycle()
    assert place.exists()
    os.close(reader)
    steady.process.cycle()

    assert not place.exists()
    assert [False] == [event["is_removed"] for event in log.events("snapshot_damaged")]


def test_a_release_poll_does_not_postpone_the_removal_of_a_damaged_snapshot(
    process: Process,
) -> None:
    shelf = Shelf(process.s3)
    old = shelf.publish({"a.py": b"0"}).revision
    process.run(SETTINGS | RELEASE)
    shelf.publish({"a.py": b"1"})
    process.cycle()
    process.stop()
    place = process.folder / ".s3-sync/snapshots" / old
    overwrite(place / "a.py", b"")
    reader = os.open(place, os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_SH)
    process.start(SETTINGS | RELEASE)
    for _ in range(2):
        process.cycle()

    os.close(reader)
    process.cycle()

    assert not place.exists()


def test_intact_older_snapshots_stay_at_start(s3: SwappingS3, process: Process, log: Log) -> None:
    settings = SETTINGS | {"S3_SYNC_ALLOW_EMPTY": "true"}
    process.run(settings)
    for files in ({}, B):
        s3.swap(files)
        process.cycle()
    process.restart(settings)
    process.cycle()

    assert 3 == len(all_shown(process.folder))
    assert all(files in all_shown(process.folder) for files in ({}, A, B))
    assert [] == log.events("snapshot_damaged")


def test_reports_and_keeps_a_folder_that_blocks_the_link(process: Process) -> None:
    current_folder = process.folder / "current"
    current_folder.mkdir()
    (current_folder / "theirs.py").write_bytes(b"theirs")
    process.start(SETTINGS)

    failed = process.fail()

    assert "link_blocked" == failed.reason and "current" in failed.message
    assert not process.is_ready
    assert b"theirs" == (current_folder / "theirs.py").read_bytes()
    (current_folder / "theirs.py").rename(process.folder / "elsewhere.py")
    assert process.cycle().is_success
    assert A == shown(process.folder)


# --- planted symlinks

PLANTED = (
    ".s3-sync/tree",
    ".s3-sync/tree/a",
    ".s3-sync/tree/a/b",
    ".s3-sync/tree/top.py",
    ".s3-sync/tree.managed",
    ".s3-sync/snapshots",
    ".s3-sync/snapshots/{revision}",
    ".s3-sync/snapshots/{revision}.managed",
    ".s3-sync/snapshots/{revision}/a",
    ".s3-sync/snapshots/{revision}/a/b/c/deep.py",
    ".s3-sync/snapshots/.current.new",
    ".s3-sync/staging",
    ".s3-sync/staging/1-0.part",
    ".s3-sync/.airflowignore",
    ".s3-sync",
    "current",
)

CHANGES = {
    "nothing": OBJECTS,
    "upload": {path: b"new " + content for path, content in OBJECTS.items()},
    "delete": {"z/last.py": OBJECTS["z/last.py"]},
}


def plant(planted: str, target: Path, destination: Path) -> None:
    """Replace one of the sidecar's own files or folders with a symlink."""
    place = target / planted.format(revision=current(target))
    with contextlib.suppress(FileNotFoundError):
        remove("")(place)
    place.symlink_to(destination)


@pytest.mark.parametrize("planted", PLANTED)
def test_planted_symlink_is_never_followed(planted: str, steady: Steady, tmp_path: Path) -> None:
    outside = Outside(tmp_path / "outside")
    steady.until_shown(OBJECTS)
    plant(planted, steady.target, outside.folder)
    with contextlib.suppress(SidecarError):  # the cycle that notices
        steady.process.cycle()
    outside.assert_untouched()
    for files in (CHANGES["upload"], CHANGES["delete"]):
        steady.until_shown(files)

        outside.assert_untouched()
        assert steady.process.is_ready


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("planted", PLANTED)
def test_symlink_planted_while_stopped_is_never_followed(
    planted: str, change: str, steady: Steady, tmp_path: Path
) -> None:
    outside = Outside(tmp_path / "outside")
    steady.until_shown(OBJECTS)
    steady.process.stop()
    plant(planted, steady.target, outside.folder)
    steady.process.start(SETTINGS)
    steady.until_shown(CHANGES[change])

    outside.assert_untouched()
    assert steady.process.is_ready


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("swapped", ["tree/a", "tree", "snapshots", "snapshots/{revision}"])
def test_state_folder_swapped_for_a_symlink_is_never_followed(
    swapped: str, counts: Counts, steady: Steady, tmp_path: Path
) -> None:
    outside = Outside(tmp_path / "outside")
    steady.until_shown(OBJECTS)
    hidden = steady.target / ".s3-sync"
    for number in range(counts.symlink_swaps // 4):
        place = hidden / swapped.format(revision=current(steady.target))
        files = {path: b"%d of " % number + path.encode() for path in OBJECTS}
        with swapping(place, outside.folder):
            steady.s3.swap(files)
            for _ in range(2):
                with contextlib.suppress(SidecarError):  # the folder may be missing
                    steady.process.cycle()
        outside.assert_untouched()
    for aside in hidden.rglob("*.aside"):
        shutil.rmtree(aside)
    steady.until_shown(files)

    outside.assert_untouched()
