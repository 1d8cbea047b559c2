"""Whole cycles of the source `release` against a scripted S3."""

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import replace

import pytest

from s3_sync.release.facts import Checked
from s3_sync.release.names import POINTER_KEY, bundle_key, manifest_key
from s3_sync.release.rows import File
from s3_sync.release.source import Release as InForce
from s3_sync.tree.staging import Staged
from s3_sync.tree.target import Target
from tests.runtime.recording import Log
from tests.s3_sync.process import Process
from tests.support.fake_s3 import FakeS3, access_denied, error, is_list
from tests.support.faults import replace_body, reset
from tests.support.loopback import Exchange
from tests.support.releases import ABSENT, AT, Release, make_release, seal
from tests.support.shelf import RELEASE, Shelf, is_bundle, is_manifest, is_pointer

FILES = {f"pkg{n % 3}/m{n}.py": f"x = {n}\n".encode() * 30 for n in range(12)} | {"empty.py": b""}
MANY = {f"team{n % 9}/dag_{n:04}.py": b"x = %d\n" % n for n in range(1_500)}
PINNED = {"KEY_PATH": "dags", **RELEASE}
SNAPSHOT = {"S3_SYNC_LAYOUT": "snapshot"}
GATE = {"S3_SYNC_GATE": "syntax"}


layouts = pytest.mark.parametrize(
    "layout", [{}, GATE, SNAPSHOT], ids=["in-place", "gate", "snapshot"]
)


def staged(process: Process) -> list[str]:
    return os.listdir(process.folder / ".s3-sync/staging")


def times(process: Process) -> dict[str, int]:
    return {path: (process.folder / path).stat().st_mtime_ns for path in process.shown}


def test_the_status_says_which_airflow_has_loaded_the_release() -> None:
    checked = Checked("3.3.2", AT, 2, ("orders", "sales"), files_lacking=1)
    releases = [make_release(FILES), make_release(FILES, checked=checked)]

    unchecked, shown = (InForce(one.manifest).facts["release"] for one in releases)

    said = "Airflow 3.3.2 at 2026-11-20T15:00:00Z: 2 DAGs, 1 files not loaded"
    assert isinstance(unchecked, dict) and isinstance(shown, dict)
    assert unchecked | {"checked_by": said} == shown


# --- what comes, and how


@layouts
def test_a_release_appears_and_then_what_the_next_one_changes(
    s3: FakeS3, shelf: Shelf, process: Process, layout: dict[str, str]
) -> None:
    first = shelf.publish(FILES)
    outcome = process.run(PINNED | layout)

    assert ("changed", first.revision) == (outcome.result, outcome.revision)
    assert FILES == process.shown
    assert [] == s3.seen(is_list)
    changed = {**FILES, "pkg1/m1.py": b"y = 1\n"}
    del changed["pkg2/m2.py"]
    second = shelf.publish(changed)
    s3.forget()
    outcome = process.cycle()
    assert ("changed", second.revision) == (outcome.result, outcome.revision)
    assert (1, 1) == (outcome.counts["files_published"], outcome.counts["files_deleted"])
    assert outcome.counts["downloaded_bytes"] == 6
    assert changed == process.shown
    assert 3 == len(s3.seen())
    assert [] == staged(process)


@layouts
def test_the_executable_bit_is_content_too(
    shelf: Shelf, process: Process, layout: dict[str, str]
) -> None:
    root = process.folder / "current" if layout == SNAPSHOT else process.folder

    def mode() -> int:
        return stat.S_IMODE((root / "run.sh").stat().st_mode)

    shelf.publish({"run.sh": b"#!/bin/sh\n"})
    process.run(PINNED | layout | {"S3_SYNC_FILE_MODE": "0640"})
    plain = mode()
    shelf.publish({"run.sh": b"#!/bin/sh\n"}, executable={"run.sh"})
    process.cycle()

    expected = (0o440, 0o550) if layout == SNAPSHOT else (0o640, 0o750)
    assert expected == (plain, mode())
    assert "unchanged" == process.cycle().result


