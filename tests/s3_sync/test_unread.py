"""What could not be read: when it is tried again, and for how long a state lacks it."""

from s3_sync.listing import Entry
from s3_sync.metrics import SyncMetrics
from s3_sync.readiness import Status
from s3_sync.reasons import ObjectError
from s3_sync.unread import EAGER_TRIES, LASTING_CYCLES, Shortage, UnreadFiles

FILES = {path: Entry(path, "etag", 1) for path in "abc"}
CHANGING = ObjectError("object_changing", "a")


def some(*paths: str, why: str = "access_denied_get") -> dict[str, ObjectError]:
    return {path: ObjectError(why, path) for path in paths}


def unread() -> UnreadFiles:
    return UnreadFiles(Status(SyncMetrics()), 10.0)


def test_a_file_that_keeps_failing_rests_until_it_changes_or_another_is_read() -> None:
    one = unread()
    for _ in range(3):  # it is tried in each of four cycles
        one.note(FILES, {}, some("a", "b"))
        assert set() == one.resting
    one.note(FILES, {}, some("a", "b"))
    assert {"a", "b"} == one.resting

    one.note(FILES | {"a": Entry("a", "new", 1)}, {}, {})
    assert {"b"} == one.resting
    one.note(FILES, {"a": FILES["a"]}, {})
    assert ({"b"}, set()) == (set(one.errors), one.resting)


def test_an_object_rests_for_an_hour_once_it_was_slow_twice() -> None:
    one = unread()
    for resting in (set(), {"a"}):
        one.note(FILES, {}, some("a", why="object_slow"))
        assert resting == one.resting


def test_a_fetch_that_ended_early_forgets_no_file_that_it_did_not_try() -> None:
    one = unread()
    for _ in range(EAGER_TRIES + 1):
        one.note(FILES, {}, some("a", "b"))

    one.note(FILES, {}, some("c"))
    one.note(FILES, {}, {"a": one.errors["a"]})  # repeated, because the time was up

    assert {"a", "b"} == one.resting
    assert {"a", "b", "c"} == set(one.errors)


def test_a_shortage_is_new_once_and_lasting_after_some_cycles() -> None:
    shortage = Shortage()
    shortage.meet(some("a"))
    assert shortage.is_new
    shortage.meet(some("b"))
    assert not shortage.is_new, "another lack in each cycle would wait forever"
    for number in range(1, LASTING_CYCLES):
        assert not shortage.cycles >= LASTING_CYCLES
        shortage.meet({**some("b"), "ac"[number % 2]: CHANGING})
    assert shortage.cycles >= LASTING_CYCLES
    shortage.meet({})
    assert not shortage.cycles


def test_of_files_that_change_all_the_time_only_those_that_are_not_held_are_told() -> (
    None
):
    one = unread()

    one.hold_back({"a", "b", "gone"}, FILES, {"a": FILES["a"]}, rest_seconds=60.0)

    assert {"b"} == set(one.errors)
