"""Rollback: the chosen release, the history, and concurrent commands."""

import time
from argparse import Namespace
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import product
from threading import Event, Thread

import pytest

from s3_sync.publisher.catalog import ReleaseError, resolve
from s3_sync.publisher.commands import run
from s3_sync.publisher.progress import Progress
from s3_sync.publisher.prune import prune
from s3_sync.publisher.rollback import Rollback, roll_back
from s3_sync.publisher.store import Store
from s3_sync.release.facts import Origin
from s3_sync.release.names import POINTER_KEY, bundle_key, manifest_key
from s3_sync.release.pointer import HISTORY_LIMIT
from sidecar_runtime.errors import SidecarError
from tests.runtime.recording import Log
from tests.s3_sync.bucket import ORIGIN, Bucket
from tests.s3_sync.failing import failure
from tests.support.aws.writable_s3 import is_write
from tests.support.http.faults import first
from tests.support.http.loopback import Exchange
from tests.support.s3_sync.publishing import PREFIX, read_release
from tests.support.s3_sync.releases import ABSENT, AT, make_release
from tests.support.waiting import wait_until

A, B, C = ({name: name.encode()} for name in ("a.py", "b.py", "c.py"))
WHO = Origin(by="grace", ci_url="https://ci/7")


def back(
    bucket: Bucket, revision: str | None = None, *, is_dry: bool = False, repairs: bool = False
) -> Rollback:
    return roll_back(bucket.store, revision, WHO, is_dry=is_dry, repairs=repairs)


def go_back_twice(bucket: Bucket) -> None:
    """Publish A, B and C, and roll back to A in two steps."""
    bucket.publish_all(A, B, C)

    back(bucket)
    assert B == bucket.current()
    back(bucket)
    assert A == bucket.current()


def test_each_rollback_goes_one_release_further_back(bucket: Bucket) -> None:
    go_back_twice(bucket)

    assert ["B", "C", "B", "A"] == bucket.spelled(A=A, B=B, C=C)
    found = failure(back, bucket)
    assert "history_empty" == found.reason and "no release before" in found.message


def test_rolls_back_through_a_release_that_was_current_twice(bucket: Bucket) -> None:
    bucket.publish_all(A, B, A)

    back(bucket)
    assert B == bucket.current()
    back(bucket)
    assert A == bucket.current()

    assert "history_empty" == failure(back, bucket).reason


def test_a_rollback_to_a_revision_leaves_all_newer_releases_behind(bucket: Bucket) -> None:
    first = bucket.publish(A).revision
    bucket.publish_all(B, C)

    back(bucket, first)

    assert A == bucket.current()
    assert "history_empty" == failure(back, bucket).reason


def test_a_rollback_beyond_the_history_limit_leaves_no_earlier_release(bucket: Bucket) -> None:
    """A pod whose gate refuses it must not fall back to a release that was rolled back."""
    oldest = bucket.publish({"a.py": b"a = 0\n"}).revision
    for number in range(1, HISTORY_LIMIT + 2):
        bucket.publish({"a.py": b"a = %d\n" % number})

    after = back(bucket, oldest).after

    assert oldest == after.revision
    assert (HISTORY_LIMIT, []) == (len(after.history), after.earlier())
    assert "history_empty" == failure(back, bucket).reason


def test_a_rollback_beyond_a_lost_history_leaves_no_earlier_release(bucket: Bucket) -> None:
    first = bucket.publish(A).revision
    bucket.server.delete(PREFIX + POINTER_KEY)
    bucket.publish_all(B, C)

    after = back(bucket, first).after

    assert (2, []) == (len(after.history), after.earlier())
    assert "history_empty" == failure(back, bucket).reason


# --- without a valid pointer


def test_rolls_back_to_a_revision_without_a_pointer(bucket: Bucket) -> None:
    first = bucket.publish(A).revision
    bucket.publish(B)
    sequence = bucket.pointer().turn.sequence
    bucket.server.delete(PREFIX + POINTER_KEY)
    wait_until(lambda: time.time() >= sequence, "a sequence made now is no lower")

    done = back(bucket, first)

    assert (None, True) == (done.before, done.is_guarded)
    assert A == bucket.current()
    assert sequence <= done.after.turn.sequence and () == done.after.history


