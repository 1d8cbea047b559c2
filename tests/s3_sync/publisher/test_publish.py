"""Publishing: written and untouched objects, repairs, and concurrent publishers."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest

from s3_sync.publisher.airflow.check import Passed
from s3_sync.publisher.catalog import ReleaseError
from s3_sync.publisher.local.folder_errors import FolderError
from s3_sync.release.facts import Origin
from s3_sync.release.manifest import parse_manifest
from s3_sync.release.names import POINTER_KEY, bundle_key, manifest_key
from s3_sync.release.pointer import parse_pointer, serialize_pointer
from tests.runtime.recording import Log
from tests.s3_sync.bucket import CHECKED, ORIGIN, A, B, Bucket, C
from tests.s3_sync.failing import failure
from tests.support.aws.writable_s3 import is_write
from tests.support.http.faults import first
from tests.support.http.loopback import Exchange
from tests.support.s3_sync.publishing import PREFIX
from tests.support.s3_sync.releases import make_release
from tests.support.s3_sync.signing import Key


def test_the_first_publish_becomes_current(bucket: Bucket) -> None:
    outcome = bucket.publish(A)

    assert ("published", None, True) == (outcome.result, outcome.before, outcome.is_guarded)
    assert A == bucket.current()
    assert () == bucket.history()
    assert [outcome.revision] == bucket.judged


def test_each_publish_replaces_the_current_release_and_extends_the_history(bucket: Bucket) -> None:
    first = bucket.publish(A)
    second = bucket.publish(B)
    third = bucket.publish(C)

    assert C == bucket.current()
    assert (second.revision, first.revision) == bucket.history()
    assert third.before is not None and third.before.revision == second.revision


def test_unchanged_content_creates_no_release(bucket: Bucket) -> None:
    first = bucket.publish(A)
    bucket.server.forget()

    again = bucket.publish(A)

    assert ("unchanged", first.revision) == (again.result, again.revision)
    assert [] == bucket.writes()
    assert [first.revision] == bucket.judged


def test_publishing_earlier_content_reuses_its_release(bucket: Bucket) -> None:
    first = bucket.publish(A)
    bucket.publish(B)
    manifest = bucket.bodies()[PREFIX + manifest_key(first.revision)]
    bucket.server.forget()

    again = bucket.publish(A)

    assert ("published", first.revision) == (again.result, again.revision)
    assert A == bucket.current()
    assert manifest == bucket.bodies()[PREFIX + manifest_key(first.revision)]
    assert not any(name.endswith(".zip") for name in bucket.writes())
    assert 2 == len(bucket.history())


def test_pointer_and_manifest_contain_the_origin_and_the_pointer_its_time(bucket: Bucket) -> None:
    before = datetime.now(UTC).replace(microsecond=0)

    done = bucket.publish(A)

    [bundle] = [body for key, body in bucket.bodies().items() if key.endswith(".zip")]
    assert len(bundle) == done.bundle_bytes
    manifest = parse_manifest(bucket.bodies()[PREFIX + manifest_key(done.revision)])
    assert ORIGIN == bucket.pointer().origin == manifest.head.origin
    assert before <= bucket.pointer().turn.since <= datetime.now(UTC)


def test_the_airflow_check_is_in_the_manifest_and_not_in_the_revision(bucket: Bucket) -> None:
    unchecked = bucket.publish(A, is_dry=True).revision
    bucket.passed = Passed(CHECKED, ())

    revision = bucket.publish(A).revision

    manifest = parse_manifest(bucket.bodies()[PREFIX + manifest_key(revision)])
    assert (unchecked, CHECKED) == (revision, manifest.head.checked)


def test_lists_added_and_removed_dags_if_both_releases_were_checked(bucket: Bucket) -> None:
    bucket.passed = Passed(CHECKED, ())
    first = bucket.publish(A)
    bucket.passed = Passed(CHECKED._replace(dag_ids=("sales", "stock")), ())
    second = bucket.publish(B)
    bucket.passed = None
    third = bucket.publish(C)

    assert second.dags is not None
    assert (("stock",), ("orders",)) == (second.dags.added, second.dags.removed)
    assert (None, None) == (first.dags, third.dags)


def test_the_first_publish_reports_other_files_under_the_prefix(bucket: Bucket) -> None:
    bucket.server.put("dags-old/a.py", b"")
    assert "" == bucket.publish(A, is_dry=True).stranger
    bucket.server.put(f"{PREFIX}old.py", b"")

    first, second = bucket.publish(A), bucket.publish(B)

    assert ("old.py", "") == (first.stranger, second.stranger)
    assert B == bucket.current()


def test_a_dry_run_writes_nothing(bucket: Bucket) -> None:
    outcome = bucket.publish(A, is_dry=True)

    assert "planned" == outcome.result
    assert {} == bucket.server.objects
    assert [outcome.revision] == bucket.judged


def test_writes_nothing_if_the_gate_refuses_the_folder(bucket: Bucket) -> None:
    def refuse() -> None:
        raise FolderError("revision_refused", "a.py:1: no")

    bucket.publish(A)
    bucket.server.forget()
    bucket.judge = refuse

    with pytest.raises(FolderError, match="no"):
        bucket.publish(B)

    assert [] == bucket.writes()
    assert A == bucket.current()


def test_writes_nothing_if_the_folder_changes_meanwhile(bucket: Bucket) -> None:
    bucket.publish(A)
    bucket.server.forget()
    bucket.judge = (bucket.folder / "late.py").touch

    assert "folder_changing" == failure(bucket.publish, B).reason
    assert [] == bucket.writes()
    assert A == bucket.current()


@pytest.mark.parametrize("part", ["manifest", "bundle", "both"])
def test_repairs_a_current_release_with_missing_objects(bucket: Bucket, part: str) -> None:
    bucket.publish(B)
    revision = bucket.publish(A).revision
    manifest = PREFIX + manifest_key(revision)
    bundle = PREFIX + bundle_key(make_release(A).manifest.head.bundle_sha256)
    for key in {"manifest": [manifest], "bundle": [bundle], "both": [manifest, bundle]}[part]:
        bucket.server.delete(key)
    history = bucket.history()

    outcome = bucket.publish(A)

    assert ("published", revision) == (outcome.result, outcome.revision)
    assert A == bucket.current()
    assert history == bucket.history()


@pytest.mark.parametrize("garbage", [b"", b"{}", b"\0" * 100])
def test_replaces_an_invalid_manifest(bucket: Bucket, garbage: bytes) -> None:
    revision = make_release(A).revision
    bucket.server.put(PREFIX + manifest_key(revision), garbage)

    assert "published" == bucket.publish(A).result
    assert A == bucket.current()


def test_replaces_an_invalid_manifest_that_is_pruned_meanwhile(bucket: Bucket) -> None:
    key = manifest_key(make_release(A).revision)
    bucket.server.put(PREFIX + key, b"{}")
    prune = first(lambda: bucket.server.delete(PREFIX + key))
    bucket.server.inject(prune, is_write(key), times=1)

    assert "published" == bucket.publish(A).result
    assert A == bucket.current()


@pytest.mark.parametrize("is_current", [True, False], ids=["current", "earlier"])
@pytest.mark.parametrize(
    "damage",
    [lambda body: body[:-1], lambda body: body[:9] + bytes([body[9] ^ 1]) + body[10:]],
    ids=["short", "other bytes"],
)
def test_replaces_a_damaged_bundle(
    bucket: Bucket, damage: Callable[[bytes], bytes], is_current: bool
) -> None:
    release = bucket.put(make_release(A))
    if not is_current:
        bucket.publish(B)
    bundle = PREFIX + bundle_key(release.manifest.head.bundle_sha256)
    bucket.server.put(bundle, damage(release.bundle_bytes))

    assert "published" == bucket.publish(A).result
    assert A == bucket.current()


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"format": 3}', b"my own file"], ids=["empty", "other", "new", "own"]
)
@pytest.mark.parametrize("key", [None, Key()], ids=["unsigned", "signed"])
def test_publish_replaces_an_invalid_pointer_only_with_repair(
    bucket: Bucket, log: Log, content: bytes, key: Key | None
) -> None:
    if key is not None:
        bucket.store.signer, bucket.store.keys = key.signer, key.signer.keys
    bucket.publish(B)
    seen = bucket.pointer().turn.sequence
    bucket.server.put(PREFIX + POINTER_KEY, content)
    before = bucket.bodies()

    found = failure(bucket.publish, A)

    assert "pointer_invalid" == found.reason
    assert f"s3://{bucket.server.bucket}/dags/current.json" in found.message
    assert "--repair" in found.advice
    assert before == bucket.bodies()
    assert "published" == bucket.publish(A, repairs=True).result
    assert A == bucket.current()
    assert () == bucket.history()
    assert seen <= bucket.pointer().turn.sequence
    assert 1 == len(log.events("pointer_untrusted"))


def test_a_repair_fails_if_a_publish_was_faster(bucket: Bucket) -> None:
    bucket.server.put(PREFIX + POINTER_KEY, b"{}")
    bucket.judge = lambda: bucket.put(make_release(B))

    found = failure(lambda: bucket.publish(A, repairs=True))

    assert "publish_conflict" == found.reason
    assert B == bucket.current()


def test_publish_leaves_a_pointer_that_was_corrupted_meanwhile(bucket: Bucket) -> None:
    bucket.publish(B)
    bucket.judge = lambda: bucket.server.put(PREFIX + POINTER_KEY, b"{}")

    found = failure(bucket.publish, A)

    assert "publish_conflict" == found.reason and "was overwritten by" in found.message
    assert b"{}" == bucket.bodies()[PREFIX + POINTER_KEY]


# Old pointers that were restored


@pytest.mark.parametrize("key", [None, Key()], ids=["unsigned", "signed"])
def test_publishing_the_content_of_a_restored_old_pointer_writes_a_new_one(
    bucket: Bucket, log: Log, key: Key | None
) -> None:
    """Pods have seen newer pointers: they accept the release only with a higher sequence."""
    if key is not None:
        bucket.store.signer, bucket.store.keys = key.signer, key.signer.keys
    bucket.publish_all(C, A)
    old = bucket.bodies()[PREFIX + POINTER_KEY]
    bucket.publish(B)
    seen = bucket.pointer().turn.sequence
    bucket.put_back(old)

    assert "published" == bucket.publish(A).result

    pointer = bucket.pointer()
    assert seen <= pointer.turn.sequence and parse_pointer(old).turn.sequence < seen
    (warned,) = log.events("release_replayed")
    assert "an old pointer was restored" in warned["error"]


def test_publishing_over_a_restored_old_pointer_logs_a_warning(bucket: Bucket, log: Log) -> None:
    bucket.publish(A)
    old = bucket.bodies()[PREFIX + POINTER_KEY]
    bucket.publish(B)
    assert [] == log.events("release_replayed")
    bucket.put_back(old)

    bucket.publish(C)

    assert 1 == len(log.events("release_replayed"))
    assert "unchanged" == bucket.publish(C).result


def test_publishing_earlier_content_does_not_count_as_a_replay(bucket: Bucket, log: Log) -> None:
    bucket.publish_all(A, B, A)

    assert "unchanged" == bucket.publish(A).result
    assert [] == log.events("release_replayed")


# Concurrent commands


def test_the_second_publisher_fails_and_changes_nothing(bucket: Bucket) -> None:
    bucket.put(make_release(A))
    other = make_release(B).pointer._replace(origin=Origin(by="grace"))
    bucket.judge = lambda: (
        bucket.put(make_release(B)),
        bucket.server.put(PREFIX + POINTER_KEY, serialize_pointer(other)),
    )

    found = failure(bucket.publish, C)

    assert "publish_conflict" == found.reason
    assert f"grace made release {other.revision[:12]} current at 2" in found.message
    assert f"release {make_release(C).revision[:12]} of this command" in found.message
    assert B == bucket.current()


def test_publish_fails_if_the_pointer_is_deleted_meanwhile(bucket: Bucket) -> None:
    bucket.publish(A)
    bucket.judge = lambda: bucket.server.delete(PREFIX + POINTER_KEY)

    with pytest.raises(ReleaseError, match="json was deleted"):
        bucket.publish(B)


def test_two_publishers_of_the_same_content_both_succeed(bucket: Bucket, tmp_path: Path) -> None:
    bucket.publish(B)
    other = Bucket(bucket.server, tmp_path / "other", bucket.settings)
    bucket.judge = lambda: other.publish(A)

    outcome = bucket.publish(A)

    assert "published" == outcome.result
    assert A == bucket.current()


def test_publish_fails_if_an_old_pointer_is_restored_meanwhile(bucket: Bucket) -> None:
    bucket.publish(A)
    old = bucket.bodies()[PREFIX + POINTER_KEY]
    bucket.publish(B)
    bucket.judge = lambda: bucket.put_back(old)

    found = failure(bucket.publish, A)

    assert "publish_conflict" == found.reason
    assert "replaced by an older pointer to the same release" in found.message


def test_a_repair_of_unchanged_content_writes_a_higher_sequence(bucket: Bucket) -> None:
    """Pods may refuse the pointer because they have seen a higher sequence."""
    bucket.publish(A)
    before = bucket.pointer()

    assert "unchanged" == bucket.publish(A).result
    assert "published" == bucket.publish(A, repairs=True).result

    after = bucket.pointer()
    assert before.turn.sequence < after.turn.sequence and before.history == after.history


def test_reads_dates_without_a_zone_as_utc(bucket: Bucket) -> None:
    def naive(exchange: Exchange) -> None:
        answer = exchange.good()
        dates = {
            name: value.removesuffix(" GMT")
            for name, value in answer.headers.items()
            if name.lower() in ("date", "last-modified")
        }
        exchange.send(replace(answer, headers={**answer.headers, **dates}))

    bucket.server.inject(naive)

    assert "published" == bucket.publish(A).result
    assert "unchanged" == bucket.publish(A).result


def test_dates_the_pointer_by_the_clock_of_s3(bucket: Bucket) -> None:
    """The clocks of runners may be wrong by minutes, and differ from each other."""

    def dated(exchange: Exchange) -> None:
        answer = exchange.good()
        date = "Wed, 01 Jan 2031 00:00:00 GMT"
        exchange.send(replace(answer, headers={**answer.headers, "Date": date}))

    bucket.server.inject(dated)
    bucket.publish(A)

    turn = bucket.pointer().turn
    assert turn.sequence >= datetime(2031, 1, 1, tzinfo=UTC).timestamp()
    assert 2031 == turn.since.year


@pytest.mark.parametrize("conditions", ["obeyed", "ignored"])
def test_restores_its_release_if_it_is_pruned_meanwhile(
    bucket: Bucket, conditions: Literal["obeyed", "ignored"]
) -> None:
    """It exists at the first check of the publish, and is gone when the pointer names it."""
    bucket.server.conditions = conditions
    old = bucket.put(make_release(A))
    before = bucket.put(make_release(B))

    def prune(exchange: Exchange) -> None:
        exchange.send(exchange.good())
        bucket.server.delete(PREFIX + manifest_key(old.revision))
        bucket.server.delete(PREFIX + bundle_key(old.manifest.head.bundle_sha256))

    bucket.server.inject(prune, is_write(POINTER_KEY), times=1)

    assert "published" == bucket.publish(A).result
    assert A == bucket.current()
    assert (before.revision,) == bucket.history()


@pytest.mark.parametrize("is_bundle_first", [False, True])
def test_restores_its_release_if_it_is_pruned_between_its_manifest_and_its_bundle(
    bucket: Bucket, is_bundle_first: bool
) -> None:
    old = bucket.put(make_release(A))
    bucket.put(make_release(B))
    bundle = bundle_key(old.manifest.head.bundle_sha256)

    def prune(exchange: Exchange) -> None:
        keys = [manifest_key(old.revision), bundle]
        if not is_bundle_first:
            exchange.send(exchange.good())
        for key in keys:
            bucket.server.delete(PREFIX + key)
        if is_bundle_first:
            exchange.send(exchange.good())

    wanted = bundle if is_bundle_first else manifest_key(old.revision)
    bucket.server.inject(
        prune, lambda r: r.method in ("GET", "HEAD") and r.path.endswith(wanted), times=1
    )

    assert "published" == bucket.publish(A).result
    assert A == bucket.current()


def test_publish_fails_if_its_bundle_is_pruned_again_and_again(bucket: Bucket) -> None:
    def prune(exchange: Exchange) -> None:
        exchange.send(exchange.good())
        for key in [key for key in bucket.bodies() if key.endswith(".zip")]:
            bucket.server.delete(key)

    bucket.server.inject(prune, is_write(POINTER_KEY))

    assert "release_incomplete" == failure(bucket.publish, A).reason
