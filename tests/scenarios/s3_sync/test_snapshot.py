"""
The snapshot layout: `current` shows one complete revision, and heals.
"""

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.scenarios.s3_sync.histories import Bucket
from tests.scenarios.s3_sync.snapshots import (
    SNAPSHOT,
    SwappingS3,
    current,
    facts,
    shown,
    snapshot_leftovers,
    snapshots,
    wait_until_shown,
)
from tests.scenarios.s3_sync.storms import volume as mounted
from tests.scenarios.s3_sync.test_symlinks import OBJECTS, SWAPPER, Outside
from tests.scenarios.s3_sync.test_volume import fill_up
from tests.support.daemon import Daemon
from tests.support.fake_s3 import error, is_get
from tests.support.scripted import daemon_for
from tests.support.servers import MotoServer
from tests.support.waiting import wait_until

A = {
    "a.py": b"a of A",
    "b.py": b"b of both",
    "pkg/c.py": b"c of A",
    "pkg/sub/d.py": b"d of both",
    "only/in_a.py": b"only in A",
}
B = A | {"a.py": b"a of B", "pkg/c.py": b"c of B, longer", "new/in_b.py": b"only in B"}
del B["only/in_a.py"]
SECOND_NS = 1_000_000_000


@pytest.fixture
def swapping() -> Iterator[SwappingS3]:
    """
    A bucket with revision A.
    """
    with SwappingS3() as s3:
        s3.swap(A)
        yield s3


def downloads(s3: SwappingS3) -> list[str]:
    """
    The paths of the GETs since the last look.
    """
    paths = [request.path.partition("/dags/")[2] for request in s3.seen(is_get())]
    s3.forget()
    return paths


# --- one revision after another