def test_rollback_replaces_an_invalid_pointer_only_with_repair(bucket: Bucket, log: Log) -> None:
    first = bucket.publish(A).revision
    bucket.publish(B)
    bucket.server.put(PREFIX + POINTER_KEY, b"{}")

    for revision, repairs in ((first, False), (None, False), (None, True)):
        assert "pointer_invalid" == failure(back, bucket, revision, repairs=repairs).reason
    assert b"{}" == bucket.bodies()[PREFIX + POINTER_KEY]
    back(bucket, first, repairs=True)

    assert A == bucket.current()
    assert 1 == len(log.events("pointer_untrusted"))


def test_a_repair_writes_a_higher_sequence_and_keeps_the_history(bucket: Bucket) -> None:
    revision = bucket.publish(A).revision

    done = back(bucket, revision, repairs=True)

    assert done.before is not None
    assert done.before.turn.sequence < done.after.turn.sequence
    assert done.before.history == done.after.history


def test_a_rollback_to_the_newer_revision_undoes_a_rollback(bucket: Bucket) -> None:
    first = bucket.publish(A).revision
    second = bucket.publish(B).revision
    back(bucket)

    back(bucket, second)

    assert B == bucket.current()
    assert first == back(bucket).after.revision


def test_publishing_after_a_rollback_extends_the_history(bucket: Bucket) -> None:
    bucket.publish_all(A, B)
    back(bucket)

    bucket.publish(C)

    assert ["A", "B", "A"] == bucket.spelled(A=A, B=B)
    back(bucket)
    assert A == bucket.current()
    assert "history_empty" == failure(back, bucket).reason


def test_the_pointer_records_who_rolled_back_and_the_origin_of_the_release(bucket: Bucket) -> None:
    bucket.publish_all(A, B)

    origin = back(bucket).after.origin

    assert ORIGIN._replace(by="grace", ci_url="https://ci/7") == origin


def put_back_first(bucket: Bucket, minutes: float = 60) -> str:
    """Publish A, B and C, and restore the pointer of B; return its revision."""
    bucket.publish(A)
    revision = bucket.publish(B).revision
    old = bucket.bodies()[PREFIX + POINTER_KEY]
    bucket.publish(C)
    bucket.put_back(old, minutes)
    return revision


@pytest.mark.parametrize("minutes", [1.1, 60])
def test_rollback_requires_a_revision_after_an_old_pointer_was_restored(
    bucket: Bucket, log: Log, minutes: float
) -> None:
    put_back_first(bucket, minutes)
    bucket.server.forget()

    error = failure(back, bucket)

    assert ("release_replayed", 3) == (error.reason, error.exit_code)
    assert "an old pointer was restored" in error.message
    assert "Pass the revision" in error.advice
    assert [] == bucket.writes()
    back(bucket, make_release(C).revision)
    assert C == bucket.current()
    assert 1 == len(log.events("release_replayed"))


def test_a_slowly_written_pointer_does_not_count_as_restored(bucket: Bucket, log: Log) -> None:
    def delay(exchange: Exchange) -> None:
        answer, key = exchange.good(), PREFIX + POINTER_KEY
        at = datetime.now(UTC) + timedelta(minutes=10)
        bucket.server.put(key, bucket.bodies()[key], at=at)
        date = {"Date": format_datetime(at, usegmt=True)}
        exchange.send(replace(answer, headers={**answer.headers, **date}))

    bucket.publish(A)
    bucket.server.inject(delay, is_write(POINTER_KEY), times=1)
    bucket.publish(B)
    history = bucket.history()
    bucket.server.inject(delay, is_write(POINTER_KEY), times=1)

    back(bucket)

    assert A == bucket.current()
    assert "history_empty" == failure(back, bucket).reason
    assert (make_release(A).revision,) == history
    assert [] == log.events("release_replayed")


