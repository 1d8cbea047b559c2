"""Whole cycles of the source `release` against a scripted S3."""

import os
import stat
from dataclasses import replace

import pytest

from s3_sync.release.facts import Checked
from s3_sync.release.names import POINTER_KEY, bundle_key, manifest_key
from tests.runtime.recording import Log
from tests.s3_sync.process import Process
from tests.s3_sync.release.following import FILES, MANY, PINNED, staged, times, whole
from tests.support.aws.fake_s3 import FakeS3, error, is_list
from tests.support.http.faults import altered, reset
from tests.support.s3_sync.releases import ABSENT, AT, make_release, seal
from tests.support.s3_sync.shelf import Shelf, is_bundle, is_manifest

# --- publishing releases


def test_publishes_a_release_and_then_only_the_changes_of_the_next(
    s3: FakeS3, shelf: Shelf, process: Process
) -> None:
    first = shelf.publish(FILES)
    outcome = process.run(PINNED)

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


def test_publishes_a_change_of_the_executable_bit(shelf: Shelf, process: Process) -> None:
    def mode() -> int:
        return stat.S_IMODE((process.folder / "current/run.sh").stat().st_mode)

    shelf.publish({"run.sh": b"#!/bin/sh\n"})
    process.run(PINNED | {"S3_SYNC_FILE_MODE": "0640"})
    plain = mode()
    shelf.publish({"run.sh": b"#!/bin/sh\n"}, executable={"run.sh"})
    process.cycle()

    assert (0o440, 0o550) == (plain, mode())
    assert "unchanged" == process.cycle().result


