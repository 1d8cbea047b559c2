"""
Carrying out a plan, with objects that fail.
"""

import asyncio
import errno
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from s3_sync.listing.apply import CONNECTIONS, Applier
from s3_sync.listing.entries import Entry, Listing
from s3_sync.plan import Plan
from s3_sync.s3 import client as client_module
from s3_sync.s3.client import S3Client
from s3_sync.s3.refusals import ObjectError, SourceError
from s3_sync.s3.wire import WireError
from s3_sync.source import Order
from s3_sync.target import download as download_module
from s3_sync.target.download import Download
from s3_sync.target.target import Target
from s3_sync.target.volume import Volume
from s3_sync.work import FAILURE_STREAK, HOPELESS_START, Work
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.runtime.recording import Log
from tests.s3_sync.given import play
from tests.support.fake_s3 import FakeS3, error, is_get
from tests.support.faults import first, flip_first_bit, hang, replace_body, reset
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def retries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "RETRY_CEILING_SECONDS", 0.0)


@pytest.fixture
def s3() -> Iterator[FakeS3]:
    with FakeS3() as server:
        yield server


class Cycle:
    """
    One cycle's publishing: a bucket, a target, and what is told to the applier.
    """

    def __init__(self, s3: FakeS3, target: Target, fence: Fence) -> None:
        self.s3 = s3
        self.target = target
        self.fence = fence
        self.work = Work()
        self.has_md5_etags: bool | None = None

    def listed(self, *more: str) -> dict[str, Entry]:
        """
        The objects of the bucket, and some that are listed and not there.
        """
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
        given_up: Collection[str] = (),
        wanted: dict[str, Entry] | None = None,
    ) -> Work:
        entries = self.listed() if wanted is None else wanted
        paths = list(entries) if publish is None else publish
        plan = Plan(tuple((path, entries[path]) for path in paths), tuple(delete))

        async def scene(client: S3Client) -> None:
            order = Order(
                Listing(entries, {}, "r1"),
                plan,
                self.target,
                self.fence,
                damaged=damaged,
                blocked=blocked,
            )
            self.work = order.work
            self.work.given_up = given_up
            client.has_md5_etags = self.has_md5_etags
            try:
                await Applier(client, order).apply()
            finally:
                self.has_md5_etags = client.has_md5_etags

        play(self.s3, scene)
        return self.work

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


def staged(folder: Path) -> list[str]:
    return os.listdir(folder / ".s3-sync/staging")


# --- what goes well


def test_publishes_and_then_deletes(cycle: Cycle, folder: Path) -> None:
    cycle.s3.put("dags/old.py", b"old")
    cycle.apply()
    cycle.s3.delete("dags/old.py")
    cycle.s3.put("dags/a.py", b"a")
    cycle.s3.put("dags/d/b.py", b"bb")

    work = cycle.apply(delete=["old.py"])

    assert {"a.py": b"a", "d/b.py": b"bb"} == tree(folder)
    assert (2, 1, 0, 3) == (work.published, work.deleted, work.adopted, work.downloaded_bytes)
    assert {"a.py", "d/b.py"} == cycle.target.managed.files.keys()


def test_an_empty_plan_asks_for_nothing(cycle: Cycle) -> None:
    assert Work() == cycle.apply(publish=[])
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

    work = cycle.apply(damaged=["a.py"] if is_damaged else [])

    assert (0, 1, int(is_damaged)) == (work.published, work.adopted, work.healed)
    assert [] == cycle.gets()
    assert ["a.py"] == list(cycle.target.managed.files)


def test_damage_is_healed(cycle: Cycle, folder: Path) -> None:
    cycle.s3.put("dags/a.py", b"good")
    cycle.apply()
    (folder / "a.py").write_bytes(b"evil")

    work = cycle.apply(damaged=["a.py"])

    assert (1, 1) == (work.published, work.healed)
    assert b"good" == (folder / "a.py").read_bytes()


def test_an_etag_that_is_no_md5_needs_the_download(cycle: Cycle, folder: Path) -> None:
    cycle.s3.put("dags/a.py", b"same", etag="0123-2")
    (folder / "a.py").write_bytes(b"same")
    os.chmod(folder / "a.py", 0o644)
    inode = (folder / "a.py").stat().st_ino

    work = cycle.apply()

    assert ["a.py"] == cycle.gets()
    assert (0, 1, 4) == (work.published, work.adopted, work.downloaded_bytes)
    assert inode == (folder / "a.py").stat().st_ino


# --- objects that fail