def test_no_pointer_counts_as_restored_if_responses_use_another_clock(
    bucket: Bucket, log: Log
) -> None:
    """For example, a proxy dates responses with its own clock."""

    def date() -> None:
        now = datetime.now(UTC)
        for key, stored in bucket.server.objects.items():
            if stored.last_modified < now + timedelta(minutes=5):
                later = now + timedelta(minutes=10)
                bucket.server.objects[key] = replace(stored, last_modified=later)

    bucket.server.on_write = date
    go_back_twice(bucket)

    assert "unchanged" == bucket.publish(A).result
    assert [] == log.events("release_replayed")
    prune(bucket.store, [], 0, 0, is_dry=True)


def test_a_rollback_to_a_restored_release_writes_a_higher_sequence(bucket: Bucket) -> None:
    revision = put_back_first(bucket)

    done = back(bucket, revision)

    assert revision == done.after.revision and done.before is not None
    assert done.before.turn.sequence < done.after.turn.sequence
    assert done.before.history == done.after.history
    assert done.after.previous == done.before.previous is not None


def test_a_rollback_to_the_current_release_writes_nothing(bucket: Bucket) -> None:
    revision = bucket.publish(A).revision
    bucket.server.forget()

    done = back(bucket, revision)

    assert done.before == done.after
    assert [] == bucket.writes()


@pytest.mark.parametrize("part", ["bundle", "manifest"])
def test_a_rollback_to_an_incomplete_current_release_fails(bucket: Bucket, part: str) -> None:
    release = make_release(A)
    bucket.publish(A)
    bundle = bundle_key(release.manifest.head.bundle_sha256)
    key = {"bundle": bundle, "manifest": manifest_key(release.revision)}[part]
    bucket.server.delete(PREFIX + key)

    found = failure(back, bucket, release.revision)

    expected = {"bundle": "release_incomplete", "manifest": "release_unknown"}[part]
    assert expected == found.reason


def test_a_dry_run_writes_nothing(bucket: Bucket) -> None:
    first = bucket.publish(A).revision
    bucket.publish(B)
    bucket.server.forget()

    done = back(bucket, is_dry=True)

    assert first == done.after.revision
    assert [] == bucket.writes()


def test_fails_if_the_previous_release_was_pruned(bucket: Bucket) -> None:
    first = bucket.publish(A)
    bucket.publish(B)
    bucket.server.delete(PREFIX + manifest_key(first.revision))

    found = failure(back, bucket)

    assert ("history_empty", 3) == (found.reason, found.exit_code)
    assert first.revision[:12] in found.message
    assert B == bucket.current()


def test_fails_if_the_revision_does_not_exist(bucket: Bucket) -> None:
    bucket.publish(A)

    found = failure(back, bucket, ABSENT)

    assert ("release_unknown", 2) == (found.reason, found.exit_code)
    assert A == bucket.current()


def test_a_repair_after_a_rollback_keeps_the_history(bucket: Bucket) -> None:
    bucket.publish_all(A, B, C)
    back(bucket)
    bucket.server.delete(PREFIX + bundle_key(make_release(B).manifest.head.bundle_sha256))
    bucket.publish(B)

    back(bucket)

    assert A == bucket.current()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{0:.12}", "2 releases in s3://"),
        ("{0:.13}", ""),
        ("{0:.11}", "is not a revision"),
        ("{0:.12}x", "is not a revision"),
        ("f" * 12, "has no release"),
        ("{0}", ""),
    ],
)
def test_finds_a_revision_by_its_first_digits_if_they_are_unique(
    bucket: Bucket, text: str, said: str
) -> None:
    revision = bucket.publish(A).revision
    bucket.publish(B)
    other = f"{revision[:12]}{'0' if revision[12] != '0' else '1'}{'0' * 51}"
    bucket.server.put(PREFIX + manifest_key(other), b"")

    name = text.format(revision)
    if said:
        found = failure(resolve, bucket.store, name)
        assert said in found.message and 2 == found.exit_code
    else:
        assert revision == resolve(bucket.store, name)