def test_a_lost_connection_is_gone_on_with_at_the_first_file_that_is_missing(
    s3: FakeS3, shelf: Shelf, process: Process
) -> None:
    files = {name: os.urandom(400) for name in ("a", "b", "c")}
    shelf.publish(files)
    s3.inject(reset(after=700), is_bundle, times=1)
    process.run(PINNED)

    first, second = (request.headers["range"] for request in s3.seen(is_bundle))
    starts = [int(text.removeprefix("bytes=").split("-")[0]) for text in (first, second)]
    assert starts[0] < starts[1]
    assert files == process.shown


@pytest.mark.parametrize("files", [FILES, MANY], ids=["read whole", "read by ranges"])
def test_the_page_follows_another_manifest_of_the_same_content(
    s3: FakeS3, shelf: Shelf, process: Process, files: dict[str, bytes]
) -> None:
    first = shelf.publish(files)
    process.run(PINNED)
    times_before = times(process)
    checked = Checked("3.3.2", AT, 2, ("orders", "sales"))
    assert first.revision == shelf.publish(files, checked=checked).revision
    s3.forget()

    assert "unchanged" == process.cycle().result

    release = process.details["release"]
    assert isinstance(release, dict)
    assert "Airflow 3.3.2 at 2026-11-20T15:00:00Z: 2 DAGs" == release["checked_by"]
    assert times_before == times(process)
    assert [] == s3.seen(is_bundle)
    assert 2 == len(s3.seen()), "the pointer, and the manifest or its head"


def test_the_page_tells_where_a_release_comes_from(shelf: Shelf, process: Process) -> None:
    shelf.publish(FILES)
    process.run(PINNED)

    release = process.details["release"]
    assert isinstance(release, dict)
    assert ("tests", "0" * 40) == (release["by"], release["commit"])


MANY = {f"team{n % 9}/dag_{n:04}.py": b"x = %d\n" % n for n in range(1_500)}


@layouts
def test_of_a_long_manifest_only_what_is_new_is_read(
    s3: FakeS3, shelf: Shelf, process: Process, layout: dict[str, str]
) -> None:
    shelf.publish(MANY)
    process.run(PINNED | layout)
    files = {**MANY, "team3/dag_0003.py": b"other\n", "team3/new.py": b"new\n"}
    release = shelf.publish(files)
    s3.forget()

    assert ("changed", release.revision) == (process.cycle().result, process.revision)

    assert files == process.shown
    head, chunks = s3.seen(is_manifest)
    assert f"bytes=0-{release.pointer.head_bytes - 1}" == head.headers["range"]
    assert "if-match" in chunks.headers
    start, end = map(int, chunks.headers["range"].removeprefix("bytes=").split("-"))
    assert end - start < len(release.manifest_bytes) / 2
    assert 4 == len(s3.seen())
    _damage(process, layout, "team0/dag_0000.py")
    process.restart(PINNED | layout)
    process.cycle()
    assert files == process.shown


def _damage(process: Process, layout: dict[str, str], path: str) -> None:
    """Empty a file of a chunk that no longer came."""
    if layout != SNAPSHOT:
        (process.folder / path).write_bytes(b"")


@pytest.mark.parametrize("wrong", ["head_bytes", "manifest_bytes", "ranges", "replaced"])
def test_where_the_parts_of_a_manifest_do_not_fit_all_of_it_is_read(
    s3: FakeS3, shelf: Shelf, process: Process, wrong: str
) -> None:
    shelf.publish(MANY)
    process.run(PINNED)
    files = {**MANY, "team3/dag_0003.py": b"other\n"}
    release = make_release(files)
    shelf.store(release)
    if wrong.endswith("_bytes"):
        pointer = replace(release.pointer, **{wrong: getattr(release.pointer, wrong) - 1})
        release = replace(release, pointer=pointer)
    shelf.point_to(release)
    if wrong == "ranges":
        s3.inject(whole, is_manifest)
    if wrong == "replaced":
        s3.inject(error(412, "PreconditionFailed"), lambda r: "if-match" in r.headers, times=1)

    assert "changed" == process.cycle().result

    assert files == process.shown


def whole(exchange: Exchange) -> None:
    """A server that knows no ranges."""
    headers = {name: text for name, text in exchange.request.headers.items() if name != "range"}
    exchange.request = replace(exchange.request, headers=headers)
    exchange.send(exchange.good())


