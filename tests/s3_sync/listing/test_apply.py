"""Carrying out a plan, with objects that fail."""

import asyncio
import errno
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from s3_sync.listing.apply import CONNECTIONS, ListingApplier
from s3_sync.listing.entries import Entry, Listing
from s3_sync.listing.trust import Trust
from s3_sync.plan import Plan
from s3_sync.result import FAILURE_STREAK, CycleResult
from s3_sync.s3.client import S3Client
from s3_sync.s3.refusals import ObjectError, SourceError
from s3_sync.s3.wire import WireError
from s3_sync.source import Order
from s3_sync.tree.download import MEMORY_BYTES
from s3_sync.tree.target import Target
from s3_sync.tree.volume import Volume
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.runtime.recording import Log
from tests.s3_sync.given import play
from tests.s3_sync.tree.handling import staged
from tests.support.fake_s3 import FakeS3, error, is_get
from tests.support.faults import first, flip_first_bit, hang, replace_body, reset
from tests.support.waiting import wait_until


class Cycle:
    """One cycle's publishing: a bucket, a target, and what is told to the applier."""

    def __init__(self, s3: FakeS3, target: Target, fence: Fence) -> None:
        self.s3 = s3
        self.target = target
        self.fence = fence
        self.result = CycleResult()
        self.trust = Trust("auto", is_aws=False)

    def listed(self, *more: str) -> dict[str, Entry]:
        """The objects of the bucket, and some that are listed and not there."""
        found = {
            key.removeprefix("dags/"): Entry(key, stored.etag, len(stored.body))
            for key, stored in self.s3.objects.items()
        }
        return found | {path: Entry(f"dags/{path}", "0" * 32, 5) for path in more}

    def apply(
        self,
        publish: Iterable[str] | None = None,
        delete: Iterable[str] = (),
        *,
        damaged: Collection[str] = (),
        blocked: Collection[str] = (),
        wanted: dict[str, Entry] | None = None,
    ) -> CycleResult:
        entries = self.listed() if wanted is None else wanted
        paths = list(entries) if publish is None else publish
        plan = Plan(tuple((path, entries[path]) for path in paths), tuple(delete))

        async def scene(client: S3Client) -> None:
            parts = (Listing(entries, {}, "r1"), plan, self.target, self.fence)
            order = Order(*parts, damaged=damaged, blocked=blocked)
            self.result = order.result
            await ListingApplier(client, order, self.trust).apply()

        play(self.s3, scene)
        return self.result

    def gets(self) -> list[str]:
        return [request.path.partition("/dags/")[2] for request in self.s3.seen(is_get())]


@pytest.fixture
def cycle(s3: FakeS3, target: Target, fence: Fence) -> Cycle:
    return Cycle(s3, target, fence)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(place.relative_to(folder)): place.read_bytes()
        for place in folder.rglob("*")
        if place.is_file() and ".s3-sync" not in place.parts
    }


# --- what goes well


def test_publishes_and_then_deletes(cycle: Cycle, folder: Path) -> None:
    cycle.s3.put("dags/old.py", b"old")
    cycle.apply()
    cycle.s3.delete("dags/old.py")
    cycle.s3.put("dags/a.py", b"a")
    cycle.s3.put("dags/d/b.py", b"bb")

    result = cycle.apply(delete=["old.py"])

    assert {"a.py": b"a", "d/b.py": b"bb"} == tree(folder)
    assert (2, 1, 0) == (result.published, result.deleted, result.adopted)
    assert 3 == result.downloaded_bytes
    assert {"a.py", "d/b.py"} == cycle.target.managed.files.keys()


def test_an_empty_plan_asks_for_nothing(cycle: Cycle) -> None:
    assert CycleResult() == cycle.apply(publish=[])
    assert [] == cycle.gets()


def test_a_few_connections_do_it_in_the_order_of_the_plan(cycle: Cycle, folder: Path) -> None:
    for number in range(60):
        cycle.s3.put(f"dags/{number:02}.py", b"x" * number)

    cycle.apply(publish=[f"{number:02}.py" for number in reversed(range(60))])

    assert 60 == len(tree(folder))
    by_connection: dict[int, list[str]] = {}
    for request in cycle.s3.seen(is_get()):
        by_connection.setdefault(request.connection, []).append(request.path)
    assert len(by_connection) <= CONNECTIONS
    for paths in by_connection.values():  # one that is slow to open may be late with its first
        assert sorted(paths, reverse=True) == paths