def test_refuses_an_incomplete_release(bucket: Bucket) -> None:
    old = bucket.publish(A).revision
    bucket.publish(B)
    bucket.server.delete(PREFIX + bundle_key(make_release(A).manifest.head.bundle_sha256))

    found = failure(back, bucket)

    assert "release_incomplete" == found.reason
    assert old[:12] in found.message
    assert B == read_release(bucket.bodies())


def test_refuses_a_manifest_stored_under_another_revision(bucket: Bucket) -> None:
    other = bucket.put(make_release(B))
    bucket.publish(A)
    bucket.server.put(PREFIX + manifest_key(ABSENT), other.manifest_bytes)

    with pytest.raises(ReleaseError, match="is incomplete"):
        back(bucket, ABSENT)


def test_a_rollback_fails_if_a_publish_was_faster(bucket: Bucket) -> None:
    bucket.publish_all(A, B)
    # The request for the bundle follows the read of the pointer.
    bucket.server.inject(
        lambda exchange: (bucket.put(make_release(C)), exchange.send(exchange.good()))[1],
        lambda request: request.method == "HEAD",
        times=1,
    )

    with pytest.raises(SidecarError, match="meanwhile"):
        back(bucket)

    assert C == bucket.current()


def test_restores_a_manifest_that_a_killed_prune_deleted(bucket: Bucket) -> None:
    key = PREFIX + manifest_key(bucket.publish(A).revision)
    bucket.publish(B)
    delete = first(lambda: bucket.server.delete(key))
    bucket.server.inject(delete, is_write(POINTER_KEY), times=1)

    back(bucket)

    assert A == bucket.current()


# How many requests each command makes.
COMMANDS = {"rollback": 10, "pin": 5}


@pytest.mark.parametrize("command", COMMANDS)
def test_keeps_or_reports_missing_a_release_that_is_pruned_meanwhile(
    bucket: Bucket, command: str, request: pytest.FixtureRequest
) -> None:
    """The command starts first; the prune pauses before one of its requests until it ends."""
    step = 1 if request.config.getoption("--full") else 7
    results = set()
    for number, pause in list(product(range(2, COMMANDS[command] + 1), range(6, 24)))[::step]:
        bucket.server.objects.clear()
        old = bucket.put(make_release(A, at=AT - timedelta(days=3)))
        newer = bucket.put(make_release(B, at=AT - timedelta(days=2)))
        bucket.put(make_release(C, history=[newer.revision], at=AT - timedelta(days=1)))

        is_done = is_done_beside_a_prune(bucket, command, old.revision, number, pause)

        is_back = is_done and command == "rollback"
        assert (A if is_back else C) == bucket.current(), (number, pause)
        assert not is_done or PREFIX + manifest_key(old.revision) in bucket.bodies()
        results.add(is_done)
    assert {True, False} == results


def is_done_beside_a_prune(
    bucket: Bucket, command: str, revision: str, number: int, pause: int
) -> bool:
    """Return whether a command succeeds with a prune that starts and pauses at these requests."""
    is_done = is_paused = False
    seen, paused, ended = 0, Event(), Event()

    def clean() -> None:
        prune(Store(bucket.settings), [], 0, 0, is_dry=False)
        paused.set()

    def meet(exchange: Exchange) -> None:
        nonlocal seen, is_paused
        seen += 1
        if seen == number:
            pruner.start()
            assert paused.wait(60)
            is_paused = True
        elif seen == number + pause and not is_paused:
            paused.set()
            assert ended.wait(60)
        exchange.send(exchange.good())

    pruner = Thread(target=clean)
    bucket.server.inject(meet)
    with suppress(SidecarError):
        run(
            bucket.settings,
            Namespace(command=command, revision=revision, repair=False),
            {},
            Progress(),
        )
        is_done = True
    ended.set()
    pruner.join()
    bucket.server.heal()
    return is_done