def test_an_old_pointer_that_is_put_back_is_followed_with_a_warning(
    shelf: Shelf, process: Process, log: Log
) -> None:
    first = shelf.publish({"a.py": b"a = 1\n"})
    old = shelf.current
    assert old is not None
    process.run(PINNED)
    shelf.publish({"a.py": b"a = 2\n"})
    process.cycle()
    shelf.point_to(first)
    process.cycle()
    assert [] == log.events("release_replayed")

    shelf.put(POINTER_KEY, old.pointer_bytes)
    process.cycle()

    (warned,) = log.events("release_replayed")
    assert (1, 3, first.revision) == (
        warned["sequence"],
        warned["sequence_before"],
        warned["revision"],
    )


# --- from one source to the other


@layouts
def test_files_of_a_listing_are_taken_over_and_so_is_the_way_back(
    s3: FakeS3, shelf: Shelf, process: Process, layout: dict[str, str]
) -> None:
    for path, body in FILES.items():
        s3.put(f"loose/{path}", body)
    listing = {"KEY_PATH": "loose"} | layout
    process.run(listing)
    before = times(process) if layout != SNAPSHOT else {}
    release = shelf.publish(FILES)
    process.restart(PINNED | layout)
    s3.forget()

    outcome = process.cycle()
    assert (release.revision, 0) == (outcome.revision, outcome.counts["downloaded_bytes"])
    assert [] == s3.seen(is_bundle)
    process.restart(listing)
    s3.forget()
    assert 0 == process.cycle().counts["downloaded_bytes"]
    assert FILES == process.shown
    assert before == (times(process) if layout != SNAPSHOT else {})


def test_the_record_of_another_kind_or_pin_counts_as_none(
    s3: FakeS3, shelf: Shelf, process: Process
) -> None:
    release = shelf.publish(FILES)
    process.run(PINNED)

    s3.inject(error(503, "SlowDown"), is_list)
    process.restart({"KEY_PATH": "dags"})
    process.fail()
    assert not process.is_ready
    process.restart(PINNED | {"S3_SYNC_REVISION": "0" * 64})
    process.fail()
    assert not process.is_ready
    process.restart(PINNED | {"S3_SYNC_REVISION": release.revision})
    shelf.put(manifest_key(release.revision), b"")
    process.fail()
    assert process.is_ready


# --- pins


@layouts
def test_a_pin_is_kept_to_and_asks_nothing_more(
    s3: FakeS3, shelf: Shelf, process: Process, layout: dict[str, str]
) -> None:
    old = shelf.publish({"a.py": b"a = 1\n"})
    shelf.publish({"a.py": b"a = 2\n"})
    process.run(PINNED | layout | {"S3_SYNC_REVISION": old.revision})
    s3.forget()

    assert ("unchanged", old.revision) == (process.cycle().result, process.cycle().revision)
    assert process.glance()
    assert [] == s3.seen()
    assert {"a.py": b"a = 1\n"} == process.shown


def test_a_pinned_release_that_is_not_there_is_named(shelf: Shelf, process: Process) -> None:
    shelf.publish(FILES)
    process.start(PINNED | {"S3_SYNC_REVISION": ABSENT})
    error = process.fail()

    assert "release_missing" == error.reason
    assert f"dags/releases/{ABSENT}.manifest" in error.message
    assert "pruned" in error.advice


def test_a_pin_takes_no_other_release_under_its_name(shelf: Shelf, process: Process) -> None:
    """No pointer says which SHA-256 the manifest has: only its revision tells."""
    wanted, other = shelf.publish(FILES), make_release({"other.py": b"other\n"})
    shelf.store(other)
    shelf.put(manifest_key(wanted.revision), other.manifest_bytes)
    process.start(PINNED | {"S3_SYNC_REVISION": wanted.revision})
    error = process.fail()

    assert "release_invalid" == error.reason
    assert f"it is the manifest of {other.revision}" in error.message
    assert {} == process.shown


@layouts
def test_a_pinned_release_that_is_published_with_another_bundle_is_recovered_from(
    s3: FakeS3, shelf: Shelf, process: Process, layout: dict[str, str]
) -> None:
    release = shelf.publish(FILES)
    process.start(PINNED | layout | {"S3_SYNC_REVISION": release.revision})
    s3.delete(f"dags/{_bundle(shelf)}")
    assert "release_missing" == process.fail().reason

    # Another zlib makes other bytes of the same content; so does a byte behind the zip.
    body = release.bundle_bytes + b"\0"
    manifest = release.manifest
    other = seal(manifest.locate(manifest.files.values()), body)
    assert other.revision == release.revision
    shelf.store(other)

    assert "changed" == process.cycle().result
    assert FILES == process.shown


