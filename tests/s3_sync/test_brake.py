"""The brake on mass deletion."""

import shutil

import pytest

from s3_sync.brake import HOLD_SECONDS, Brake
from tests.runtime.recording import Log
from tests.s3_sync.failing import failure
from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import error, is_list
from tests.support.machine.clocks import Clock

THIRTY = [f"{number:02}.py" for number in range(30)]


def many(count: int) -> set[str]:
    return {f"{number:03}.py" for number in range(count)}


def brake(clock: Clock, percent: int = 80) -> Brake:
    return Brake(percent, clock)


def is_held(one: Brake, wanted: set[str], managed: set[str], asked: bool = False) -> bool:
    return one.judge(managed - wanted, len(managed), is_asked_for=asked) is not None


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


def test_the_brake_can_be_switched_off() -> None:
    assert not is_held(brake(Clock(), 100), set(), many(100))


# --- whole cycles


@pytest.mark.parametrize("layout", [{}, {"S3_SYNC_LAYOUT": "snapshot"}])
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


@pytest.mark.parametrize("layout", [{}, {"S3_SYNC_LAYOUT": "snapshot"}])
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


@pytest.mark.parametrize("layout", [{}, {"S3_SYNC_LAYOUT": "snapshot"}])
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


@pytest.mark.parametrize("layout", [{}, {"S3_SYNC_LAYOUT": "snapshot"}])
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
    process.run({"S3_SYNC_LAYOUT": "snapshot", "S3_SYNC_GATE": "syntax"})
    before = process.shown
    process.s3.delete(*THIRTY[:29])
    assert "held" == process.cycle().result
    process.s3.inject(error(403, "AccessDenied"), is_list)
    assert "access_denied_list" == failure(process.cycle, is_asked_for=True).reason
    process.s3.heal()

    assert "held" == process.cycle().result
    assert before == process.shown