@pytest.mark.parametrize("is_damaged", [True, False])
def test_what_is_there_already_is_not_downloaded(
    cycle: Cycle, folder: Path, is_damaged: bool
) -> None:
    cycle.s3.put("dags/a.py", b"same")
    (folder / "a.py").write_bytes(b"same")
    os.chmod(folder / "a.py", 0o644)

    result = cycle.apply(damaged=["a.py"] if is_damaged else [])

    assert (0, 1, int(is_damaged)) == (result.published, result.adopted, result.healed)
    assert [] == cycle.gets()
    assert ["a.py"] == list(cycle.target.managed.files)


def test_damage_is_healed(cycle: Cycle, folder: Path) -> None:
    cycle.s3.put("dags/a.py", b"good")
    cycle.apply()
    (folder / "a.py").write_bytes(b"evil")

    result = cycle.apply(damaged=["a.py"])

    assert (1, 1) == (result.published, result.healed)
    assert b"good" == (folder / "a.py").read_bytes()


def test_an_etag_that_is_no_md5_needs_the_download(cycle: Cycle, folder: Path) -> None:
    cycle.s3.put("dags/a.py", b"same", etag="0123-2")
    (folder / "a.py").write_bytes(b"same")
    os.chmod(folder / "a.py", 0o644)
    inode = (folder / "a.py").stat().st_ino

    result = cycle.apply()

    assert ["a.py"] == cycle.gets()
    assert (0, 1, 4) == (result.published, result.adopted, result.downloaded_bytes)
    assert inode == (folder / "a.py").stat().st_ino


# --- objects that fail


def test_one_failure_holds_back_itself_alone(cycle: Cycle, folder: Path) -> None:
    cycle.s3.put("dags/old.py", b"old")
    cycle.apply()
    cycle.s3.delete("dags/old.py")
    for name in ("a", "b", "c"):
        cycle.s3.put(f"dags/{name}.py", name.encode())
    cycle.s3.inject(error(403, "AccessDenied"), is_get("dags/b.py"))

    result = cycle.apply(delete=["old.py"])

    assert {"a.py": b"a", "c.py": b"c"} == tree(folder)
    assert {"b.py": "access_denied_get"} == {path: e.reason for path, e in result.failed.items()}
    assert (["a.py", "c.py"], ["old.py"]) == (sorted(result.changes.added), result.changes.deleted)


@pytest.mark.parametrize("how", ["vanished", "changed", "changed, If-Match ignored"])
def test_what_changes_meanwhile_is_left_for_the_next_cycle(
    cycle: Cycle, folder: Path, how: str
) -> None:
    cycle.s3.put("dags/a.py", b"one")
    cycle.s3.put("dags/b.py", b"b")
    wanted = cycle.listed()
    if how == "vanished":
        cycle.s3.delete("dags/a.py")
    else:
        cycle.s3.put("dags/a.py", b"two")
        cycle.s3.honors_if_match = how == "changed"

    result = cycle.apply(wanted=wanted, delete=["x"])

    assert {"a.py": "object_changing"} == {path: e.reason for path, e in result.failed.items()}
    assert {"b.py": b"b"} == tree(folder)
    assert [] == staged(folder)


def test_something_in_the_way_is_no_failure_and_is_not_downloaded_again(
    cycle: Cycle, folder: Path
) -> None:
    cycle.s3.put("dags/old.py", b"old")
    cycle.apply()
    cycle.s3.delete("dags/old.py")
    cycle.s3.put("dags/d/a.py", b"a")
    (folder / "d").write_bytes(b"foreign")

    result = cycle.apply(delete=["old.py"])

    assert ({"d/a.py"}, {}, 1) == (result.blocked, result.failed, result.deleted)
    asked = len(cycle.gets())
    assert {"d/a.py"} == cycle.apply(blocked=["d/a.py"]).blocked
    assert asked == len(cycle.gets())
    (folder / "d").unlink()
    assert 1 == cycle.apply(blocked=["d/a.py"]).published


