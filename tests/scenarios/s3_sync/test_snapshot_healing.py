"""What others do to snapshots is repaired, and leads nowhere."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.s3_sync.test_symlinks import OBJECTS, Outside, swapping
from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.scenarios.s3_sync.histories import Bucket
from tests.scenarios.s3_sync.snapshots import (
    SNAPSHOT,
    A,
    B,
    SwappingS3,
    current,
    overwrite,
    shown,
    snapshot_leftovers,
    snapshots,
    wait_until_shown,
)
from tests.support.daemon import Daemon, Event
from tests.support.fake_s3 import is_get
from tests.support.scripted import daemon_for
from tests.support.servers import MotoServer


@pytest.fixture
def s3() -> Iterator[SwappingS3]:
    """A bucket with revision A."""
    with SwappingS3(A) as s3:
        yield s3


# --- healing


def point(path: str) -> Callable[[Path], None]:
    """Let `current` point elsewhere."""

    def damage(target: Path) -> None:
        (target / "current").unlink()
        (target / "current").symlink_to(path)

    return damage


def remove(path: str) -> Callable[[Path], None]:
    """Remove a file, link or folder."""

    def damage(target: Path) -> None:
        place = target / path
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink()

    return damage


def in_place_of(path: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Remove, and put something else there."""

    def damage(target: Path) -> None:
        remove(path)(target)
        make(target / path)

    return damage


def move_away(path: str) -> Callable[[Path], object]:
    """Move a folder out of the target."""

    def damage(target: Path) -> None:
        moved = target.parent / "moved"
        shutil.rmtree(moved, ignore_errors=True)
        (target / path).rename(moved)

    return damage


def remove_snapshot(target: Path) -> None:
    shutil.rmtree(os.path.realpath(target / "current"))


def old_snapshot(target: Path) -> None:
    """Let `current` point to the snapshot before."""
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
    "file for the link": in_place_of("current", lambda path: path.write_bytes(b"file")),
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
    "all of ours removed": remove(".s3-sync"),
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
    """A daemon that shows B and has A as an old snapshot."""

    def __init__(self, s3: SwappingS3, target: Path) -> None:
        self.s3 = s3
        self.target = target
        s3.swap(A)
        self.daemon = daemon_for(s3, target, settings=SNAPSHOT).start()
        self.daemon.wait_until_synced()
        self._old = current(target)
        self.restore()

    def restore(self) -> None:
        """
        Show B, and A before where its snapshot is lost.

        Raises:
            AssertionError: Something is broken for good.
        """
        for files in (B,) if self._old in snapshots(self.target) else (A, B):
            self.s3.swap(files)
            self.daemon.sync()
            wait_until_shown(self.daemon, files, cycles=3)
        self.s3.forget()

    @contextmanager
    def outage(self) -> Iterator[None]:
        """S3 is down meanwhile."""
        self.s3.stop()
        try:
            yield
        finally:
            self.s3.start()

    def check_failed(self, event: Event) -> None:
        """Check that a cycle failed for the outage alone: B is shown, and ready."""
        assert "endpoint_unreachable" == event["reason"], event
        assert B == shown(self.target)
        assert 200 == self.daemon.get("/readyz").status


@pytest.fixture(scope="module")
def steadies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Steady]]:
    """Gives the module's one daemon, in order; a new one where a test broke it."""
    made: list[Steady] = []

    def steady() -> Steady:
        if made:
            with contextlib.suppress(AssertionError, OSError):
                made[-1].restore()
                return made[-1]
            made[-1].daemon.kill()
        made.append(Steady(server, tmp_path_factory.mktemp("steady") / "dags"))
        return made[-1]

    with SwappingS3() as server:
        yield steady
        for one in made:
            one.daemon.kill()


@pytest.fixture
def steady(steadies: Callable[[], Steady]) -> Steady:
    """A daemon that shows B and has A as an old snapshot."""
    return steadies()


@pytest.mark.parametrize("damage", OFFLINE)
def test_damage_is_repaired_while_s3_is_down(damage: str, steady: Steady) -> None:
    with steady.outage():
        OFFLINE[damage](steady.target)
        steady.check_failed(steady.daemon.sync())
    steady.daemon.sync()

    assert B == shown(steady.target)
    assert [] == snapshot_leftovers(steady.target)


@pytest.mark.parametrize("damage", REPAIRED | EDITED)
def test_damage_is_repaired(damage: str, steady: Steady) -> None:
    (REPAIRED | EDITED)[damage](steady.target)
    for _ in range(2):
        steady.daemon.sync()
    if damage in EDITED:
        assert 1 == len(steady.s3.seen(is_get()))

    assert B == shown(steady.target)
    assert 200 == steady.daemon.get("/readyz").status
    steady.s3.swap(A)
    wait_until_shown(steady.daemon, A)
    assert [] == snapshot_leftovers(steady.target)


@pytest.mark.parametrize(
    "damage", ["link removed", "folder removed", "file is a link", "snapshot removed"]
)
def test_damage_of_the_night_is_repaired_at_the_start_while_s3_is_down(
    damage: str, steady: Steady
) -> None:
    check_after_a_restart(OFFLINE[damage], steady)


@pytest.mark.usefixtures("only_in_full")
@pytest.mark.parametrize("damage", sorted(OFFLINE.keys() - {"link to the old one"}))
def test_any_damage_of_the_night_is_repaired_at_the_start_while_s3_is_down(
    damage: str, steady: Steady
) -> None:
    """But a link to the old snapshot may be what a kill left."""
    check_after_a_restart(OFFLINE[damage], steady)


