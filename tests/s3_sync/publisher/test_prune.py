"""Pruning: which releases it removes, in which order, and beside which other commands."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_sync.publisher.catalog import CatalogEntry, list_releases, resolve
from s3_sync.publisher.cli import read_arguments
from s3_sync.publisher.cli import run as command
from s3_sync.publisher.prune import Pruned, choose, prune, read_names
from s3_sync.publisher.rollback import roll_back
from s3_sync.publisher.store import Store
from s3_sync.release.facts import Origin
from s3_sync.release.names import POINTER_KEY, bundle_key, manifest_key
from tests.s3_sync.bucket import Bucket
from tests.s3_sync.failing import failure
from tests.support.aws.fake_s3 import is_list
from tests.support.aws.writable_s3 import is_write
from tests.support.http.faults import first
from tests.support.http.loopback import Exchange
from tests.support.s3_sync.publishing import PREFIX, check_every_release
from tests.support.s3_sync.releases import ABSENT, Release, make_release

NOW = datetime(2026, 11, 20, tzinfo=UTC)
DAY = 86_400.0


def releases(bucket: Bucket, count: int, *, days_old: float = 100) -> list[Release]:
    """Publish releases a day apart, the last one current; return them, oldest first."""
    made: list[Release] = []
    for number in range(count):
        history = [release.revision for release in reversed(made)][:20]
        release = bucket.put(make_release({"a.py": b"%d" % number}, history=history))
        made.append(release)
        age(bucket, release, days_old + count - number)
    return made


def age(bucket: Bucket, release: Release, days: float) -> None:
    """Backdate the objects of a release, except the pointer, whose date must match its content."""
    for name in release.objects():
        if name == POINTER_KEY:
            continue
        key = PREFIX + name
        at = datetime.now(UTC) - timedelta(days=days)
        bucket.server.objects[key] = replace(bucket.server.objects[key], last_modified=at)


def run(
    bucket: Bucket, *keep: str, count: int = 1, days: float = 1, is_dry: bool = False
) -> Pruned:
    done = prune(bucket.store, keep, count, days * DAY, is_dry=is_dry)
    check_every_release(bucket.bodies())
    return done


def left(bucket: Bucket) -> set[str]:
    return {entry.revision for entry in list_releases(bucket.store)}


def test_removes_old_releases_and_their_bundles(bucket: Bucket) -> None:
    made = releases(bucket, 5)

    done = run(bucket, count=3)

    assert {release.revision for release in made[2:]} == left(bucket)
    assert {made[0].revision, made[1].revision} == {entry.revision for entry in done.removed}
    assert 2 == done.bundles and 3 == len(done.kept)
    assert len(made[0].bundle_bytes) + len(made[1].bundle_bytes) == done.freed_bytes
    assert 3 * 2 + 1 == len(bucket.server.objects)


def test_keeps_all_recent_releases(bucket: Bucket) -> None:
    releases(bucket, 5, days_old=0)

    assert () == run(bucket, count=0, days=30).removed


def test_keeps_the_current_and_the_previous_release_at_any_age(bucket: Bucket) -> None:
    made = releases(bucket, 4)

    run(bucket, count=0, days=0)

    assert {made[3].revision, made[2].revision} == left(bucket)


def test_after_a_rollback_keeps_current_and_previous_not_the_newest(bucket: Bucket) -> None:
    made = releases(bucket, 4)
    since = made[1].pointer.turn.since
    bucket.server.put(PREFIX + POINTER_KEY, made[1].pointer_bytes, at=since)

    run(bucket, count=0, days=0)

    assert {made[1].revision, made[0].revision} == left(bucket)


def test_keeps_an_old_release_that_was_current_recently(bucket: Bucket) -> None:
    """Age counts from the replacement: a task pod may still be pinned to the release."""
    old = releases(bucket, 3)[0]
    roll_back(bucket.store, old.revision, Origin(), is_dry=False)
    for number in range(3):
        bucket.publish({"new.py": b"%d" % number})

    run(bucket, count=0, days=1)

    assert old.revision in left(bucket)
    run(bucket, count=0, days=0)
    assert old.revision not in left(bucket)
    assert not [key for key in bucket.bodies() if old.revision in key]


def lose(bucket: Bucket, old: bytes) -> None:
    bucket.server.delete(PREFIX + POINTER_KEY)


def overwrite(bucket: Bucket, old: bytes) -> None:
    bucket.server.put(PREFIX + POINTER_KEY, b"{}")


def restore(bucket: Bucket, old: bytes) -> None:
    bucket.put_back(old)


@pytest.mark.parametrize("damage", [lose, overwrite, restore])
def test_keeps_a_release_that_was_current_until_the_pointer_was_lost(
    bucket: Bucket, damage: Callable[[Bucket, bytes], None]
) -> None:
    bucket.publish({"a.py": b"0"})
    old = bucket.bodies()[PREFIX + POINTER_KEY]
    current = bucket.publish({"a.py": b"1"}).revision
    for name, stored in bucket.server.objects.items():
        if name != PREFIX + POINTER_KEY:
            at = stored.last_modified - timedelta(days=40)
            bucket.server.objects[name] = replace(stored, last_modified=at)
    damage(bucket, old)
    for number in range(2, 4):
        bucket.publish({"a.py": b"%d" % number}, repairs=True)

    run(bucket, count=0, days=1)

    assert current in left(bucket)


def test_keeps_releases_that_are_replaced_during_the_prune(bucket: Bucket) -> None:
    """The prune reads the pointer before these rollbacks, and the marks again after them."""
    made = releases(bucket, 4)
    swing = first(
        lambda: [
            roll_back(bucket.store, one.revision, Origin(), is_dry=False)
            for one in (made[1], made[0], made[2], made[3])
        ]
    )
    bucket.server.inject(swing, is_write(".manifest"), times=1)

    run(bucket, count=0, days=1)

    assert {one.revision for one in made} == left(bucket)


def test_removes_nothing_after_an_old_pointer_was_restored(bucket: Bucket) -> None:
    made = releases(bucket, 5)
    bucket.put_back(made[1].pointer_bytes)

    found = failure(lambda: run(bucket, count=1, days=1))

    assert "release_replayed" == found.reason
    assert {release.revision for release in made} == left(bucket)


def test_measures_age_by_the_clock_of_s3(bucket: Bucket) -> None:
    """A runner whose clock is a year ahead must not prune more."""
    made = releases(bucket, 5, days_old=2)
    ahead = (datetime.now(UTC) + timedelta(days=365)).strftime("%a, %d %b %Y %H:%M:%S GMT")

    def late(exchange: Exchange) -> None:
        answer = exchange.good()
        exchange.send(replace(answer, headers={**answer.headers, "date": ahead}))

    run(bucket, count=0, days=30)
    assert 5 == len(left(bucket))
    bucket.store = Store(bucket.settings)  # a new store first asks S3 for the time
    bucket.server.inject(late, is_list)
    run(bucket, count=0, days=30)
    assert {made[4].revision, made[3].revision} == left(bucket)


@pytest.mark.parametrize("text", ["{0}\n\n{1}\r\n", "{0:.12}\n{1:.20}"])
def test_keeps_the_revisions_listed_in_a_file(bucket: Bucket, tmp_path: Path, text: str) -> None:
    made = releases(bucket, 5)
    path = tmp_path / "keep"
    path.write_text(text.format(made[0].revision, made[1].revision))

    run(bucket, *(resolve(bucket.store, name) for name in read_names(str(path))), count=0, days=0)

    assert {made[n].revision for n in (0, 1, 3, 4)} == left(bucket)


def test_a_missing_keep_from_file_is_an_error() -> None:
    assert "--keep-from" in failure(read_names, "/nonexistent/file").message


def test_a_closed_standard_input_is_an_error() -> None:
    code = "from s3_sync.publisher.prune import read_names; read_names('-')"
    closed = f"exec 0<&-; exec {shlex.quote(sys.executable)} -c {shlex.quote(code)}"
    done = subprocess.run(["sh", "-c", closed], capture_output=True, text=True)

    assert "cannot read --keep-from '-'" in done.stderr


def test_lines_of_keep_from_that_match_no_release_are_counted(
    bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as commits, of runs from before a move from git to releases."""
    made = releases(bucket, 5)
    path = tmp_path / "keep"
    path.write_text(f"{'a' * 40}\n{made[0].revision}\n{'b' * 40}\n")
    url = f"s3://{bucket.server.bucket}/{PREFIX}"
    words = ["prune-releases", "--keep-count", "0", "--keep-for", "0s", "--keep-from", str(path)]

    assert 0 == command(read_arguments([*words, url]), os.environ)

    assert "Lines of --keep-from that match no release: 2" in capsys.readouterr().out
    assert made[0].revision in left(bucket)