def test_a_path_that_the_file_system_refuses_fails_alone(cycle: Cycle, folder: Path) -> None:
    name = "x" * 256
    cycle.s3.put(f"dags/{name}", b"a")
    cycle.s3.put("dags/b.py", b"b")

    result = cycle.apply()

    assert {"b.py": b"b"} == tree(folder)
    assert ["target_failed"] == [failed.reason for failed in result.failed.values()]
    assert f"cannot write '{name}'" in result.failed[name].message
    assert [] == staged(folder)


# --- the proof


def test_what_is_altered_on_the_way_is_not_published(cycle: Cycle, folder: Path) -> None:
    cycle.s3.put("dags/a.py", b"good")
    bodies = iter([b"bad1", b"bad2"])
    cycle.s3.inject(replace_body(lambda _: next(bodies)), is_get())

    result = cycle.apply()

    assert {} == tree(folder)
    assert "object_corrupt" == result.failed["a.py"].reason
    assert "two downloads differ" in result.failed["a.py"].message


def test_what_was_altered_once_is_loaded_again(cycle: Cycle, folder: Path, log: Log) -> None:
    cycle.s3.put("dags/a.py", b"good")
    cycle.s3.inject(replace_body(flip_first_bit), is_get(), times=1)

    result = cycle.apply()

    assert {"a.py": b"good"} == tree(folder)
    assert (1, 8) == (result.published, result.downloaded_bytes)
    assert [] == log.events("etag_not_md5")


def test_a_store_whose_etags_only_look_like_md5_is_asked_twice_once(
    cycle: Cycle, folder: Path, log: Log
) -> None:
    cycle.s3.put("dags/a.py", b"a", etag="a" * 32)
    cycle.apply()
    cycle.s3.put("dags/b.py", b"b", etag="b" * 32)
    cycle.apply(publish=["b.py"])

    assert ["a.py", "a.py", "b.py"] == cycle.gets()
    assert {"a.py": b"a", "b.py": b"b"} == tree(folder)
    assert ["dags/a.py"] == [event["key"] for event in log.events("etag_not_md5")]


def test_bytes_that_contradict_a_proven_md5_are_refused(cycle: Cycle, folder: Path) -> None:
    cycle.s3.put("dags/a.py", b"a")
    cycle.apply()
    cycle.s3.put("dags/b.py", b"good")
    cycle.s3.inject(replace_body(flip_first_bit), is_get("dags/b.py"))

    for _ in range(3):
        failed = cycle.apply(publish=["b.py"]).failed
        assert "object_corrupt" == failed["b.py"].reason
        assert "S3_SYNC_VERIFY=lenient" in failed["b.py"].advice
    assert {"a.py": b"a"} == tree(folder)


def test_what_comes_first_and_contradicts_waits_for_what_proves(cycle: Cycle, folder: Path) -> None:
    """Also where the one that proves comes last, and is the only one."""
    for number in range(40):
        cycle.s3.put(f"dags/{number:02}.py", b"x", etag="a" * 32)
    cycle.s3.put("dags/z.py", b"z")

    result = cycle.apply()

    assert {"z.py": b"z"} == tree(folder)
    assert {"object_corrupt"} == {error.reason for error in result.failed.values()}


def test_a_file_on_disk_proves_what_etags_are(cycle: Cycle, folder: Path) -> None:
    """The next process has seen no download yet."""
    cycle.s3.put("dags/a.py", b"a")
    cycle.apply()
    cycle.trust = Trust("auto", is_aws=False)
    cycle.s3.put("dags/b.py", b"b", etag="b" * 32)

    assert ["b.py"] == list(cycle.apply(publish=["b.py"]).failed)


def test_a_file_that_nothing_has_verified_proves_nothing(cycle: Cycle, folder: Path) -> None:
    cycle.s3.put("dags/a.py", b"a", etag="a" * 32)
    cycle.apply()
    cycle.trust = Trust("auto", is_aws=False)
    cycle.s3.put("dags/b.py", b"b", etag="b" * 32)
    cycle.apply(publish=["b.py"])

    assert {"a.py": b"a", "b.py": b"b"} == tree(folder)
    assert {"a.py", "b.py"} == cycle.target.managed.unverified