# --- what is refused


def _current(shelf: Shelf) -> Release:
    assert shelf.current is not None
    return shelf.current


def _swapped(s3: FakeS3, shelf: Shelf) -> None:
    """The manifest of one release under the name of another."""
    shelf.put(_manifest(shelf), make_release({"other.py": b"other\n"}).manifest_bytes)


def _without(key: Callable[[Shelf], str]) -> Callable[[FakeS3, Shelf], None]:
    return lambda s3, shelf: s3.delete(f"dags/{key(shelf)}")


def _manifest(shelf: Shelf) -> str:
    return manifest_key(_current(shelf).revision)


def _bundle(shelf: Shelf) -> str:
    return bundle_key(_current(shelf).manifest.head.bundle_sha256)


def _cut(s3: FakeS3, shelf: Shelf) -> None:
    shelf.put(_bundle(shelf), _current(shelf).bundle_bytes[:40])


def _flipped(s3: FakeS3, shelf: Shelf) -> None:
    body = bytearray(_current(shelf).bundle_bytes)
    manifest = _current(shelf).manifest
    (file,) = manifest.locate([manifest.files["pkg1/m1.py"]])
    body[file.offset + 1] ^= 1
    shelf.put(_bundle(shelf), bytes(body))


SABOTAGE: dict[str, tuple[Callable[[FakeS3, Shelf], None], str, str]] = {
    "no pointer": (_without(lambda _: POINTER_KEY), "release_missing", POINTER_KEY),
    "no JSON": (lambda s3, shelf: shelf.put(POINTER_KEY, b"<x/>"), "release_invalid", POINTER_KEY),
    "long pointer": (
        lambda s3, shelf: shelf.put(POINTER_KEY, b" " * 70_000),
        "release_invalid",
        "more than 65536 bytes",
    ),
    "no manifest": (_without(_manifest), "release_missing", "dags/releases/"),
    "other manifest": (_swapped, "release_invalid", "it is the manifest of"),
    "no bundle": (_without(_bundle), "release_missing", "dags/bundles/"),
    "short bundle": (_cut, "bundle_corrupt", "bundle"),
    "flipped bit": (_flipped, "bundle_corrupt", "pkg1/m1.py"),
}


def test_an_empty_file_that_should_not_be_one_leaves_nothing_behind(
    s3: FakeS3, shelf: Shelf, process: Process
) -> None:
    digest = "0" * 64
    bad = seal([File("empty.py", 0, 0, digest, "0644", 38)], bytes(100))
    shelf.publish({"a.py": b"a = 1\n"})
    shelf.store(bad)
    process.start(PINNED | {"S3_SYNC_REVISION": bad.revision})
    process.fail()
    before = process.held

    assert "bundle_corrupt" == process.fail().reason
    assert [] == staged(process)
    assert before == process.held


@layouts
@pytest.mark.parametrize("name", SABOTAGE)
def test_what_is_missing_or_wrong_changes_nothing_and_is_recovered_from(
    s3: FakeS3, shelf: Shelf, process: Process, layout: dict[str, str], name: str
) -> None:
    sabotage, reason, said = SABOTAGE[name]
    good = {"pkg1/m1.py": b"good = 1\n", "old.py": b"old = 1\n"}
    shelf.publish(good)
    process.run(PINNED | layout)
    shelf.publish(FILES)
    sabotage(s3, shelf)

    for _ in range(2):
        error = process.fail()
        assert reason == error.reason
        assert said in error.message
        assert error.advice
        is_met = name not in ("no pointer", "long pointer")
        assert is_met == process.can_wait_for_news == process.glance()
        assert good == process.shown
        assert process.is_ready
        assert [] == staged(process)
    shelf.restore()
    assert "changed" == process.cycle().result
    assert FILES == process.shown
    assert process.glance()