@pytest.mark.parametrize("line", ["xyz", "deadbeef/../x"])
def test_a_line_of_keep_from_that_is_no_revision_is_an_error(
    bucket: Bucket, tmp_path: Path, line: str
) -> None:
    made = releases(bucket, 3)
    path = tmp_path / "keep"
    path.write_text(line)
    url = f"s3://{bucket.server.bucket}/{PREFIX}"

    assert 2 == command(
        read_arguments(["prune-releases", "--keep-from", str(path), url]), os.environ
    )
    assert len(made) == len(left(bucket))


def test_an_empty_keep_from_file_is_an_error(tmp_path: Path) -> None:
    """It is more likely that the query that wrote it failed than that no release is needed."""
    path = tmp_path / "in-use"
    path.write_text("\n  \n")

    assert "contains no release" in failure(read_names, str(path)).message


def test_a_dry_run_reports_the_same_and_deletes_nothing(bucket: Bucket) -> None:
    releases(bucket, 5)
    before = bucket.bodies()

    planned = run(bucket, is_dry=True)

    assert before == bucket.bodies()
    done = run(bucket)
    assert [entry.revision for entry in planned.removed] == [e.revision for e in done.removed]
    assert (planned.bundles, planned.freed_bytes) == (done.bundles, done.freed_bytes)