def test_what_was_taken_in_doubt_is_suspect_once_the_store_has_proven_its_etags(
    cycle: Cycle,
) -> None:
    cycle.s3.put("dags/a.py", b"a", etag="a" * 32)
    cycle.apply()
    assert () == cycle.trust.suspects()
    cycle.s3.put("dags/b.py", b"b")
    cycle.apply(publish=["b.py"])
    assert {"a.py"} == cycle.trust.suspects()
    cycle.s3.put("dags/a.py", b"a")

    cycle.apply(publish=["a.py"])

    assert set() == cycle.trust.suspects()


@pytest.mark.parametrize("verify", ["strict", "lenient"])
def test_the_setting_decides_without_a_proof(cycle: Cycle, folder: Path, verify: str) -> None:
    cycle.trust = Trust(verify, is_aws=False)
    cycle.s3.put("dags/a.py", b"a", etag="a" * 32)

    result = cycle.apply()

    assert (verify == "strict") == ("a.py" in result.failed)
    assert ["a.py"] == cycle.gets()
    assert (verify == "lenient") == ("a.py" in cycle.target.managed.unverified)


def test_aws_needs_no_proof(cycle: Cycle) -> None:
    cycle.trust = Trust("auto", is_aws=True)
    cycle.s3.put("dags/a.py", b"a", etag="a" * 32)

    assert ["a.py"] == list(cycle.apply().failed)


def test_an_empty_object_proves_nothing_of_a_store(cycle: Cycle) -> None:
    """Gateways that invent ETags know the MD5 of nothing."""
    cycle.s3.put("dags/a.py", b"", etag=hashlib.md5(b"").hexdigest())

    cycle.apply()

    assert cycle.trust.is_open


# --- when it ends


def test_a_streak_of_failures_is_the_endpoints(cycle: Cycle) -> None:
    for number in range(40):
        cycle.s3.put(f"dags/{number:02}.py", b"x")
    cycle.s3.inject(reset(), is_get())

    with pytest.raises(WireError) as caught:
        cycle.apply()

    assert "connection_lost" == caught.value.reason
    assert FAILURE_STREAK <= len(cycle.result.failed) < FAILURE_STREAK + CONNECTIONS
    assert cycle.result.published == 0


def test_fewer_failures_than_a_streak_end_nothing(cycle: Cycle, folder: Path) -> None:
    for number in range(20):
        cycle.s3.put(f"dags/{number:02}.py", b"x")
    for number in range(FAILURE_STREAK - 1):
        cycle.s3.inject(error(500, "InternalError"), is_get(f"dags/{number:02}.py"))

    result = cycle.apply()

    assert FAILURE_STREAK - 1 == len(result.failed)
    assert 20 - len(result.failed) == len(tree(folder))


def test_a_success_between_ends_a_streak() -> None:
    result = CycleResult()
    lost = WireError("connection_lost", "x")

    for number in range(3 * FAILURE_STREAK):
        result.fail(f"{number}", lost)
        if number % 5 == 4:
            result.succeed("a", is_published=True, is_healed=False, is_new=True)

    assert 3 * FAILURE_STREAK == len(result.failed)


def test_no_number_of_refused_objects_is_a_reason_not_to_try_the_next() -> None:
    result = CycleResult()

    for number in range(1000):
        result.fail(f"{number}", ObjectError("access_denied_get", "x"))

    assert 1000 == len(result.failed)


def test_a_failure_of_the_source_ends_it_at_once(cycle: Cycle) -> None:
    for number in range(40):
        cycle.s3.put(f"dags/{number:02}.py", b"x")
    cycle.s3.inject(error(404, "NoSuchBucket"), is_get())

    with pytest.raises(SourceError) as caught:
        cycle.apply(delete=["x"])

    assert "bucket_not_found" == caught.value.reason
    assert len(cycle.gets()) <= CONNECTIONS
    assert {} == cycle.result.failed


