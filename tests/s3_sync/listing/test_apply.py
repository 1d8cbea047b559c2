"""Applying a plan, also with objects that fail."""

import asyncio
import os
from pathlib import Path

import pytest

from s3_sync.listing.apply import CONNECTIONS, ListingApplier
from s3_sync.listing.entries import Listing
from s3_sync.plan import Plan
from s3_sync.result import FAILURE_STREAK, CycleResult
from s3_sync.s3.client import S3Client
from s3_sync.s3.refusals import SourceError
from s3_sync.s3.wire import WireError
from s3_sync.source import Order
from s3_sync.tree.download import MEMORY_BYTES
from sidecar_runtime.fence import CycleAbandoned
from tests.s3_sync.given import play
from tests.s3_sync.listing.applying import Cycle, tree
from tests.s3_sync.tree.handling import staged
from tests.support.aws.fake_s3 import error, is_get
from tests.support.http.faults import first, hang, reset
from tests.support.raising import raised
from tests.support.waiting import wait_until


def publish_and_remove(cycle: Cycle, path: str) -> None:
    """Publish one file, and then remove it from the bucket: the next plan may delete it."""
    cycle.s3.put(f"dags/{path}", b"x")
    cycle.apply()
    cycle.s3.delete(f"dags/{path}")


# --- success


def test_publishes_and_then_deletes(cycle: Cycle, folder: Path) -> None:
    publish_and_remove(cycle, "old.py")
    cycle.s3.put("dags/a.py", b"a")
    cycle.s3.put("dags/d/b.py", b"bb")

    result = cycle.apply(delete=["old.py"])

    assert {"a.py": b"a", "d/b.py": b"bb"} == tree(folder)
    assert (2, 1, 0) == (result.published, result.deleted, result.adopted)
    assert 3 == result.downloaded_bytes
    assert {"a.py", "d/b.py"} == cycle.target.managed.files.keys()


def test_an_empty_plan_sends_no_request(cycle: Cycle) -> None:
    assert CycleResult() == cycle.apply(publish=[])
    assert [] == cycle.gets()


def test_a_few_connections_download_in_the_order_of_the_plan(cycle: Cycle, folder: Path) -> None:
    for number in range(60):
        cycle.s3.put(f"dags/{number:02}.py", b"x" * number)

    cycle.apply(publish=[f"{number:02}.py" for number in reversed(range(60))])

    assert 60 == len(tree(folder))
    by_connection: dict[int, list[str]] = {}
    for request in cycle.s3.seen(is_get()):
        by_connection.setdefault(request.connection, []).append(request.path)
    assert len(by_connection) <= CONNECTIONS
    for paths in by_connection.values():  # a slow connection may start late
        assert sorted(paths, reverse=True) == paths


@pytest.mark.parametrize("is_damaged", [True, False])
def test_does_not_download_files_that_exist(cycle: Cycle, folder: Path, is_damaged: bool) -> None:
    cycle.s3.put("dags/a.py", b"same")
    (folder / "a.py").write_bytes(b"same")
    os.chmod(folder / "a.py", 0o644)

    result = cycle.apply(damaged=["a.py"] if is_damaged else [])

    assert (0, 1, int(is_damaged)) == (result.published, result.adopted, result.healed)
    assert [] == cycle.gets()
    assert ["a.py"] == list(cycle.target.managed.files)


