"""Unreadable files: each is logged once and retried with backoff, without a limit."""

import itertools
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest

from s3_sync.listing import FAILURE_STREAK
from s3_sync.metrics import Status, SyncMetrics
from s3_sync.pages import Entry
from s3_sync.problems import EAGER_TRIES, LONGEST_REST_SECONDS, NAMED, Problems, explain
from s3_sync.s3.refusals import ObjectError
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.http.endpoint import registry_of
from tests.runtime.recording import Log
from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import error, is_get, is_list, redirect
from tests.support.http.faults import first
from tests.support.machine.clocks import Clock

DENIED = ObjectError("denied", "may not", "allow it")


class Cycles:
    """Cycles in which some files cannot be read."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.metrics = SyncMetrics("0", "r")
        self.problems = Problems(Status(self.metrics), 10.0, self.clock)

    def run(
        self, wanted: Iterable[str], failing: Iterable[str], *, etag: str = "e", asked: bool = False
    ) -> set[str]:
        """Run one cycle; return the files that were tried."""
        entries = {path: Entry(path, etag, 1) for path in wanted}
        self.problems.meet(entries, is_asked_for=asked)
        resting = self.problems.resting
        tried = {path: entry for path, entry in entries.items() if path not in resting}
        self.problems.note(tried, {path: DENIED for path in failing if path in tried})
        self.clock.seconds += 10
        return set(tried)


@pytest.fixture
def cycles() -> Cycles:
    return Cycles()


def test_failures_are_retried_each_cycle_at_first_then_with_backoff(cycles: Cycles) -> None:
    tries = [bool(cycles.run("a", "a")) for _ in range(200)]

    assert all(tries[: EAGER_TRIES + 1])
    seldom = tries[EAGER_TRIES:]
    assert 200 * 10 / LONGEST_REST_SECONDS <= sum(seldom) <= 4 * 200 * 10 / LONGEST_REST_SECONDS
    assert {"a"} == cycles.problems.errors.keys()


def test_a_slow_file_rests_for_an_hour(cycles: Cycles) -> None:
    """Each try takes most of a cycle."""
    slow = ObjectError("object_slow", "slow", "wait")
    entry = Entry("a", "e", 1)
    cycles.problems.note({"a": entry}, {"a": slow})

    cycles.clock.seconds += 3599
    assert {"a"} == cycles.problems.resting
    cycles.clock.seconds += 2
    assert set() == cycles.problems.resting


def test_backoff_does_not_overflow_after_many_failures(cycles: Cycles) -> None:
    for _ in range(3_000):
        cycles.run("a", "a")
        cycles.clock.seconds += LONGEST_REST_SECONDS

    assert {"a"} == cycles.problems.errors.keys()


def test_retries_all_files_on_a_new_volume(cycles: Cycles) -> None:
    """A failure may be due to the old volume, such as a folder that was moved away."""
    assert any(not cycles.run("ab", "ab") for _ in range(1_000)), "both rest, some time"
    cycles.problems.retry_all()

    assert {"a", "b"} == cycles.run("ab", "ab")


@pytest.mark.parametrize("what", ["changed", "asked for", "another can be read", "gone"])
def test_a_change_makes_failed_files_due(cycles: Cycles, what: str) -> None:
    for _ in range(8):
        cycles.run("ab", "ab")
    cycles.clock.seconds -= 10
    assert set() == cycles.run("ab", "ab")
    match what:
        case "changed":
            assert {"a", "b"} == cycles.run("ab", "", etag="f")
        case "asked for":
            assert {"a", "b"} == cycles.run("ab", "", asked=True)
        case "another can be read":
            cycles.clock.seconds += 2 * LONGEST_REST_SECONDS
            cycles.run("ab", "b")
            assert {"b"} & cycles.run("ab", "b")
            return
        case "gone":
            cycles.run("b", "b")
            assert "a" not in cycles.problems.errors
            assert "a" in cycles.run("ab", "b")  # b may be due as well
            return
    assert {} == cycles.problems.errors


def test_logs_each_file_once_until_it_recovers(cycles: Cycles, log: Log) -> None:
    for failing in ("ab", "ab", "b", "ab"):
        cycles.run("ab", failing, asked=True)

    assert ["a", "b", "a"] == [event["path"] for event in log.events("object_unread")]


def test_logs_only_the_first_of_many_files(cycles: Cycles, log: Log) -> None:
    paths = [f"{number:04}" for number in range(3 * NAMED)]
    for _ in range(5):
        cycles.run(paths, paths, asked=True)

    assert NAMED == len(log.events("object_unread"))


def test_the_metric_returns_to_zero_after_recovery(cycles: Cycles) -> None:
    def shown() -> float | None:
        cycles.problems.show({}, ())
        return registry_of(cycles.metrics.families).get_sample_value(
            "s3_sync_unread_objects", {"sidecar": "s3-sync", "reason": "denied"}
        )

    cycles.run("ab", "ab")
    assert 2 == shown()
    cycles.run("ab", "")
    assert 0 == shown()


def test_explains_many_failures_by_the_most_frequent_reason() -> None:
    rare = ObjectError("rare", "just this one")

    found = explain({"a": rare, "b": DENIED, "c": DENIED}, "abcd")

    assert "denied" == found.reason
    assert "3 of 4 files cannot be read: may not" == found.message


@pytest.mark.parametrize("order", list(itertools.permutations("abc")), ids="".join)
def test_messages_do_not_depend_on_the_order_of_failures(
    cycles: Cycles, order: tuple[str, ...], log: Log
) -> None:
    errors = {path: ObjectError(f"reason-{path}", f"no {path}") for path in order}

    found = explain(errors, "abcd")
    cycles.problems.note({path: Entry(path, "e", 1) for path in order}, errors)

    assert ("reason-a", "3 of 4 files cannot be read: no a") == (found.reason, found.message)
    assert ["a", "b", "c"] == [event["path"] for event in log.events("object_unread")]


# --- whole cycles


# With snapshots and gates, a new failure holds back the other files for one cycle.
CYCLES = 2
LAYOUTS = [{}, {"S3_SYNC_LAYOUT": "snapshot"}]
ALL_LAYOUTS = [*LAYOUTS, {"S3_SYNC_LAYOUT": "snapshot", "S3_SYNC_GATE": "syntax"}]
# Permanent answers of a store or proxy about one object: unreadable, taken for a virus, renamed.
OF_ONE_OBJECT = {
    "access_denied_get": error(403, "AccessDenied"),
    "throttled": error(503, "SlowDown"),
    "redirect_refused": redirect("http://scanner.example/"),
    "credentials_invalid": error(403, "SignatureDoesNotMatch"),
    "server_error": error(500, "InternalError"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("reason", OF_ONE_OBJECT)
def test_an_unreadable_object_holds_back_no_others(
    process: Process, reason: str, layout: dict[str, str]
) -> None:
    process.s3.put_each(("a.py", "b.py", "c.py"), b"v = 1\n")
    process.s3.inject(OF_ONE_OBJECT[reason], is_get("b.py"))
    process.run(layout)
    process.s3.delete("a.py")
    process.s3.put("d.py", b"d = 1\n")

    for _ in range(CYCLES):
        process.cycle()

    assert {"c.py", "d.py"} == process.shown.keys()
    assert {"b.py": reason} == process.details["unread"]
    assert process.is_ready and process.revision == ""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_object_without_an_etag_holds_back_no_others(
    process: Process, layout: dict[str, str]
) -> None:
    """Some stores list files without ETag that were put into their folder directly."""
    process.s3.put_each(("a.py", "b.py", "c.py"), b"v = 1\n")
    process.run(layout)
    process.s3.put("b.py", b"v = 2\n", etag="")
    process.s3.delete("a.py")
    process.s3.put("d.py", b"d = 1\n", etag="")

    for _ in range(CYCLES):
        process.cycle()

    assert {"b.py": b"v = 1\n", "c.py": b"v = 1\n"} == process.shown
    assert dict.fromkeys(("b.py", "d.py"), "etag_missing") == process.details["unread"]


def test_a_key_that_xml_cannot_represent_holds_back_no_others(process: Process) -> None:
    process.s3.url_encoded = False
    process.s3.put_each(("a\x01.py", "b.py"), b"v = 1\n")

    assert "partial" == process.run({}).result
    assert {"b.py"} == process.shown.keys()
    assert {"a\ufffd.py": "object_changing"} == process.details["unread"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_many_unreadable_objects_hold_back_no_others(
    process: Process, layout: dict[str, str]
) -> None:
    """Together they look like a failing endpoint, but only once."""
    bad = [f"bad{number}.py" for number in range(2 * FAILURE_STREAK - 2)]
    process.s3.put_each(["a.py", "b.py", *bad], b"v = 1\n")
    process.run(layout)
    process.s3.inject(
        error(500, "InternalError"), lambda request: is_get()(request) and "bad" in request.path
    )
    process.s3.put_each(bad, b"v = 2\n")
    process.s3.delete("a.py")
    process.s3.put("c.py", b"v = 1\n")

    with suppress(SidecarError):
        process.cycle()
    for _ in range(3):
        assert "partial" == process.cycle().result
        assert {"b.py", "c.py", *bad} == process.shown.keys()
    process.s3.heal()
    assert process.cycle(is_asked_for=True).is_success


def test_keeps_the_old_version_while_the_new_one_is_unreadable(process: Process) -> None:
    process.s3.put_each(("a.py", "b.py"), b"v = 1\n")
    process.run({"S3_SYNC_LAYOUT": "snapshot"})
    process.s3.put_each(("a.py", "b.py"), b"v = 2\n")
    process.s3.inject(error(403, "AccessDenied"), is_get("b.py"), times=2)

    assert "settling" == process.cycle().result
    assert {"a.py": b"v = 1\n", "b.py": b"v = 1\n"} == process.shown
    assert "partial" == process.cycle().result
    assert {"a.py": b"v = 2\n", "b.py": b"v = 1\n"} == process.shown
    assert "changed" == process.cycle().result
    assert {"a.py": b"v = 2\n", "b.py": b"v = 2\n"} == process.shown
    assert "" == process.readiness.shortfall != process.revision


def test_reverting_an_unreadable_object_ends_the_partial_state(process: Process) -> None:
    process.s3.put_each(("a.py", "b.py"), b"v = 1\n")
    process.run({})
    process.s3.put("a.py", b"v = 2\n")
    process.s3.inject(error(403, "AccessDenied"), is_get("a.py"))
    assert "partial" == process.cycle().result
    process.s3.put("a.py", b"v = 1\n")

    assert process.cycle().is_success
    assert "" == process.readiness.shortfall != process.revision


def change_both_during_a_cycle(process: Process) -> None:
    """Publish two files; then the second cycle meets an upload that is still in progress."""
    process.s3.put_each(("a.py", "b.py"), b"v = 1\n")
    process.run({"S3_SYNC_LAYOUT": "snapshot"})
    process.s3.put_each(("a.py", "b.py"), b"v = 2\n")
    process.s3.inject(first(lambda: process.s3.put("b.py", b"v = 3\n")), is_get("b.py"), times=1)
    assert "settling" == process.cycle().result


def test_publishes_nothing_while_an_upload_is_in_progress(process: Process) -> None:
    change_both_during_a_cycle(process)

    assert {"a.py": b"v = 1\n", "b.py": b"v = 1\n"} == process.shown


@pytest.mark.parametrize("layout", LAYOUTS[1:])
@pytest.mark.parametrize("denied", ["[a-c]", "[bc]"])
def test_permissions_revoked_during_a_cycle_delete_and_mix_nothing(
    process: Process, layout: dict[str, str], denied: str
) -> None:
    process.s3.put_each(("a.py", "b.py", "o.py"), b"v = 1\n")
    process.run(layout)
    before = process.shown
    process.s3.delete("o.py")
    process.s3.put_each(("a.py", "b.py", "c.py"), b"v = 2\n")
    refusal = error(403, "AccessDenied")
    process.s3.inject(refusal, lambda request: bool(re.search(rf"/{denied}\.py$", request.path)))
    assert "settling" == process.cycle().result
    process.s3.inject(refusal, is_list)
    for _ in range(3):
        assert "access_denied_list" == process.fail().reason

    assert before == process.shown
    process.s3.heal()
    assert process.cycle(is_asked_for=True).is_success
    assert dict.fromkeys(("a.py", "b.py", "c.py"), b"v = 2\n") == process.shown


@pytest.mark.parametrize("layout", LAYOUTS)
def test_does_not_wait_for_files_missing_since_the_first_publish(
    process: Process, layout: dict[str, str]
) -> None:
    process.s3.put_each(("a.py", "b.py", "c.py"), b"v = 1\n")
    process.s3.inject(error(403, "AccessDenied"), is_get("c.py"))
    process.start(layout)

    assert ["partial"] * 3 == [process.cycle().result for _ in range(3)]
    assert {"a.py", "b.py"} == process.shown.keys()


@pytest.mark.parametrize("layout", ALL_LAYOUTS[1:])
def test_objects_that_change_in_turn_hold_back_no_others(
    process: Process, layout: dict[str, str]
) -> None:
    process.s3.put_each(("a.py", "busy0.py", "busy1.py"), b"v = 1\n")
    process.run(layout)
    process.s3.put("a.py", b"v = 2\n")
    for turn in range(4):
        process.s3.put(f"busy{turn % 2}.py", b"w = %d\n" % turn)
        process.s3.heal()
        process.s3.inject(error(412, "PreconditionFailed"), is_get(f"busy{turn % 2}.py"))
        process.cycle()

    assert b"v = 2\n" == process.shown["a.py"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_one_shot_does_not_wait_for_objects_that_change_in_turn(
    process: Process, layout: dict[str, str]
) -> None:
    process.s3.put_each(("a.py", "b.py", "c.py", "busy0.py"), b"v = 1\n")
    process.start(layout)
    ends = []
    for turn in range(4):
        process.s3.put(f"busy{turn % 2}.py", b"w = %d\n" % turn)
        process.s3.heal()
        process.s3.inject(error(403, "AccessDenied"), is_get("b.py"))
        process.s3.inject(error(412, "PreconditionFailed"), is_get(f"busy{turn % 2}.py"))
        ends.append(process.cycle().is_enough)

    # With snapshots and gates, every other cycle waits for the end of an upload.
    assert [False, False, not layout, True] == ends
    assert {"a.py", "c.py"} <= process.shown.keys()


def test_an_unreadable_file_reverts_to_its_published_version(process: Process) -> None:
    """The version that an earlier cycle downloaded was never published."""
    change_both_during_a_cycle(process)
    process.s3.put_each(("a.py", "b.py"), b"v = 4\n")
    process.s3.inject(error(403, "AccessDenied"), is_get("a.py"))

    assert "partial" == process.cycle().result
    assert {"a.py": b"v = 1\n", "b.py": b"v = 4\n"} == process.shown


def test_a_partial_state_omits_a_new_file_that_became_unreadable(process: Process) -> None:
    process.s3.put("a.py", b"v = 1\n")
    process.run({"S3_SYNC_LAYOUT": "snapshot"})
    process.s3.put_each(("a.py", "c.py"), b"v = 2\n")
    process.s3.inject(first(lambda: process.s3.put("a.py", b"v = 3\n")), is_get("a.py"), times=1)
    assert "settling" == process.cycle().result
    process.s3.put_each(("a.py", "c.py"), b"v = 4\n")
    process.s3.inject(error(403, "AccessDenied"), is_get("c.py"))

    assert "partial" == process.cycle().result
    assert {"a.py": b"v = 4\n"} == process.shown


def test_a_key_missing_from_only_one_of_two_listings_is_not_deleted(process: Process) -> None:
    process.s3.put_each(("a.py", "b.py"), b"v = 1\n")
    process.run({})
    process.s3.delete("a.py")
    listings = itertools.count(1)

    def put_back() -> None:
        if next(listings) == 2:
            process.s3.put("a.py", b"v = 1\n")

    process.s3.inject(first(put_back), is_list)

    outcome = process.cycle()

    assert "partial" == outcome.result
    assert {"a.py", "b.py"} == process.shown.keys()
    assert process.cycle().is_success


@pytest.mark.parametrize("layout", LAYOUTS)
def test_publishes_changes_beside_an_object_that_keeps_changing(
    process: Process, layout: dict[str, str]
) -> None:
    contents = itertools.count(1)
    process.s3.put_each(("a.py", "busy.py"), b"v = 0\n")
    process.s3.inject(
        first(lambda: process.s3.put("busy.py", b"v = %d\n" % next(contents))), is_get("busy.py")
    )
    process.start(layout)
    assert ["settling" if layout else "partial", "partial"] == [
        process.cycle().result for _ in range(2)
    ]
    for number in range(1, 5):
        process.s3.put("a.py", b"w = %d\n" % number)
        assert "partial" == process.cycle().result
        assert {"a.py": b"w = %d\n" % number} == process.shown


# --- files on disk that do not count


@pytest.mark.parametrize("layout", ALL_LAYOUTS)
@pytest.mark.parametrize("delete", ["managed", "all"])
@pytest.mark.parametrize("lost", ["b", "bcd"])
@pytest.mark.parametrize("how", ["unreadable", "archived"])
def test_a_file_of_another_source_replaces_no_unreadable_object(
    process: Process, tmp_path: Path, layout: dict[str, str], delete: str, lost: str, how: str
) -> None:
    """Such as a volume that is kept after KEY_PATH has changed: it becomes like a new one."""
    settings = layout | {"S3_SYNC_DELETE": delete}
    process.s3.put_each([f"old/{name}.py" for name in "abcde"], b"old = 1\n")
    process.run(settings | {"KEY_PATH": "old"})
    for name in "abcd":
        is_lost = name in lost and how == "archived"
        storage_class = "GLACIER" if is_lost else "STANDARD"
        process.s3.put(f"new/{name}.py", b"new = 1\n", storage_class=storage_class)
    if how == "unreadable":
        for name in lost:
            process.s3.inject(error(403, "AccessDenied"), is_get(f"new/{name}.py"))
    process.restart(settings | {"KEY_PATH": "new"})
    new = Process(process.s3, tmp_path / "new")
    new.start(settings | {"KEY_PATH": "new"})

    for _ in range(CYCLES):
        for each in (process, new):
            with suppress(SidecarError):
                each.cycle()
    new.stop()

    assert (new.is_ready, new.revision) == (process.is_ready, process.revision), process.problem
    assert not new.is_ready or new.shown == process.shown


def edit(folder: Path, path: str) -> None:
    """Append to a published file and, through the hard link, to the working copy."""
    (folder / path).chmod(0o644)
    with (folder / path).open("a") as file:
        file.write("edited\n")


def lose(folder: Path, path: str) -> None:
    (folder / path).unlink()


def lose_all(folder: Path, path: str) -> None:
    """Remove a file and its hard links."""
    above = next((above for above in folder.parents if above.name == ".s3-sync"), folder)
    for place in above.rglob(path):
        place.unlink()


DAMAGE = {"an edit": edit, "a lost file": lose, "a lost file and its hard links": lose_all}


@pytest.mark.parametrize("layout", ALL_LAYOUTS)
@pytest.mark.parametrize("delete", ["managed", "none"])
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("is_news", [True, False], ids=["a new version", "the same version"])
@pytest.mark.parametrize("is_restarted", [True, False], ids=["restart", "same process"])
def test_damage_to_an_unreadable_object_holds_back_no_others(
    process: Process,
    layout: dict[str, str],
    delete: str,
    damage: str,
    is_news: bool,
    is_restarted: bool,
) -> None:
    settings = layout | {"S3_SYNC_DELETE": delete}
    process.s3.put_each([f"{name}.py" for name in "abcd"], b"v = 1\n")
    process.run(settings)
    is_snapshot = (process.folder / "current").is_symlink()
    shown = (process.folder / "current").resolve() if is_snapshot else process.folder
    DAMAGE[damage](shown, "b.py")
    process.s3.inject(error(403, "AccessDenied"), is_get("b.py"))
    process.s3.put("b.py", b"v = 1\n# 2\n" if is_news else b"v = 1\n")
    if is_restarted:
        process.restart(settings)

    for version in (2, 3):
        process.s3.put_each(("a.py", f"e{version}.py"), b"v = %d\n" % version)
        for _ in range(CYCLES):
            process.cycle()
        assert process.is_ready, process.problem
        assert b"v = %d\n" % version == process.shown["a.py"] == process.shown[f"e{version}.py"]
        if delete != "none":
            assert process.shown.get("b.py") in (None, b"v = 1\n")
        assert ("unread" in process.details) == (process.revision == "")
    process.s3.heal()
    process.cycle(is_asked_for=True)
    assert process.shown["b.py"] == process.s3.objects["b.py"].body
    assert process.is_ready and process.revision


@pytest.mark.parametrize("layout", ALL_LAYOUTS)
def test_damage_to_files_that_are_mostly_unreadable_deletes_none(
    process: Process, layout: dict[str, str]
) -> None:
    """A new volume would not be ready either."""
    process.s3.put_each([f"{name}.py" for name in "abcd"], b"v = 1\n")
    process.run(layout)
    is_snapshot = (process.folder / "current").is_symlink()
    shown = (process.folder / "current").resolve() if is_snapshot else process.folder
    for name in "abc":
        edit(shown, f"{name}.py")
    process.s3.inject(error(403, "AccessDenied"), is_get())
    # Equal bytes would be recognized by their MD5.
    for _ in range(3):
        assert "access_denied_get" == process.fail().reason
        assert set("abcd") == {path[0] for path in process.shown}
        assert not process.is_ready