def test_a_denied_pointer_names_the_action(s3: FakeS3, shelf: Shelf, process: Process) -> None:
    shelf.publish(FILES)
    arn = "arn:aws:s3:::dags-bucket/dags/current.json"
    s3.inject(access_denied("s3:GetObject", arn, "arn:aws:iam::1:role/dags"), is_pointer)
    process.start(PINNED)
    error = process.fail()

    assert "access_denied_get" == error.reason
    assert "s3:GetObject" in error.message


@pytest.mark.parametrize(
    ("may_list", "reason"), [(True, "release_missing"), (False, "access_denied_get")]
)
def test_a_403_for_what_is_not_there_is_seen_through_where_one_may_list(
    s3: FakeS3, process: Process, may_list: bool, reason: str
) -> None:
    s3.inject(error(403, "AccessDenied", "Access Denied"), is_pointer)
    if not may_list:
        s3.inject(error(403, "AccessDenied", "Access Denied"), is_list)
    process.start(PINNED)

    assert reason == process.fail().reason


def test_a_bundle_that_goes_wrong_on_its_way_is_no_news_for_the_next_cycle(
    s3: FakeS3, shelf: Shelf, process: Process
) -> None:
    shelf.publish(FILES)
    s3.inject(replace_body(lambda body: body[:-5] + b"\0" + body[-4:]), is_bundle, times=1)
    process.start(PINNED)

    assert "bundle_corrupt" == process.fail().reason
    assert {} == process.shown
    assert "changed" == process.cycle().result
    assert FILES == process.shown


# --- the disk