def test_inspects_no_files_in_an_empty_folder(
    cycle: Cycle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the folder is not empty, an existing file is inspected and adopted."""
    looks: list[str] = []
    holds = cycle.target.holds
    monkeypatch.setattr(
        cycle.target, "holds", lambda path, content: looks.append(path) or holds(path, content)
    )
    cycle.s3.put("dags/a.py", b"same")

    assert 1 == cycle.apply().published
    assert [] == looks

    cycle.s3.put("dags/b.py", b"same")
    (folder / "b.py").write_bytes(b"same")
    os.chmod(folder / "b.py", 0o644)
    assert 1 == cycle.apply(publish=["b.py"]).adopted
    assert ["b.py"] == looks


def test_an_etag_that_is_not_an_md5_requires_a_download(cycle: Cycle, folder: Path) -> None:
    cycle.s3.put("dags/a.py", b"same", etag="0123-2")
    (folder / "a.py").write_bytes(b"same")
    os.chmod(folder / "a.py", 0o644)
    inode = (folder / "a.py").stat().st_ino

    result = cycle.apply()

    assert ["a.py"] == cycle.gets()
    assert (0, 1, 4) == (result.published, result.adopted, result.downloaded_bytes)
    assert inode == (folder / "a.py").stat().st_ino


# --- objects that fail


@pytest.mark.parametrize("how", ["vanished", "changed", "changed, If-Match ignored"])
def test_an_object_changed_meanwhile_fails_alone(cycle: Cycle, folder: Path, how: str) -> None:
    publish_and_remove(cycle, "old.py")
    cycle.s3.put("dags/a.py", b"one")
    cycle.s3.put("dags/b.py", b"b")
    wanted = cycle.listed()
    if how == "vanished":
        cycle.s3.delete("dags/a.py")
    else:
        cycle.s3.put("dags/a.py", b"two")
        cycle.s3.honors_if_match = how == "changed"

    result = cycle.apply(wanted=wanted, delete=["old.py"])

    assert {"a.py": "object_changing"} == {path: e.reason for path, e in result.failed.items()}
    assert {"b.py": b"b"} == tree(folder)
    assert [] == staged(folder)


def test_a_blocked_file_is_not_a_failure_and_is_downloaded_once(cycle: Cycle, folder: Path) -> None:
    publish_and_remove(cycle, "old.py")
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


# --- failures that end the cycle


def test_a_streak_of_failures_counts_as_an_endpoint_failure(cycle: Cycle) -> None:
    cycle.s3.put_each((f"dags/{number:02}.py" for number in range(40)), b"x")
    cycle.s3.inject(reset(), is_get())

    found = raised(WireError, cycle.apply)

    assert "connection_lost" == found.reason
    assert FAILURE_STREAK <= len(cycle.result.failed) < FAILURE_STREAK + CONNECTIONS
    assert cycle.result.published == 0


def test_files_that_failed_before_do_not_end_the_cycle(cycle: Cycle, folder: Path) -> None:
    """Retrying all of them could take the whole cycle, so only some are tried."""
    names = [f"{number:02}.py" for number in range(3 * CONNECTIONS)]
    cycle.s3.put_each((f"dags/{name}" for name in names), b"x")
    cycle.s3.inject(error(500, "InternalError"), is_get())
    before = {name: WireError("request_timeout", name) for name in names}

    result = cycle.apply(before=before)

    assert set(names) == result.failed.keys()
    assert FAILURE_STREAK <= len(set(cycle.gets())) < FAILURE_STREAK + CONNECTIONS
    assert {"server_error", "request_timeout"} == {one.reason for one in result.failed.values()}


def test_fewer_failures_than_a_streak_do_not_end_the_cycle(cycle: Cycle, folder: Path) -> None:
    cycle.s3.put_each((f"dags/{number:02}.py" for number in range(20)), b"x")
    for number in range(FAILURE_STREAK - 1):
        cycle.s3.inject(error(500, "InternalError"), is_get(f"dags/{number:02}.py"))

    result = cycle.apply()

    assert FAILURE_STREAK - 1 == len(result.failed)
    assert 20 - len(result.failed) == len(tree(folder))


def test_a_failure_of_the_source_ends_the_cycle_immediately(cycle: Cycle, folder: Path) -> None:
    publish_and_remove(cycle, "old.py")
    cycle.s3.put_each((f"dags/{number:02}.py" for number in range(40)), b"x")
    cycle.s3.inject(error(404, "NoSuchBucket"), is_get())

    found = raised(SourceError, cycle.apply, delete=["old.py"])

    assert "bucket_not_found" == found.reason
    assert len(cycle.gets()) <= 1 + CONNECTIONS
    assert {} == cycle.result.failed
    assert {"old.py": b"x"} == tree(folder)


def test_a_revoked_fence_publishes_nothing(cycle: Cycle, folder: Path) -> None:
    publish_and_remove(cycle, "old.py")
    cycle.s3.put("dags/a.py", b"a")
    cycle.s3.inject(first(cycle.fence.revoke), is_get())

    with pytest.raises(CycleAbandoned):
        cycle.apply(delete=["old.py"])

    assert {"old.py": b"x"} == tree(folder)
    assert [] == staged(folder)


def test_a_canceled_download_leaves_no_staging_file(cycle: Cycle, folder: Path) -> None:
    cycle.s3.put("dags/a.py", b"x" * (2 * MEMORY_BYTES))
    cycle.s3.inject(hang(after=MEMORY_BYTES + MEMORY_BYTES // 2), is_get())
    entries = cycle.listed()

    async def scene(client: S3Client) -> None:
        plan = Plan(tuple(entries), ())
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
