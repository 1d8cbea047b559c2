"""The brake on mass deletion."""

import shutil
from collections.abc import Callable

import pytest

from s3_sync.cycle.deletions import DeletionBrake, vanished
from s3_sync.listing.entries import Entry
from s3_sync.settings import load_settings
from tests.runtime.recording import Log
from tests.s3_sync.failing import failure
from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import error, is_get, is_list
from tests.support.http.loopback import Request
from tests.support.machine.clocks import Clock

HOLD_SECONDS = 900
THIRTY = [f"{number:02}.py" for number in range(30)]


def files(*paths: str) -> dict[str, Entry]:
    return {path: Entry(path, f"etag of {path}", 1) for path in paths}


def many(count: int, start: int = 0) -> dict[str, Entry]:
    return files(*(f"{number:03}.py" for number in range(start, count)))


def brake(clock: Clock, **settings: str) -> DeletionBrake:
    given = {"AWS_BUCKET": "a-bucket", "DEST_PATH": "/nowhere", **settings}
    return DeletionBrake(load_settings(given)[0], clock)


def is_held(
    one: DeletionBrake, wanted: dict[str, Entry], managed: dict[str, Entry], asked: bool = False
) -> bool:
    return one.judge(wanted, managed, is_asked_for=asked) is not None


@pytest.mark.parametrize(
    ("managed", "left", "held"),
    [(100, 20, False), (100, 19, True), (25, 5, False), (25, 4, True), (21, 1, False)],
)
def test_holds_over_20_deletions_above_the_share(managed: int, left: int, held: bool) -> None:
    assert held == is_held(brake(Clock()), many(left), many(managed))


def test_applies_the_deletion_after_the_hold_time(log: Log) -> None:
    clock = Clock()
    one = brake(clock)
    for _ in range(3):
        assert is_held(one, many(1), many(100))
        clock.seconds += HOLD_SECONDS / 3

    assert not is_held(one, many(1), many(100))
    assert [(99, 20)] == [
        (event["files_to_delete"], len(event["paths"])) for event in log.events("deletion_held")
    ]


def test_a_complete_listing_restarts_the_hold_time() -> None:
    clock = Clock()
    one = brake(clock)
    assert is_held(one, many(1), many(100))
    clock.seconds += HOLD_SECONDS - 1
    assert not is_held(one, many(100), many(100))
    clock.seconds += 1

    assert is_held(one, many(1), many(100))


def test_sighup_ends_an_existing_hold() -> None:
    one = brake(Clock())

    assert is_held(one, many(1), many(100), asked=True)  # SIGHUP came before the hold
    assert not is_held(one, many(1), many(100), asked=True)


@pytest.mark.parametrize("asked", [False, True])
def test_an_approved_deletion_does_not_cover_the_next_one(asked: bool) -> None:
    clock = Clock()
    one = brake(clock)
    assert is_held(one, many(100), many(1000))
    clock.seconds += 0 if asked else HOLD_SECONDS
    assert not is_held(one, many(100), many(1000), asked=asked)

    assert not is_held(one, many(99), many(600))  # some of the files were deleted, then S3 failed
    assert is_held(one, many(5), many(99))
    clock.seconds += HOLD_SECONDS - 1
    assert is_held(one, many(5), many(99))


@pytest.mark.parametrize("settings", [{"S3_SYNC_MAX_DELETE": "100%"}, {"S3_SYNC_DELETE": "none"}])
def test_the_brake_can_be_switched_off(settings: dict[str, str]) -> None:
    assert not is_held(brake(Clock(), **settings), {}, many(100))


def test_moved_files_have_not_vanished() -> None:
    managed = files("team/a.py", "team/b.py", "team/c.py")
    moved = {path.replace("team", "teams"): entry for path, entry in managed.items()}
    del moved["teams/c.py"]

    assert ["team/c.py"] == vanished(moved, managed)


def test_an_existing_copy_is_not_a_move() -> None:
    same = Entry("x", "one etag", 0)

    assert ["a.py"] == vanished({"b.py": same}, {"a.py": same, "b.py": same})


def test_same_name_and_size_with_another_etag_is_a_move() -> None:
    """A copy of an encrypted object has another ETag."""
    managed = {f"team/{name}.py": Entry("x", f"etag of {name}", len(name)) for name in ("a", "bb")}
    moved = {
        "teams/a.py": Entry("x", "one more", 1),
        "teams/bb.py": Entry("x", "and another", 3),
    }

    assert ["team/bb.py"] == vanished(moved, managed)