@pytest.mark.parametrize("path", ["pkg0/m3.py", "z_last.py"])
def test_in_place_a_release_that_is_half_there_is_not_ready_and_is_finished_by_the_next_cycle(
    shelf: Shelf, process: Process, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    shelf.publish({"old.py": b"old\n", path: b"before\n"})
    process.run(PINNED)
    shelf.publish({**FILES, path: b"after\n"})
    put = Target.put

    def fail_at(target: Target, one: Staged, *rest: object) -> None:
        if one.path == path:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        put(target, one, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Target, "put", fail_at)
        assert "target_denied" == process.fail().reason
    assert {"old.py", path} <= process.shown.keys()  # nothing is deleted before all is there
    assert (False, "a part of a release is in place") == (process.is_ready, process.problem)
    process.restart(PINNED)
    process.s3.inject(reset(), times=3)  # the cycle takes over the target, and finds no S3
    assert "connection_lost" == process.fail().reason
    assert not process.is_ready

    assert "changed" == process.cycle().result
    assert {**FILES, path: b"after\n"} == process.shown
    assert process.is_ready
    assert [] == staged(process)


def test_a_note_that_outlived_its_release_is_removed(shelf: Shelf, process: Process) -> None:
    shelf.publish(FILES)
    process.run(PINNED)
    note = process.folder / ".s3-sync/publishing"
    note.write_text("killed between record and removal\n")
    process.restart(PINNED)

    assert "unchanged" == process.cycle().result
    assert process.is_ready
    assert not note.exists()


@layouts
def test_a_full_disk_changes_nothing(
    s3: FakeS3,
    shelf: Shelf,
    process: Process,
    monkeypatch: pytest.MonkeyPatch,
    layout: dict[str, str],
) -> None:
    good = {"a.py": b"a = 1\n", "gone.py": b"b = 1\n"}
    shelf.publish(good)
    process.run(PINNED | layout)
    shelf.publish({"a.py": b"a = 2\n", **FILES})
    stage = Target.stage

    def fill(target: Target, path: str, *rest: object) -> Staged:
        if path == "pkg2/m11.py":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return stage(target, path, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Target, "stage", fill)
        assert "target_full" == process.fail().reason
        s3.forget()
        assert "target_full" == process.fail().reason
        assert [] == s3.seen(is_manifest)
    assert good == process.shown
    assert [] == staged(process)
    assert "changed" == process.cycle().result


def test_what_blocks_a_path_is_named_and_the_rest_is_published(
    shelf: Shelf, process: Process
) -> None:
    blocking = process.folder / "pkg1"
    blocking.write_bytes(b"foreign")
    shelf.publish(FILES)
    process.start(PINNED)
    outcome = process.cycle()
    blocked = {path for path in FILES if path.startswith("pkg1/")}

    assert len(blocked) == outcome.counts["keys_skipped"]
    assert FILES.keys() - blocked == process.shown.keys() - {"pkg1"}
    assert not process.glance()
    blocking.unlink()
    process.cycle()
    assert FILES == process.shown


@layouts
def test_where_one_file_is_damaged_all_are_looked_at(
    shelf: Shelf, process: Process, layout: dict[str, str]
) -> None:
    files = {f"m{n:04}.py": b"x = 1\n" for n in range(700)}
    shelf.publish(files)
    process.run(PINNED | layout)
    root = process.folder / "current" if layout == SNAPSHOT else process.folder
    for path in files:
        os.unlink(root.resolve() / path)

    outcome = process.cycle()
    assert len(files) in (outcome.counts.get("files_healed"), outcome.counts["files_published"])
    assert files == process.shown


# --- glances


def test_a_glance_is_one_small_request_until_something_is_new(
    s3: FakeS3, shelf: Shelf, process: Process
) -> None:
    shelf.publish(FILES)
    process.start(PINNED)
    assert not process.glance()
    process.cycle()
    process.cycle()
    s3.forget()

    assert process.glance() and process.glance()
    requests = s3.seen()
    assert (2, 2) == (len(requests), len(s3.seen(is_pointer)))
    assert all(request.headers["if-none-match"].startswith('"') for request in requests)
    shelf.publish({"a.py": b"new = 1\n"})
    assert not process.glance()
    assert "changed" == process.cycle().result
    assert process.glance()
    assert 1 == len(s3.seen(is_manifest))


def test_a_glance_that_gets_no_good_answer_leaves_the_reason_to_a_cycle(
    s3: FakeS3, shelf: Shelf, process: Process
) -> None:
    shelf.publish(FILES)
    process.run(PINNED)
    s3.inject(error(503, "SlowDown"))

    assert not process.glance()
    assert "throttled" == process.fail().reason
    assert not process.can_wait_for_news and not process.glance()
    s3.heal()
    assert "unchanged" == process.cycle().result
    assert process.glance()


def test_a_glance_after_a_bad_release_sees_the_next_one(
    s3: FakeS3, shelf: Shelf, process: Process
) -> None:
    good = shelf.publish({"a.py": b"good = 1\n"})
    process.run(PINNED)
    bad = shelf.publish(FILES)
    shelf.put(manifest_key(bad.revision), b"{}")
    process.fail()
    s3.forget()

    assert process.glance() and process.glance()
    assert 2 == len(s3.seen())
    shelf.point_to(good)
    assert not process.glance()
    assert good.revision == process.cycle().revision


def test_a_failure_is_waited_out_where_a_glance_cannot_tell_news(
    s3: FakeS3, shelf: Shelf, process: Process
) -> None:
    """
    Else each glance would ask for a cycle that fails again, endlessly, as if there were no backoff.
    """
    good = shelf.publish({"a.py": b"good = 1\n"})
    process.run(PINNED)
    bad = shelf.publish(FILES)
    shelf.put(manifest_key(bad.revision), b"{}")
    process.fail()
    assert process.can_wait_for_news

    s3.inject(error(503, "SlowDown"), is_pointer)
    assert not process.glance()
    s3.heal()
    process.fail()
    assert not process.can_wait_for_news

    shelf.point_to(good)
    process.cycle()
    assert process.can_wait_for_news and process.glance()


def test_with_delete_all_there_is_no_glance(shelf: Shelf, process: Process) -> None:
    shelf.publish(FILES)
    process.run(PINNED | {"S3_SYNC_DELETE": "all"})
    (process.folder / "theirs.py").write_bytes(b"x")

    assert not process.glance()
    process.cycle()
    assert FILES == process.shown


def test_a_rehearsal_plans_and_changes_nothing(
    s3: FakeS3, shelf: Shelf, process: Process, log: Log
) -> None:
    release = shelf.publish(FILES)
    process.start(PINNED | {"S3_SYNC_DRY_RUN": "true"})
    for _ in range(2):
        outcome = process.cycle()
        assert ("unchanged", release.revision) == (outcome.result, outcome.revision)

    (plan,) = log.events("plan_made")
    assert (release.revision, len(FILES)) == (plan["revision"], plan["files_to_publish"])
    assert [] == s3.seen(is_bundle)
    assert [] == os.listdir(process.folder)
    assert not process.glance()