def check_after_a_restart(damage: Callable[[Path], object], steady: Steady) -> None:
    """Damage what a stopped daemon left, and start it again without S3."""
    steady.daemon.kill()
    with steady.outage():
        damage(steady.target)
        steady.check_failed(steady.daemon.start().wait_for_event("cycle_failed"))


@pytest.mark.usefixtures("only_in_full")
@pytest.mark.parametrize("damage", OFFLINE | REPAIRED | EDITED)
def test_any_damage_of_the_night_is_repaired_at_the_start(damage: str, steady: Steady) -> None:
    steady.daemon.kill()
    (OFFLINE | REPAIRED | EDITED)[damage](steady.target)
    steady.daemon.start().wait_until_synced()
    steady.daemon.sync()

    assert B == shown(steady.target)
    assert 200 == steady.daemon.get("/readyz").status


def test_folder_with_files_where_the_link_belongs_is_named_and_left_alone(
    target: Path, start: StartDaemon
) -> None:
    (target / "current").mkdir(parents=True)
    (target / "current/theirs.py").write_bytes(b"theirs")
    daemon = start(SNAPSHOT)
    failed = daemon.wait_for_event("cycle_failed")

    assert "link_blocked" == failed["reason"]
    assert "current" in failed["error"]
    assert 503 == daemon.get("/readyz").status
    assert b"theirs" == (target / "current/theirs.py").read_bytes()
    (target / "current/theirs.py").rename(target / "elsewhere.py")
    assert "cycle_finished" == daemon.sync()["event"]
    assert A == shown(target)


# --- processes


def test_restart_is_ready_at_once_while_s3_is_down(steady: Steady) -> None:
    steady.daemon.kill()
    with steady.outage():
        answer = steady.daemon.start().wait_until_ready(30)
        assert B == shown(steady.target)
        assert current(steady.target) == answer.json()["revision"]
        steady.check_failed(steady.daemon.wait_for_event("cycle_failed"))


# --- neighbors

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
    """Put a symlink where one of our own things belongs."""
    place = target / planted.format(revision=current(target))
    with contextlib.suppress(FileNotFoundError):
        remove("")(place)
    place.symlink_to(destination)


@pytest.mark.parametrize("planted", PLANTED)
def test_planted_symlink_leads_nowhere(planted: str, steady: Steady, tmp_path: Path) -> None:
    outside = Outside(tmp_path / "outside")
    steady.s3.swap(OBJECTS)
    wait_until_shown(steady.daemon, OBJECTS)
    plant(planted, steady.target, outside.folder)
    steady.daemon.sync()
    outside.assert_untouched()
    for files in (CHANGES["upload"], CHANGES["delete"]):
        steady.s3.swap(files)
        wait_until_shown(steady.daemon, files)

        outside.assert_untouched()
        assert 200 == steady.daemon.get("/readyz").status


@pytest.mark.usefixtures("only_in_full")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("planted", PLANTED)
def test_symlink_planted_in_the_night_leads_nowhere(
    planted: str, change: str, steady: Steady, tmp_path: Path
) -> None:
    outside = Outside(tmp_path / "outside")
    steady.s3.swap(OBJECTS)
    wait_until_shown(steady.daemon, OBJECTS)
    steady.daemon.terminate()
    plant(planted, steady.target, outside.folder)
    steady.s3.swap(CHANGES[change])
    steady.daemon.start().wait_until_synced()
    wait_until_shown(steady.daemon, CHANGES[change])

    outside.assert_untouched()
    assert 200 == steady.daemon.get("/readyz").status


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("swapped", ["tree/a", "tree", "snapshots", "snapshots/{revision}"])
def test_folder_of_ours_that_turns_into_a_symlink_at_any_moment_leads_nowhere(
    swapped: str, counts: Counts, s3: SwappingS3, tmp_path: Path, start: StartDaemon
) -> None:
    outside = Outside(tmp_path / "outside")
    s3.swap(OBJECTS)
    daemon = start(SNAPSHOT).until_synced()
    for number in range(counts.symlink_swaps // 4):
        place = daemon.target / ".s3-sync" / swapped.format(revision=current(daemon.target))
        with swapping(place, outside.folder):
            s3.swap({path: b"%d of " % number + path.encode() for path in OBJECTS})
            daemon.sync()
            daemon.sync()
        outside.assert_untouched()
    for aside in (daemon.target / ".s3-sync").rglob("*.aside"):
        shutil.rmtree(aside)
    wait_until_shown(daemon, s3.files())

    outside.assert_untouched()


def test_real_server(moto: MotoServer, target: Path) -> None:
    """Everything at once against a server that is not ours."""
    bucket = Bucket(moto, "dags")
    for path, content in A.items():
        bucket.put(f"dags/{path}", content)
    with Daemon(moto, bucket.name, target, "dags", settings=SNAPSHOT) as daemon:
        daemon.wait_until_synced()
        assert A == shown(target)
        for files in (B, A, B):
            for path in {*A, *B} - files.keys():
                bucket.delete(f"dags/{path}")
            for path in files:
                bucket.put(f"dags/{path}", files[path])
            daemon.sync()
            assert files == shown(target)

    assert [] == snapshot_leftovers(target)