def test_a_revoked_fence_ends_it_and_nothing_shows(cycle: Cycle, folder: Path) -> None:
    cycle.s3.put("dags/a.py", b"a")
    cycle.s3.inject(first(cycle.fence.revoke), is_get())

    with pytest.raises(CycleAbandoned):
        cycle.apply(delete=["x"])

    assert {} == tree(folder)
    assert [] == staged(folder)


def test_a_canceled_download_leaves_no_staging_file(cycle: Cycle, folder: Path) -> None:
    cycle.s3.put("dags/a.py", b"x" * (2 * MEMORY_BYTES))
    cycle.s3.inject(hang(after=MEMORY_BYTES + MEMORY_BYTES // 2), is_get())
    entries = cycle.listed()

    async def scene(client: S3Client) -> None:
        plan = Plan(tuple(entries.items()), ())
        order = Order(Listing(entries, {}, "r1"), plan, cycle.target, cycle.fence)
        task = asyncio.create_task(ListingApplier(client, order, cycle.trust).apply())
        await asyncio.to_thread(wait_until, lambda: staged(folder), "the download is under way")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    play(cycle.s3, scene)
    cycle.s3.release()

    assert [] == staged(folder)
    assert {} == tree(folder)


# --- what was done in two places


def test_work_besides_is_added() -> None:
    failure = SidecarError("x", "y")
    result = CycleResult(published=1, deleted=2, healed=3, blocked={"a"}, failed={"b": failure})

    more = CycleResult(published=10, deleted=20, healed=30, blocked={"c"}, failed={"d": failure})
    result.add(more)

    assert (11, 22, 33) == (result.published, result.deleted, result.healed)
    assert ({"a", "c"}, {"b", "d"}) == (result.blocked, set(result.failed))


def test_what_was_got_for_others_to_publish_is_not_counted_as_published() -> None:
    result = CycleResult(published=1, downloaded_bytes=5)
    more = CycleResult(published=10, adopted=10, deleted=10, healed=10)

    result.take_over(more)
    result.take_over(CycleResult(downloaded_bytes=7, blocked={"c"}))

    assert (1, 12, {"c"}) == (result.published, result.downloaded_bytes, result.blocked)
    assert (0, 0, 0) == (result.adopted, result.deleted, result.healed)


# --- a full volume


class FullTarget(Target):
    """A target on a volume with room for one more file after each deletion."""

    room = 0

    def publish(self, path: str, *rest: Any) -> bool:
        if self.room < 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= 1
        return super().publish(path, *rest)

    def delete(self, path: str, fence: Fence) -> bool:
        self.room += 1
        return super().delete(path, fence)


@pytest.fixture
def full(s3: FakeS3, volume: Volume, fence: Fence) -> Iterator[Cycle]:
    """A cycle on a volume that has just become full, with an old file on it."""
    target = FullTarget(volume, file_mode=0o644)
    target.room = 1
    s3.put("dags/old.py", b"old")
    cycle = Cycle(s3, target, fence)
    cycle.apply()
    s3.delete("dags/old.py")
    yield cycle
    target.close()


def test_on_a_full_volume_deletions_come_first(full: Cycle, folder: Path, log: Log) -> None:
    full.s3.put("dags/new.py", b"new")

    result = full.apply(delete=["old.py"])

    assert {"new.py": b"new"} == tree(folder)
    assert (1, 1) == (result.published, result.deleted)
    assert [1] == [event["files_to_delete"] for event in log.events("target_full")]


def test_a_volume_that_stays_full_ends_the_cycle(full: Cycle, folder: Path) -> None:
    full.s3.put("dags/new1.py", b"1")
    full.s3.put("dags/new2.py", b"2")

    with pytest.raises(OSError, match="No space left"):
        full.apply(delete=["old.py"])

    assert 1 == len(tree(folder)) and "old.py" not in tree(folder)


def test_a_full_volume_with_nothing_to_delete_ends_the_cycle(full: Cycle, folder: Path) -> None:
    full.s3.put("dags/new.py", b"new")

    with pytest.raises(OSError, match="No space left"):
        full.apply()

    assert {"old.py": b"old"} == tree(folder)