def test_one_failure_keeps_the_others_going_and_holds_back_deletions(
    cycle: Cycle, folder: Path
) -> None:
    cycle.s3.put("dags/old.py", b"old")
    cycle.apply()
    cycle.s3.delete("dags/old.py")
    for name in ("a", "b", "c"):
        cycle.s3.put(f"dags/{name}.py", name.encode())
    cycle.s3.inject(error(403, "AccessDenied"), is_get("dags/b.py"))

    work = cycle.apply(delete=["old.py"])

    assert {"a.py": b"a", "c.py": b"c", "old.py": b"old"} == tree(folder)
    assert {"b.py": "access_denied"} == {path: e.reason for path, e in work.failed.items()}
    assert 0 == work.deleted

    work = cycle.apply(publish=["b.py"], delete=["old.py"], given_up=["b.py"])
    assert {"a.py": b"a", "c.py": b"c"} == tree(folder)
    assert ["b.py"] == list(work.failed)


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
        cycle.s3.honours_if_match = how == "changed"

    work = cycle.apply(wanted=wanted, delete=["x"])

    assert ["dags/a.py"] == work.moved
    assert {} == work.failed
    assert {"b.py": b"b"} == tree(folder)
    assert [] == staged(folder)


def test_something_in_the_way_is_no_failure_and_is_not_downloaded_again(
    cycle: Cycle, folder: Path
) -> None:
    cycle.s3.put("dags/old.py", b"old")
    cycle.apply()
    cycle.s3.delete("dags/old.py")
    cycle.s3.put("dags/d/a.py", b"a")
    (folder / "d").write_bytes(b"somebody's")

    work = cycle.apply(delete=["old.py"])

    assert ({"d/a.py"}, {}, 1) == (work.blocked, work.failed, work.deleted)
    asked = len(cycle.gets())
    assert {"d/a.py"} == cycle.apply(blocked=["d/a.py"]).blocked
    assert asked == len(cycle.gets())
    (folder / "d").unlink()
    assert 1 == cycle.apply(blocked=["d/a.py"]).published


def test_a_path_that_the_file_system_refuses_fails_alone(cycle: Cycle, folder: Path) -> None:
    name = "x" * 256
    cycle.s3.put(f"dags/{name}", b"a")
    cycle.s3.put("dags/b.py", b"b")

    work = cycle.apply()

    assert {"b.py": b"b"} == tree(folder)
    assert ["target_failed"] == [failed.reason for failed in work.failed.values()]
    assert f"cannot write '{name}'" in work.failed[name].message
    assert [] == staged(folder)


# --- the proof


def test_what_is_altered_on_the_way_is_not_published(cycle: Cycle, folder: Path) -> None:
    cycle.s3.put("dags/a.py", b"good")
    bodies = iter([b"bad1", b"bad2"])
    cycle.s3.inject(replace_body(lambda _: next(bodies)), is_get())

    work = cycle.apply()

    assert {} == tree(folder)
    assert "object_corrupt" == work.failed["a.py"].reason
    assert "two downloads differ" in work.failed["a.py"].message


def test_what_was_altered_once_is_loaded_again(cycle: Cycle, folder: Path, log: Log) -> None:
    cycle.s3.put("dags/a.py", b"good")
    cycle.s3.inject(replace_body(flip_first_bit), is_get(), times=1)

    work = cycle.apply()

    assert {"a.py": b"good"} == tree(folder)
    assert (1, 8) == (work.published, work.downloaded_bytes)
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


def test_a_store_that_has_real_md5s_is_asked_twice_each_time(
    cycle: Cycle, folder: Path, log: Log
) -> None:
    cycle.s3.put("dags/a.py", b"a")
    cycle.apply()
    assert cycle.has_md5_etags
    for name in ("b", "c"):
        cycle.s3.put(f"dags/{name}.py", b"x", etag=name * 32)
        cycle.apply(publish=[f"{name}.py"])

    assert ["a.py", "b.py", "b.py", "c.py", "c.py"] == cycle.gets()
    assert 3 == len(tree(folder))
    assert cycle.has_md5_etags


def test_an_empty_object_proves_nothing_of_a_store(cycle: Cycle) -> None:
    """
    Gateways that invent ETags know the MD5 of nothing.
    """
    cycle.s3.put("dags/a.py", b"", etag=hashlib.md5(b"").hexdigest())

    cycle.apply()

    assert cycle.has_md5_etags is None


# --- when it ends


def test_a_streak_of_failures_is_the_endpoints(cycle: Cycle) -> None:
    for number in range(40):
        cycle.s3.put(f"dags/{number:02}.py", b"x")
    cycle.s3.inject(reset(), is_get())

    with pytest.raises(WireError) as caught:
        cycle.apply()

    assert "connection_lost" == caught.value.reason
    assert FAILURE_STREAK <= len(cycle.work.failed) < FAILURE_STREAK + CONNECTIONS
    assert cycle.work.published == 0