def test_change_of_one_file_among_many_costs_one_download_and_touches_no_other(
    swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    many = {f"pkg{number % 7}/file{number}.py": b"# %d" % number for number in range(400)}
    swapping.swap(many)
    daemon = start(swapping, target, SNAPSHOT)
    daemon.wait_until_synced()
    before = facts(target)
    downloads(swapping)
    changed = many | {"pkg3/file3.py": b"# changed", "pkg9/new.py": b"# new"}
    del changed["pkg4/file4.py"]
    swapping.swap(changed)

    finished = daemon.sync()

    assert ["pkg3/file3.py", "pkg9/new.py"] == sorted(downloads(swapping))
    assert (2, 1) == (finished["files_published"], finished["files_deleted"])
    assert changed == shown(target)
    after = facts(target)
    same = many.keys() - {"pkg3/file3.py", "pkg4/file4.py"}
    assert {path: before[path] for path in same} == {path: after[path] for path in same}
    assert before["pkg3/file3.py"][0] != after["pkg3/file3.py"][0]
    assert [] == snapshot_leftovers(target)


def test_revision_that_comes_back_is_new_to_whoever_compares_times(
    swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    daemon = start(swapping, target, SNAPSHOT)
    daemon.wait_until_synced()
    revision = current(target)
    seen = [facts(target)]
    for files in (B, A, B, A):
        swapping.swap(files)
        assert "changed" == daemon.sync()["result"]
        assert files == shown(target)
        seen.append(facts(target))

    assert revision == current(target)
    assert 2 == len(snapshots(target))
    for path in ("a.py", "pkg/c.py"):
        seconds = [facts[path][1] // SECOND_NS for facts in seen]
        assert sorted(set(seconds)) == seconds, path
    for path in ("b.py", "pkg/sub/d.py"):
        assert 1 == len({facts[path] for facts in seen}), path
    assert [] == snapshot_leftovers(target)


def test_revision_that_comes_back_is_whole_though_its_old_snapshot_was_damaged(
    swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    daemon = start(swapping, target, SNAPSHOT)
    daemon.wait_until_synced()
    old = target / ".s3-sync/snapshots" / current(target)
    swapping.swap(B)
    daemon.sync()
    overwrite(old / "a.py", b"x of A")
    (old / "only/in_a.py").unlink()
    (old / "pkg/c.py").unlink()
    (old / "pkg/c.py").symlink_to("/etc/passwd")
    (old / "b.py").unlink()
    (old / "foreign.txt").write_bytes(b"theirs")
    swapping.swap(A)
    daemon.sync()

    assert A | {"foreign.txt": b"theirs"} == shown(target)
    assert Path("/etc/passwd").stat().st_size > 10


def test_files_are_write_protected_and_have_no_other_mode(
    swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    daemon = start(swapping, target, {**SNAPSHOT, "S3_SYNC_FILE_MODE": "0775"})
    daemon.wait_until_synced()
    swapping.swap(B)
    daemon.sync()

    modes = {
        stat.S_IMODE(path.lstat().st_mode)
        for path in (target / ".s3-sync").rglob("*.py")
        if path.is_file()
    }
    assert {0o555} == modes


def test_old_snapshots_stay_by_number(
    swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    settings = {"S3_SYNC_RETAIN_COUNT": "2", "S3_SYNC_RETAIN_FOR": "0", "S3_SYNC_FSYNC": "true"}
    daemon = start(swapping, target, SNAPSHOT | settings)
    daemon.wait_until_synced()
    published = [current(target)]
    for number in range(6):
        swapping.swap(A | {"a.py": b"%d" % number})
        daemon.sync()
        published.append(current(target))
        daemon.sync()
        assert set(published[-3:]) == snapshots(target)
    daemon.terminate()
    daemon.start().wait_until_synced()

    assert set(published[-3:]) == snapshots(target)
    assert [] == snapshot_leftovers(target)


def test_old_snapshots_stay_for_a_time(
    swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    settings = {"S3_SYNC_RETAIN_COUNT": "0", "S3_SYNC_RETAIN_FOR": "3s"}
    daemon = start(swapping, target, SNAPSHOT | settings, interval="0.2")
    daemon.wait_until_synced()
    first = target / ".s3-sync/snapshots" / current(target)
    replaced_at = time.monotonic()
    for files in (B, A | {"a.py": b"third"}):
        swapping.swap(files)
        wait_until_shown(daemon, files)
    daemon.kill()
    daemon.start()
    assert 3 == len(snapshots(target))
    while first.exists():
        age_seconds = time.monotonic() - replaced_at
        assert age_seconds < 60
        assert len(snapshots(target)) == 3 or age_seconds > 3
    assert age_seconds > 2.9
    wait_until(lambda: len(snapshots(target)) == 1, "only the current one is left")
    wait_until(lambda: not snapshot_leftovers(target), "it has cleaned up")


def test_one_object_that_cannot_be_read_holds_the_revision_back(
    swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    daemon = start(swapping, target, SNAPSHOT)
    daemon.wait_until_synced()
    swapping.inject(error(403, "AccessDenied"), is_get("dags/pkg/c.py"))
    swapping.swap(B)
    for _ in range(5):  # more than the cycles after which in place nothing waits for a file
        failed = daemon.sync()
        assert "access_denied" == failed["reason"], failed
        assert A == shown(target)
        assert 200 == daemon.get("/readyz").status
    swapping.heal()
    daemon.sync()

    assert B == shown(target)
    assert [] == snapshot_leftovers(target)


@pytest.mark.parametrize("delete", ["none", "all"])
def test_what_is_deleted(
    delete: str, swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    daemon = start(swapping, target, {**SNAPSHOT, "S3_SYNC_DELETE": delete})
    daemon.wait_until_synced()
    (target / "current/foreign.txt").write_bytes(b"theirs")
    (target / "current/__pycache__").mkdir()
    (target / "current/__pycache__/a.pyc").write_bytes(b"bytecode")
    (target / ".s3-sync/tree/foreign.txt").write_bytes(b"theirs")
    daemon.sync()
    theirs = {} if delete == "all" else {"foreign.txt": b"theirs"}

    assert A | theirs | {"__pycache__/a.pyc": b"bytecode"} == shown(target)
    swapping.swap(B)
    daemon.sync()
    kept = {"only/in_a.py": A["only/in_a.py"]} if delete == "none" else {}
    assert B | kept == shown(target)
    daemon.terminate()
    daemon.start().wait_until_synced()
    assert B | kept == shown(target)


def test_empty_listing_and_deletions_change_nothing_until_they_may(
    swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    daemon = start(swapping, target, SNAPSHOT)
    daemon.wait_until_synced()
    swapping.swap({})

    assert "source_empty" == daemon.sync()["reason"]
    assert A == shown(target)
    daemon.terminate()
    daemon.environment["S3_SYNC_ALLOW_EMPTY"] = "true"
    daemon.start().wait_until_synced()
    assert {} == shown(target)
    swapping.swap(A)
    daemon.sync()
    assert A == shown(target)


# --- healing


def overwrite(path: Path, content: bytes) -> None:
    """
    Edit a file in its place, as root or as its owner can.
    """
    path.chmod(0o644)
    path.write_bytes(content)


def point(path: str) -> Callable[[Path], None]:
    """
    Let `current` point elsewhere.
    """

    def damage(target: Path) -> None:
        (target / "current").unlink()
        (target / "current").symlink_to(path)

    return damage


def remove(path: str) -> Callable[[Path], None]:
    """
    Remove a file, link or folder.
    """

    def damage(target: Path) -> None:
        place = target / path
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink()

    return damage


def in_place_of(path: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """
    Remove, and put something else there.
    """

    def damage(target: Path) -> None:
        remove(path)(target)
        make(target / path)

    return damage


def move_away(path: str) -> Callable[[Path], object]:
    """
    Move a folder out of the target.
    """

    def damage(target: Path) -> None:
        moved = target.parent / "moved"
        shutil.rmtree(moved, ignore_errors=True)
        (target / path).rename(moved)

    return damage


def remove_snapshot(target: Path) -> None:
    shutil.rmtree(os.path.realpath(target / "current"))


def old_snapshot(target: Path) -> None:
    """
    Let `current` point to the snapshot before.
    """
    (older,) = snapshots(target) - {current(target)}
    point(f".s3-sync/snapshots/{older}")(target)


def own_lists(target: Path) -> None:
    for path in (target / ".s3-sync").rglob("*managed"):
        path.write_bytes(b"nonsense")


OFFLINE = {
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
"""What the copy in `.s3-sync/tree` is enough to mend."""

EDITED = {
    "file edited": lambda target: overwrite(target / "current/a.py", b"a of X"),
    "file truncated": lambda target: overwrite(target / "current/pkg/sub/d.py", b""),
    "file appended to": lambda target: overwrite(target / "current/b.py", B["b.py"] + b"!"),
    "mode changed": lambda target: (target / "current/a.py").chmod(0o777),
}
"""What is edited in one snapshot is edited in all, and in the copy: it costs a download."""

MENDED = {
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
    """
    A daemon that shows B and has A as an old snapshot.
    """

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


@pytest.fixture(scope="module")
def steadies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Steady]]:
    """
    Gives the module's one daemon, in order; a new one where a test broke it.
    """
    made: list[Steady] = []

    def steady() -> Steady:
        if made:
            with contextlib.suppress(AssertionError, OSError):
                made[-1].restore()
                return made[-1]
            made[-1].daemon.kill()
        made.append(Steady(s3, tmp_path_factory.mktemp("steady") / "dags"))
        return made[-1]

    with SwappingS3() as s3:
        yield steady
        for one in made:
            one.daemon.kill()


@pytest.fixture
def steady(steadies: Callable[[], Steady]) -> Steady:
    """
    A daemon that shows B and has A as an old snapshot.
    """
    return steadies()


@pytest.mark.parametrize("damage", OFFLINE)
def test_damage_is_mended_while_s3_is_down(damage: str, steady: Steady) -> None:
    steady.s3.stop()
    try:
        OFFLINE[damage](steady.target)
        failed = steady.daemon.sync()
        assert B == shown(steady.target)
        assert "endpoint_unreachable" == failed["reason"], failed
        assert 200 == steady.daemon.get("/readyz").status
    finally:
        steady.s3.start()
    steady.daemon.sync()

    assert B == shown(steady.target)
    assert [] == snapshot_leftovers(steady.target)


@pytest.mark.parametrize("damage", MENDED | EDITED)
def test_damage_is_mended(damage: str, steady: Steady) -> None:
    (MENDED | EDITED)[damage](steady.target)
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
def test_damage_of_the_night_is_mended_at_the_start_while_s3_is_down(
    damage: str, steady: Steady
) -> None:
    check_after_a_restart(OFFLINE[damage], steady)


@pytest.mark.usefixtures("only_in_full")
@pytest.mark.parametrize("damage", sorted(OFFLINE.keys() - {"link to the old one"}))
def test_any_damage_of_the_night_is_mended_at_the_start_while_s3_is_down(
    damage: str, steady: Steady
) -> None:
    """
    But a link to the old snapshot may be what a kill left.
    """
    check_after_a_restart(OFFLINE[damage], steady)


def check_after_a_restart(damage: Callable[[Path], object], steady: Steady) -> None:
    """
    Damage what a stopped daemon left, and start it again without S3.
    """
    steady.daemon.kill()
    steady.s3.stop()
    try:
        damage(steady.target)
        steady.daemon.start()
        failed = steady.daemon.wait_for_event("cycle_failed")
        assert "endpoint_unreachable" == failed["reason"], failed
        assert B == shown(steady.target)
        assert 200 == steady.daemon.get("/readyz").status
    finally:
        steady.s3.start()


@pytest.mark.usefixtures("only_in_full")
@pytest.mark.parametrize("damage", OFFLINE | MENDED | EDITED)
def test_any_damage_of_the_night_is_mended_at_the_start(damage: str, steady: Steady) -> None:
    steady.daemon.kill()
    (OFFLINE | MENDED | EDITED)[damage](steady.target)
    steady.daemon.start().wait_until_synced()
    steady.daemon.sync()

    assert B == shown(steady.target)
    assert 200 == steady.daemon.get("/readyz").status


def test_folder_with_files_in_the_place_of_the_link_is_named_and_left_alone(
    swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    (target / "current").mkdir(parents=True)
    (target / "current/theirs.py").write_bytes(b"theirs")
    daemon = start(swapping, target, SNAPSHOT)
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
    steady.s3.stop()
    try:
        steady.daemon.start()
        answer = steady.daemon.wait_until_ready(30)
        assert B == shown(steady.target)
        assert current(steady.target) == answer.json()["revision"]
        failed = steady.daemon.wait_for_event("cycle_failed")
        assert "endpoint_unreachable" == failed["reason"]
        assert 200 == steady.daemon.get("/readyz").status
    finally:
        steady.s3.start()


def test_second_daemon_stands_by_ready_and_takes_over(
    swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    first = start(swapping, target, SNAPSHOT)
    first.wait_until_synced()
    second = start(swapping, target, SNAPSHOT, interval="0.2")
    second.wait_for_event("target_waiting")
    second.wait_until_ready()
    swapping.swap(B)
    first.sync()
    revision = current(target)
    wait_until(
        lambda: second.get("/readyz").json()["revision"] == revision, "the stand-by sees it too"
    )
    first.kill()
    second.wait_for_event("target_acquired")
    swapping.swap(A)
    wait_until_shown(second, A)

    assert [] == snapshot_leftovers(target)


def test_one_shot(swapping: SwappingS3, target: Path, start: StartDaemon) -> None:
    settings = {**SNAPSHOT, "S3_SYNC_ONE_SHOT": "true", "S3_SYNC_FSYNC": "true"}
    for files in (A, B):
        swapping.swap(files)
        assert 0 == start(swapping, target, settings).wait_for_exit().code
        assert files == shown(target)
    assert [] == snapshot_leftovers(target)


def test_one_shot_that_lacks_one_object_shows_nothing(
    swapping: SwappingS3, target: Path, start: StartDaemon
) -> None:
    swapping.inject(error(403, "AccessDenied"), is_get("dags/pkg/c.py"))
    settings = {"S3_SYNC_ONE_SHOT": "true", "S3_SYNC_ONE_SHOT_DEADLINE": "2s"}
    daemon = start(swapping, target, SNAPSHOT | settings, interval="0.2")

    assert 3 == daemon.wait_for_exit().code
    assert not os.path.lexists(target / "current")
    assert [] == os.listdir(target / ".s3-sync/snapshots")


def test_dry_run_touches_nothing(swapping: SwappingS3, target: Path, start: StartDaemon) -> None:
    daemon = start(swapping, target, {**SNAPSHOT, "S3_SYNC_DRY_RUN": "true"})
    planned = daemon.wait_for_event("plan_made")

    assert len(A) == planned["files_to_publish"]
    assert not target.exists()


def test_full_volume_keeps_the_revision_whole_and_recovers(
    swapping: SwappingS3, tmp_path: Path, start: StartDaemon
) -> None:
    with mounted("-o", "size=1m")(tmp_path) as volume:
        target = volume / "dags"
        daemon = start(swapping, target, SNAPSHOT)
        daemon.wait_until_synced()
        swapping.swap(B | {"big.bin": bytes(700_000)})
        daemon.sync()
        both = B | {f"many/file{number}.py": b"#" * 3_000 for number in range(60)}
        fill_up(volume / "foreign.bin")
        swapping.swap(both | {"big.bin": bytes(700_001)})
        for _ in range(2):
            failed = daemon.sync()
            assert "target_full" == failed["reason"], failed
            assert B | {"big.bin": bytes(700_000)} == shown(target)
            assert 200 == daemon.get("/readyz").status
        daemon.kill()
        daemon.start().wait_for_event("cycle_failed", reason="target_full")
        assert B | {"big.bin": bytes(700_000)} == shown(target)
        (volume / "foreign.bin").unlink()
        swapping.swap(both)
        wait_until_shown(daemon, both)
        daemon.sync()

        assert [] == snapshot_leftovers(target)
        daemon.kill()


def test_volume_without_a_free_inode_keeps_the_revision_whole_and_recovers(
    swapping: SwappingS3, tmp_path: Path, start: StartDaemon
) -> None:
    """
    The files fit, but not the folders of one more snapshot.
    """
    with mounted("-o", "size=4m,nr_inodes=90")(tmp_path) as volume:
        target = volume / "dags"
        files = {f"folder{number}/a.py": b"%d" % number for number in range(12)}
        swapping.swap(files)
        daemon = start(swapping, target, SNAPSHOT)
        daemon.wait_until_synced()
        assert files == shown(target)
        number = 0
        while daemon.sync()["event"] == "cycle_finished":
            before = shown(target)
            number += 1
            swapping.swap(files | {"folder1/a.py": b"changed %d" % number})
            assert number < 10
        assert before == shown(target)
        assert "target_full" == daemon.sync()["reason"]
        assert before == shown(target)
        daemon.terminate()
        daemon.environment |= {"S3_SYNC_RETAIN_COUNT": "0", "S3_SYNC_RETAIN_FOR": "0"}
        daemon.start().wait_until_synced()

        assert files | {"folder1/a.py": b"changed %d" % number} == shown(target)
        daemon.kill()


# --- neighbours

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
    """
    Put a symlink in the place of one of our own things.
    """
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
    swapped: str, counts: Counts, target: Path, tmp_path: Path, start: StartDaemon
) -> None:
    outside = Outside(tmp_path / "outside")
    with SwappingS3() as s3:
        s3.swap(OBJECTS)
        daemon = start(s3, target, SNAPSHOT)
        daemon.wait_until_synced()
        for number in range(counts.symlink_swaps // 4):
            place = target / ".s3-sync" / swapped.format(revision=current(target))
            process = subprocess.Popen(
                [sys.executable, "-c", SWAPPER, str(place), str(outside.folder)],
                stdout=subprocess.PIPE,
            )
            try:
                assert process.stdout is not None
                process.stdout.readline()
                s3.swap({path: b"%d of " % number + path.encode() for path in OBJECTS})
                daemon.sync()
                daemon.sync()
            finally:
                process.kill()
                process.wait()
            outside.assert_untouched()
        for aside in (target / ".s3-sync").rglob("*.aside"):
            shutil.rmtree(aside)
        wait_until_shown(daemon, s3.files())

    outside.assert_untouched()


def test_real_server(moto: MotoServer, target: Path) -> None:
    """
    Everything at once against a server that is not ours.
    """
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
