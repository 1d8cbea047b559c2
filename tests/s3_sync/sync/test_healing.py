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
from tests.s3_sync.process import Process
from tests.s3_sync.sync.test_symlinks import OBJECTS, Outside, swapping
from tests.support.aws.fake_s3 import error, is_get
from tests.support.s3_sync.scripted import published
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
    "link removed": remove("current"),
    "link elsewhere": point("/etc"),
    "link to nothing": point(".s3-sync/snapshots/0123456789ab"),
    "link to the store": point(".s3-sync/snapshots"),
    "link to the old one": old_snapshot,
    "link absolute": lambda target: point(os.path.realpath(target / "current"))(target),
    "file in place of the link": in_place_of("current", lambda path: path.write_bytes(b"file")),
    "empty folder for the link": in_place_of("current", lambda path: path.mkdir()),
}

"""What needs no source."""

LOST: dict[str, Damage] = {
    "file removed": remove("current/pkg/c.py"),
    "folder removed": remove("current/pkg"),
    "file replaced": in_place_of("current/a.py", lambda path: path.write_bytes(b"a of X")),
    "file is a link": in_place_of("current/a.py", lambda path: path.symlink_to("/etc/passwd")),
    "file is a folder": in_place_of("current/a.py", lambda path: path.mkdir()),
    "folder is a link": in_place_of("current/pkg", lambda path: path.symlink_to("/etc")),
    "file edited": lambda target: overwrite(target / "current/a.py", b"a of X"),
    "file truncated": lambda target: overwrite(target / "current/pkg/sub/d.py", b""),
    "file appended to": lambda target: overwrite(target / "current/b.py", B["b.py"] + b"!"),
    "mode changed": lambda target: (target / "current/a.py").chmod(0o777),
}

"""Damage to files of the current snapshot."""

REPAIRED: dict[str, Damage] = {
    "snapshots removed": remove(".s3-sync/snapshots"),
    "snapshot removed": remove_snapshot,
    "lists damaged": own_lists,
    "record removed": remove(".s3-sync/published.json"),
    ".s3-sync removed": remove(".s3-sync"),
    "everything removed": lambda target: [remove(".s3-sync")(target), remove("current")(target)],
    "target removed": shutil.rmtree,
    "target moved away": move_away(""),
    "snapshots moved away": move_away(".s3-sync/snapshots"),
    "snapshot moved away": lambda target: move_away(f".s3-sync/snapshots/{current(target)}")(
        target
    ),
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
def test_the_link_is_repaired_while_s3_is_down(damage: str, steady: Steady) -> None:
    with steady.outage():
        OFFLINE[damage](steady.target)
        steady.fail()
    steady.process.cycle()

    assert B == shown(steady.target)
    assert [] == snapshot_leftovers(steady.target)


@pytest.mark.parametrize("damage", LOST)
def test_damage_stays_while_s3_is_down_and_costs_one_download_afterwards(
    damage: str, steady: Steady
) -> None:
    with steady.outage():
        LOST[damage](steady.target)
        for _ in range(2):
            assert "endpoint_unreachable" == steady.process.fail().reason
            assert not steady.process.is_ready
            assert "missing or altered" in steady.process.problem
    steady.process.cycle()

    assert B == shown(steady.target)
    assert steady.process.is_ready
    healed = 2 if damage.startswith("folder") else 1
    assert healed == len(steady.s3.seen(is_get()))
    assert healed == steady.process.metric("s3_sync_healed_files_total")
    steady.until_shown(A)
    assert [] == snapshot_leftovers(steady.target)


@pytest.mark.parametrize("damage", REPAIRED)
def test_damage_is_repaired(damage: str, steady: Steady) -> None:
    REPAIRED[damage](steady.target)
    for _ in range(2):
        with contextlib.suppress(SidecarError):  # the cycle that notices
            steady.process.cycle()

    assert B == shown(steady.target)
    assert steady.process.is_ready
    steady.until_shown(A)
    assert [] == snapshot_leftovers(steady.target)


@pytest.mark.parametrize("damage", sorted(OFFLINE.keys() - {"link to the old one"}))
def test_a_link_damaged_while_stopped_is_repaired_at_start_without_s3(
    damage: str, steady: Steady
) -> None:
    """A link to the old snapshot is excluded: a kill may have left it."""
    steady.process.stop()
    with steady.outage():
        OFFLINE[damage](steady.target)
        steady.process.start(SETTINGS)
        steady.fail()


@pytest.mark.parametrize("damage", OFFLINE | REPAIRED | LOST)
def test_damage_while_stopped_is_repaired_at_start(damage: str, steady: Steady) -> None:
    steady.process.stop()
    (OFFLINE | REPAIRED | LOST)[damage](steady.target)
    steady.process.start(SETTINGS)
    for _ in range(2):
        steady.process.cycle()

    assert B == shown(steady.target)
    assert steady.process.is_ready


def test_a_partial_snapshot_is_repaired_as_well(steady: Steady) -> None:
    """It has no state of its name, so it is built again, and renamed into what readers see."""
    steady.s3.swap(A)
    steady.s3.inject(error(403, "AccessDenied"), is_get("dags/pkg/c.py"))
    for _ in range(2):
        steady.process.cycle()
    partial = current(steady.target)
    (steady.target / "current/b.py").unlink()
    assert "partial" == steady.process.cycle().result

    assert partial == current(steady.target) and partial.startswith("partial-")
    assert A | {"pkg/c.py": B["pkg/c.py"]} == shown(steady.target)
    assert steady.process.is_ready
    assert 1 == steady.process.metric("s3_sync_healed_files_total")


def test_a_damaged_file_that_cannot_be_read_leaves_a_partial_state_also_after_a_restart(
    steady: Steady,
) -> None:
    whole = current(steady.target)
    (steady.target / "current/a.py").unlink()
    steady.s3.inject(error(403, "AccessDenied"), is_get("dags/a.py"))
    for _ in range(2):
        steady.process.cycle()
    assert current(steady.target).startswith("partial-")

    steady.process.stop()
    with steady.outage():
        steady.process.start(SETTINGS)
        steady.process.fail()

    assert (True, "") == (steady.process.is_ready, steady.process.revision)
    assert steady.process.readiness.shortfall
    del (without := dict(B))["a.py"]
    assert without == shown(steady.target)
    steady.s3.heal()
    steady.process.cycle()
    assert whole == current(steady.target) and B == shown(steady.target)


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
@pytest.mark.parametrize("swapped", ["snapshots", "snapshots/{revision}", "snapshots/{revision}/a"])
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