def test_resumes_at_the_first_missing_file_after_a_lost_connection(
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
def test_the_status_shows_a_new_manifest_of_unchanged_content(
    s3: FakeS3, shelf: Shelf, process: Process, files: dict[str, bytes]
) -> None:
    first = shelf.publish(files)
    process.run(PINNED)
    times_before = times(process)
    checked = Checked("3.3.2", AT, 2, ("orders", "sales"), files_not_loaded=1)
    assert first.revision == shelf.publish(files, checked=checked).revision
    s3.forget()

    assert "unchanged" == process.cycle().result

    release = process.details["release"]
    assert isinstance(release, dict)
    said = "Airflow 3.3.2 at 2026-11-20T15:00:00Z: 2 DAGs, 1 file not loaded"
    assert said == release["checked_by"]
    assert times_before == times(process)
    assert [] == s3.seen(is_bundle)
    assert 2 == len(s3.seen()), "the pointer, and the manifest or its head"


def test_a_release_costs_no_more_requests_and_bytes_than_promised(
    s3: FakeS3, shelf: Shelf, process: Process
) -> None:
    """At most 4 requests at first; 4 and 50 KB for one changed file; 1 for a poll."""
    sent: list[int] = []
    s3.inject(altered(lambda answer: sent.append(len(answer.body)) or answer))
    files = {f"team{n % 9}/dag_{n:05}.py": os.urandom(40) for n in range(1_000)}
    shelf.publish(files)
    process.run(PINNED | {"S3_SYNC_FSYNC": "false"})
    assert len(sent) == len(s3.seen()) <= 4
    del sent[:]
    files["team3/dag_00003.py"] = os.urandom(40)
    shelf.publish(files)
    process.cycle()
    assert len(sent) <= 4 and sum(sent) <= 50_000
    del sent[:]

    assert "unchanged" == process.cycle().result
    assert [0] == sent
    assert files == process.shown


def test_reads_only_the_new_chunks_of_a_long_manifest(
    s3: FakeS3, shelf: Shelf, process: Process
) -> None:
    shelf.publish(MANY)
    process.run(PINNED)
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
    (process.folder / "current/team0/dag_0000.py").unlink()  # its chunk was not read again
    process.restart(PINNED)
    process.cycle()
    assert files == process.shown


@pytest.mark.parametrize("wrong", ["head_bytes", "manifest_bytes", "ranges", "replaced"])
def test_reads_the_whole_manifest_if_its_parts_do_not_match(
    s3: FakeS3, shelf: Shelf, process: Process, wrong: str
) -> None:
    shelf.publish(MANY)
    process.run(PINNED)
    files = {**MANY, "team3/dag_0003.py": b"other\n"}
    release = make_release(files)
    shelf.store(release)
    if wrong.endswith("_bytes"):
        pointer = release.pointer._replace(**{wrong: getattr(release.pointer, wrong) - 1})
        release = replace(release, pointer=pointer)
    shelf.point_to(release)
    if wrong == "ranges":
        s3.inject(whole, is_manifest)
    if wrong == "replaced":
        s3.inject(error(412, "PreconditionFailed"), lambda r: "if-match" in r.headers, times=1)

    assert "changed" == process.cycle().result

    assert files == process.shown


def test_reports_a_truncated_manifest_instead_of_the_bundle(shelf: Shelf, process: Process) -> None:
    shelf.publish(MANY)
    process.run(PINNED)
    release = shelf.publish({**MANY, "team3/dag_0003.py": b"other\n"})
    cut = release.manifest_bytes[: release.pointer.head_bytes]
    shelf.put(manifest_key(release.revision), cut)

    error = process.fail()

    assert "release_invalid" == error.reason
    assert manifest_key(release.revision) in error.message
    assert MANY == process.shown


def test_follows_a_restored_old_pointer_with_a_warning(
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


def test_is_not_ready_with_the_record_of_another_source_or_pin(
    s3: FakeS3, shelf: Shelf, process: Process
) -> None:
    release = shelf.publish(FILES)
    process.run(PINNED)

    s3.inject(error(503, "SlowDown"), is_list)
    process.restart({"KEY_PATH": "dags", "S3_SYNC_LAYOUT": "snapshot"})
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


def test_keeps_a_pinned_release_without_further_requests(
    s3: FakeS3, shelf: Shelf, process: Process
) -> None:
    old = shelf.publish({"a.py": b"a = 1\n"})
    shelf.publish({"a.py": b"a = 2\n"})
    process.run(PINNED | {"S3_SYNC_REVISION": old.revision})
    s3.forget()

    assert ("unchanged", old.revision) == (process.cycle().result, process.cycle().revision)
    assert [] == s3.seen()
    assert {"a.py": b"a = 1\n"} == process.shown


def test_reports_a_pinned_release_that_does_not_exist(shelf: Shelf, process: Process) -> None:
    shelf.publish(FILES)
    process.start(PINNED | {"S3_SYNC_REVISION": ABSENT})
    error = process.fail()

    assert "release_missing" == error.reason
    assert f"dags/releases/{ABSENT}.manifest" in error.message
    assert "pruned" in error.advice


def test_a_pin_refuses_the_manifest_of_another_release(shelf: Shelf, process: Process) -> None:
    """No pointer contains the SHA-256 of the manifest: only the revision identifies it."""
    wanted, other = shelf.publish(FILES), make_release({"other.py": b"other\n"})
    shelf.store(other)
    shelf.put(manifest_key(wanted.revision), other.manifest_bytes)
    process.start(PINNED | {"S3_SYNC_REVISION": wanted.revision})
    error = process.fail()

    assert "release_invalid" == error.reason
    assert f"it is the manifest of {other.revision}" in error.message
    assert {} == process.shown


def test_recovers_if_a_pinned_release_is_published_with_another_bundle(
    s3: FakeS3, shelf: Shelf, process: Process
) -> None:
    release = shelf.publish(FILES)
    process.start(PINNED | {"S3_SYNC_REVISION": release.revision})
    s3.delete(f"dags/{bundle_key(release.manifest.head.bundle_sha256)}")
    assert "release_missing" == process.fail().reason

    # Another zlib creates other bytes for the same content; so does a byte after the zip.
    body = release.bundle_bytes + b"\0"
    manifest = release.manifest
    other = seal(manifest.locate(manifest.files.values()), body)
    assert other.revision == release.revision
    shelf.store(other)

    assert "changed" == process.cycle().result
    assert FILES == process.shown