def test_fewer_failures_than_a_streak_end_nothing(cycle: Cycle, folder: Path) -> None:
    for number in range(20):
        cycle.s3.put(f"dags/{number:02}.py", b"x")
    for number in range(FAILURE_STREAK - 1):
        cycle.s3.inject(error(500, "InternalError"), is_get(f"dags/{number:02}.py"))

    work = cycle.apply()

    assert FAILURE_STREAK - 1 == len(work.failed)
    assert 20 - len(work.failed) == len(tree(folder))


def test_a_success_between_ends_a_streak() -> None:
    work = Work()
    lost = WireError("connection_lost", "x")

    for number in range(3 * FAILURE_STREAK):
        work.fail(f"{number}", lost)
        if number % 5 == 4:
            work.succeed(is_published=True, is_healed=False)

    assert 3 * FAILURE_STREAK == len(work.failed)


@pytest.mark.parametrize("has_success", [True, False])
def test_a_start_without_any_success_is_given_up(has_success: bool) -> None:
    work = Work()
    denied: SidecarError = ObjectError("access_denied", "x")
    if has_success:
        work.succeed(is_published=False, is_healed=False)

    for number in range(HOPELESS_START - 1):
        work.fail(f"{number}", denied)

    if has_success:
        work.fail("last", denied)
    else:
        with pytest.raises(ObjectError):
            work.fail("last", denied)


def test_a_failure_of_the_source_ends_it_at_once(cycle: Cycle) -> None:
    for number in range(40):
        cycle.s3.put(f"dags/{number:02}.py", b"x")
    cycle.s3.inject(error(404, "NoSuchBucket"), is_get())

    with pytest.raises(SourceError) as caught:
        cycle.apply(delete=["x"])

    assert "bucket_not_found" == caught.value.reason
    assert len(cycle.gets()) <= CONNECTIONS
    assert {} == cycle.work.failed


def test_a_revoked_fence_ends_it_and_nothing_shows(cycle: Cycle, folder: Path) -> None:
    cycle.s3.put("dags/a.py", b"a")
    cycle.s3.inject(first(cycle.fence.revoke), is_get())

    with pytest.raises(CycleAbandoned):
        cycle.apply(delete=["x"])

    assert {} == tree(folder)
    assert [] == staged(folder)


def test_a_cancelled_download_leaves_no_staging_file(
    cycle: Cycle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "MEMORY_BYTES", 4)
    cycle.s3.put("dags/a.py", b"0123456789")
    cycle.s3.inject(hang(after=8), is_get())
    entries = cycle.listed()

    async def scene(client: S3Client) -> None:
        plan = Plan(tuple(entries.items()), ())
        order = Order(Listing(entries, {}, "r1"), plan, cycle.target, cycle.fence)
        task = asyncio.create_task(Applier(client, order).apply())
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
    work = Work(published=1, deleted=2, healed=3, blocked={"a"}, failed={"b": failure})

    work.add(Work(published=10, deleted=20, healed=30, blocked={"c"}, failed={"d": failure}))

    assert (11, 22, 33) == (work.published, work.deleted, work.healed)
    assert ({"a", "c"}, {"b", "d"}) == (work.blocked, set(work.failed))


def test_what_was_got_for_others_to_publish_is_not_counted_as_published() -> None:
    failure = SidecarError("x", "y")
    work = Work(published=1, moved=["a"], downloaded_bytes=5)

    work.take_over(
        Work(
            published=10,
            adopted=10,
            deleted=10,
            healed=10,
            downloaded_bytes=7,
            moved=["b"],
            blocked={"c"},
            failed={"d": failure},
        )
    )

    assert (
        Work(
            published=1, downloaded_bytes=12, moved=["a", "b"], blocked={"c"}, failed={"d": failure}
        )
        == work
    )


# --- a full volume


class FullTarget(Target):
    """
    A target on a volume with room for one more file after each deletion.
    """

    room = 0

    def publish(self, path: str, entry: Entry, download: Download, *rest: Any) -> bool:
        if self.room < 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= 1
        return super().publish(path, entry, download, *rest)

    def delete(self, path: str, fence: Fence) -> bool:
        self.room += 1
        return super().delete(path, fence)


@pytest.fixture
def full(s3: FakeS3, volume: Volume, fence: Fence) -> Iterator[Cycle]:
    """
    A cycle on a volume that has just become full, with an old file on it.
    """
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

    work = full.apply(delete=["old.py"])

    assert {"new.py": b"new"} == tree(folder)
    assert (1, 1) == (work.published, work.deleted)
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