@pytest.mark.parametrize("size", [lambda _: 7, lambda number: number], ids=["one size", "sizes"])
def test_another_project_with_the_same_names_is_not_a_move(
    size: Callable[[int], int],
) -> None:
    managed = {f"team{n}/dag.py": Entry("x", f"ours {n}", size(n)) for n in range(100)}
    others = {f"prj{n}/dag.py": Entry("x", f"theirs {n}", size(n)) for n in range(100)}

    assert 99 <= len(vanished(others, managed))


def test_a_renamed_folder_of_encrypted_objects_is_a_move() -> None:
    managed = {f"a/{n % 3}/{n}.py": Entry("x", f"ours {n}", 7) for n in range(30)}
    managed["a/__init__.py"] = managed["a/1/__init__.py"] = Entry("x", "empty", 0)
    moved = {
        path.replace("a/", "b/c/", 1): Entry("x", f"copy of {path}", entry.size_bytes)
        for path, entry in managed.items()
    }

    assert [] == vanished(moved, managed)


def test_one_new_file_accounts_for_only_one_vanished_file() -> None:
    """Many files have the same content, such as empty ones."""
    managed = {f"{number}/__init__.py": Entry("x", "one etag", 0) for number in range(3)}

    assert 2 == len(vanished({"new/__init__.py": Entry("x", "one etag", 0)}, managed))


# --- whole cycles


@pytest.mark.parametrize("layout", [{}, {"S3_SYNC_LAYOUT": "snapshot"}, {"S3_SYNC_GATE": "syntax"}])
def test_repairs_damage_after_a_restart_while_a_deletion_is_held(
    process: Process, layout: dict[str, str]
) -> None:
    process.s3.put_each(THIRTY, b"v = 1\n")
    process.run(layout)
    process.s3.delete(*THIRTY[1:])
    process.stop()
    for place in process.folder.rglob("00.py"):
        place.unlink()
    before = process.shown
    process.start(layout)

    assert "held" == process.cycle().result
    assert before | {"00.py": b"v = 1\n"} == process.shown
    assert process.is_ready, process.problem


@pytest.mark.parametrize("layout", ["in-place", "snapshot"])
def test_keeps_files_of_a_wiped_prefix_until_sighup(process: Process, layout: str) -> None:
    process.s3.put_each(THIRTY, b"v = 1\n")
    process.run({"S3_SYNC_LAYOUT": layout})
    before = process.shown
    process.s3.delete(*THIRTY)
    process.s3.put("README.md", b"gone\n")

    outcome = process.cycle()

    assert "held" == outcome.result
    assert outcome.problem and "deletion_held" == outcome.problem.reason
    assert before == process.shown and process.is_ready
    (process.folder / "00.py").unlink(missing_ok=True)  # damage is still repaired
    assert "held" == process.cycle().result
    assert "changed" == process.cycle(is_asked_for=True).result
    assert {"README.md": b"gone\n"} == process.shown


@pytest.mark.parametrize("layout", [{}, {"S3_SYNC_LAYOUT": "snapshot"}, {"S3_SYNC_GATE": "syntax"}])
def test_changing_the_prefix_is_not_a_mass_deletion(
    process: Process, layout: dict[str, str]
) -> None:
    """A hold would fail the startup probe, whose restart would begin the hold time again."""
    for number in range(30):
        process.s3.put(f"old/{number:02}.py", b"v = 1\n")
        process.s3.put(f"new/{number:02}.sql", b"select 2;\n")
    process.run({**layout, "KEY_PATH": "old"})
    process.restart({**layout, "KEY_PATH": "new"})

    assert "changed" == process.cycle().result
    assert {f"{number:02}.sql" for number in range(30)} == process.shown.keys()
    assert process.is_ready, process.problem


@pytest.mark.parametrize("layout", [{}, {"S3_SYNC_LAYOUT": "snapshot"}, {"S3_SYNC_GATE": "syntax"}])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"S3_SYNC_INCLUDE": "old/*"}, {"S3_SYNC_INCLUDE": "new/*"}),
        ({}, {"S3_SYNC_EXCLUDE": "old/*"}),
    ],
)
def test_changing_the_filters_is_not_a_mass_deletion(
    process: Process, layout: dict[str, str], before: dict[str, str], after: dict[str, str]
) -> None:
    for number in range(30):
        process.s3.put(f"old/{number:02}.py", b"v = 1\n")
        process.s3.put(f"new/{number:02}.sql", b"select 2;\n")
    process.run(layout | before)
    process.restart(layout | after)

    assert "changed" == process.cycle().result
    assert {f"new/{number:02}.sql" for number in range(30)} == process.shown.keys()
    assert process.is_ready and process.revision
    process.s3.delete(*(f"new/{number:02}.sql" for number in range(29)))
    assert "held" == process.cycle().result