def test_deletes_manifests_before_bundles(bucket: Bucket) -> None:
    releases(bucket, 5)
    bucket.server.on_write = lambda: check_every_release(bucket.bodies())

    run(bucket)

    gone = [r.path.rpartition(".")[2] for r in bucket.server.seen(is_write())]
    assert ["manifest"] * 3 + ["zip"] * 3 == gone


def test_removes_bundles_that_a_killed_prune_left(bucket: Bucket) -> None:
    made = releases(bucket, 5)
    for release in made[:3]:
        bucket.server.delete(PREFIX + manifest_key(release.revision))

    done = run(bucket)

    assert () == done.removed
    assert 3 == done.bundles


def test_keeps_the_bundle_of_a_publish_in_progress(bucket: Bucket) -> None:
    releases(bucket, 2)
    other = make_release({"new.py": b""})
    bucket.server.put(PREFIX + bundle_key(other.manifest.head.bundle_sha256), other.bundle_bytes)

    assert 0 == run(bucket, count=0, days=0).bundles


def test_keeps_loose_bundles_while_a_remaining_manifest_is_invalid(bucket: Bucket) -> None:
    made = releases(bucket, 3)
    bucket.server.delete(PREFIX + manifest_key(made[0].revision))
    bucket.server.put(PREFIX + manifest_key(ABSENT), b"{}")

    done = prune(bucket.store, [ABSENT], 1, DAY, is_dry=False)

    assert 0 == done.bundles


def test_keeps_objects_that_are_not_part_of_a_release(bucket: Bucket) -> None:
    releases(bucket, 5)
    others = {
        f"{PREFIX}notes.txt": b"",
        f"{PREFIX}releases/README.md": b"",
        f"{PREFIX}releases/latest.manifest": b"",
        f"other/releases/{ABSENT}.manifest": b"",
    }
    for key, body in others.items():
        bucket.server.put(key, body)

    prune(bucket.store, [], 0, 0, is_dry=False)

    assert others.items() <= bucket.bodies().items()


def test_an_empty_bucket_has_nothing_to_prune(bucket: Bucket) -> None:
    assert Pruned((), (), 0, 0) == run(bucket)


def test_removes_nothing_without_a_pointer(bucket: Bucket) -> None:
    made = releases(bucket, 3)
    bucket.server.delete(PREFIX + POINTER_KEY)

    assert "release_missing" == failure(run, bucket, count=0, days=0).reason
    assert {release.revision for release in made} == left(bucket)


def test_restores_a_release_that_becomes_current_during_the_prune(bucket: Bucket) -> None:
    made = releases(bucket, 5)

    def point(exchange: Exchange) -> None:
        exchange.send(exchange.good())
        bucket.server.put(PREFIX + POINTER_KEY, made[0].pointer_bytes)

    key = manifest_key(made[0].revision)
    bucket.server.inject(point, is_write(key), times=1)

    done = run(bucket)

    assert made[0].revision not in {entry.revision for entry in done.removed}
    assert made[0].revision in left(bucket)


def test_keeps_a_bundle_that_is_uploaded_again_during_the_prune(bucket: Bucket) -> None:
    made = releases(bucket, 5)
    bundle = PREFIX + bundle_key(made[0].manifest.head.bundle_sha256)
    again = first(lambda: bucket.server.put(bundle, made[0].bundle_bytes))
    bucket.server.inject(again, lambda r: r.method == "HEAD" and r.path.endswith(bundle), times=1)

    done = run(bucket)

    assert bundle in bucket.bodies()
    assert 2 == done.bundles


def test_reads_all_pages_of_long_listings(bucket: Bucket) -> None:
    bucket.server.page_size = 2
    releases(bucket, 7)

    assert 5 == len(run(bucket, count=2).removed)
    assert len(bucket.server.seen(is_list)) > 8


entries = st.lists(
    st.tuples(st.integers(0, 50), st.floats(0, 100)), max_size=12, unique_by=lambda pair: pair[0]
)


@given(entries, st.sets(st.integers(0, 50)), st.integers(0, 12), st.floats(0, 100))
def test_chooses_old_releases_that_are_neither_spared_nor_among_the_last(
    found: list[tuple[int, float]], spared: set[int], keep_count: int, keep_days: float
) -> None:
    newest_first = sorted(found, key=lambda pair: pair[1])
    made = [
        CatalogEntry(f"{number:064x}", NOW - timedelta(days=days), None)
        for number, days in newest_first
    ]
    names = {f"{number:064x}" for number in spared}

    going = choose(made, names, keep_count, keep_days * DAY, NOW)

    for position, entry in enumerate(made):
        is_old = NOW - entry.used_at > timedelta(days=keep_days)
        goes = entry.revision not in names and position >= keep_count and is_old
        assert goes == (entry in going)