@pytest.mark.parametrize("layout", [{}, {"S3_SYNC_LAYOUT": "snapshot"}, {"S3_SYNC_GATE": "syntax"}])
@pytest.mark.parametrize("is_restarted", [True, False])
def test_files_that_are_lost_on_disk_as_well_are_not_held(
    process: Process, layout: dict[str, str], is_restarted: bool
) -> None:
    """Nothing can restore them, so a hold would only keep the folder from being ready."""
    process.s3.put_each(THIRTY, b"v = 1\n")
    process.run(layout)
    process.s3.delete(*THIRTY[4:])
    for path in THIRTY[5:25]:
        for place in process.folder.rglob(path):
            place.unlink()
    if is_restarted:
        process.restart(layout)

    process.cycle()

    assert process.is_ready, process.problem
    assert set(THIRTY[:4]) == process.shown.keys()


def test_a_hold_ends_when_the_state_folder_is_removed(process: Process) -> None:
    process.s3.put_each(THIRTY, b"v = 1\n")
    process.run({})
    process.s3.delete(*THIRTY[1:])
    assert "held" == process.cycle().result
    shutil.rmtree(process.folder / ".s3-sync")

    assert process.cycle().is_success and process.cycle().is_success

    assert {"00.py"} & process.shown.keys() and process.is_ready
    assert 0 == process.metric("s3_sync_held_deletions")


def test_sighup_in_a_failed_cycle_does_not_approve_a_deletion(process: Process) -> None:
    """SIGHUP during the failure cannot approve a listing that was not yet read."""
    process.s3.put_each(THIRTY, b"v = 1\n")
    process.run({"S3_SYNC_GATE": "syntax"})
    before = process.shown
    process.s3.delete(*THIRTY[:29])
    assert "held" == process.cycle().result
    process.s3.inject(error(403, "AccessDenied"), is_list)
    assert "access_denied_list" == failure(process.cycle, is_asked_for=True).reason
    process.s3.heal()

    assert "held" == process.cycle().result
    assert before == process.shown


@pytest.mark.parametrize("layout", ["in-place", "snapshot"])
def test_keeps_files_of_a_folder_moved_to_an_unreadable_prefix(
    process: Process, layout: str
) -> None:
    """The role can list the new prefix but not read it: all files would be deleted."""

    def is_new(request: Request) -> bool:
        return is_get()(request) and "/new/" in request.path

    for number in range(30):
        process.s3.put(f"old/{number:02}.py", b"v = %d\n" % number)
    process.run({"S3_SYNC_LAYOUT": layout})
    before = process.shown
    for number in range(30):
        process.s3.delete(f"old/{number:02}.py")
        process.s3.put(f"new/{number:02}.py", b"v = %d\n" % number)
    process.s3.inject(error(403, "AccessDenied"), is_new)

    process.cycle()
    for _ in range(5):  # failed objects are not retried in each cycle
        assert "partial" == process.cycle().result
        assert before == process.shown
    process.s3.heal()
    for number in range(10):
        process.s3.inject(error(403, "AccessDenied"), is_get(f"new/{number:02}.py"))
    for _ in range(3):
        assert "partial" == process.cycle(is_asked_for=True).result
        assert set(THIRTY) == {path.rpartition("/")[2] for path in process.shown}
        assert 30 == len(process.shown)
    process.s3.heal()
    assert "changed" == process.cycle(is_asked_for=True).result
    assert {f"new/{number:02}.py" for number in range(30)} == process.shown.keys()


@pytest.mark.parametrize("layout", [{}, {"S3_SYNC_LAYOUT": "snapshot"}, {"S3_SYNC_GATE": "syntax"}])
@pytest.mark.parametrize("lifetimes", [(1, 2), (2, 3), (3, 1, 2)])
@pytest.mark.parametrize("unreadable", [10, 20])
def test_restarts_lose_no_file_that_moved_to_a_partly_unreadable_prefix(
    process: Process, layout: dict[str, str], lifetimes: tuple[int, ...], unreadable: int
) -> None:
    """Fewer than most files are left at their old paths when the new process first looks."""
    old, new = ([f"{folder}/{path}" for path in THIRTY] for folder in ("old", "new"))
    for number, path in enumerate(old):
        process.s3.put(path, b"v = %d\n" % number)
    process.run(layout)
    process.s3.delete(*old)
    for number, path in enumerate(new):
        process.s3.put(path, b"v = %d\n" % number)
    for path in new[:unreadable]:
        process.s3.inject(error(403, "AccessDenied"), is_get(path))

    for cycles in lifetimes:
        for _ in range(cycles):
            process.cycle()
            contents = sorted(process.shown.values())
            assert sorted(b"v = %d\n" % number for number in range(30)) == contents
        process.restart(layout)
    process.s3.heal()
    process.cycle()
    assert set(new) == process.shown.keys() and process.revision
