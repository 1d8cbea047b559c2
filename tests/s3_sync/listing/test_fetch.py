"""Fetching the objects of a listing, also those that fail."""

import asyncio
import time
from pathlib import Path

import pytest

from s3_sync.listing import CONNECTIONS, FAILURE_STREAK
from s3_sync.plan import State
from s3_sync.s3.client import S3Client
from s3_sync.s3.refusals import SourceError
from s3_sync.s3.wire import WireError
from tests.s3_sync.folder.handling import staged
from tests.s3_sync.given import play
from tests.s3_sync.listing.fetching import Fetching, reasons, tree
from tests.support.aws.fake_s3 import error, is_get
from tests.support.http.faults import drip, flip_first_bit, hang, replace_body, reset
from tests.support.raising import raised
from tests.support.waiting import wait_until

# --- success


# --- objects that fail


@pytest.mark.parametrize("how", ["vanished", "changed", "changed, If-Match ignored"])
def test_an_object_changed_meanwhile_fails_alone(
    fetching: Fetching, folder: Path, how: str
) -> None:
    fetching.s3.put("dags/a.py", b"one")
    fetching.s3.put("dags/b.py", b"b")
    listed = fetching.listed()
    if how == "vanished":
        fetching.s3.delete("dags/a.py")
    else:
        fetching.s3.put("dags/a.py", b"two")
        fetching.s3.honors_if_match = how == "changed"

    assert {"a.py": "object_changing"} == reasons(fetching.fetch(listed=listed))
    assert {"b.py": b"b"} == tree(folder)
    assert [] == staged(folder)


def test_a_blocked_file_is_not_a_failure(fetching: Fetching, folder: Path) -> None:
    fetching.s3.put("dags/d/a.py", b"a")
    (folder / "d").write_bytes(b"foreign")

    work = fetching.fetch()

    assert ({"d/a.py"}, {}) == (work.blocked, work.failed)
    assert [] == staged(folder)
    (folder / "d").unlink()
    assert set() == fetching.fetch().blocked
    assert {"d/a.py": b"a"} == tree(folder)


def test_a_path_that_the_file_system_refuses_fails_alone(fetching: Fetching, folder: Path) -> None:
    name = "x" * 256
    fetching.s3.put(f"dags/{name}", b"a")
    fetching.s3.put("dags/b.py", b"b")

    work = fetching.fetch()

    assert {"b.py": b"b"} == tree(folder)
    assert {name: "target_failed"} == reasons(work)
    assert f"cannot write '{name}'" in work.failed[name].message
    assert [] == staged(folder)


def test_a_slow_object_fails_alone_and_those_not_begun_are_left_for_the_next_cycle(
    fetching: Fetching, folder: Path
) -> None:
    names = [f"{number:02}.py" for number in range(2 * CONNECTIONS)]
    fetching.s3.put_each((f"dags/{name}" for name in names), b"x" * 1_000)
    fetching.s3.inject(drip(1, 0.05), is_get("dags/00.py"))
    fetching.fetch(names[1:CONNECTIONS])

    slow = fetching.fetch(["00.py"], until=time.monotonic() + 1)
    late = fetching.fetch(names[CONNECTIONS:], until=time.monotonic())

    assert {"00.py": "object_slow"} == reasons(slow)
    assert "S3_SYNC_TIMEOUT" in slow.failed["00.py"].advice
    assert (set(names[CONNECTIONS:]), {}) == (late.unreached, late.failed)
    assert set(names[1:CONNECTIONS]) == tree(folder).keys()
    assert [] == staged(folder)


# --- proofs


@pytest.mark.parametrize(
    ("verify", "is_refused"), [("auto", False), ("strict", True), ("lenient", False)]
)
def test_an_etag_must_match_if_the_setting_says_so(
    fetching: Fetching, folder: Path, verify: str, is_refused: bool
) -> None:
    """Outside AWS, what contradicts an ETag is published by default, and counted."""
    fetching.verify = verify
    fetching.s3.put("dags/a.py", b"good")
    fetching.s3.inject(replace_body(flip_first_bit), is_get())

    work = fetching.fetch()

    assert ({"a.py": "object_corrupt"} if is_refused else {}) == reasons(work)
    assert is_refused or not fetching.folder.files["a.py"].is_verified
    assert [] == staged(folder)


def test_etags_of_aws_must_match(
    fetching: Fetching, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(S3Client, "is_aws", True)
    fetching.s3.put("dags/a.py", b"a", etag="a" * 32)

    assert {"a.py": "object_corrupt"} == reasons(fetching.fetch())
    assert {} == tree(folder)


# --- failures that end the cycle


def test_a_streak_of_failures_counts_as_an_endpoint_failure(fetching: Fetching) -> None:
    fetching.s3.put_each((f"dags/{number:02}.py" for number in range(40)), b"x")
    fetching.s3.inject(reset(), is_get())

    found = raised(WireError, fetching.fetch)

    assert "connection_lost" == found.reason
    assert FAILURE_STREAK <= len(fetching.work.failed) < FAILURE_STREAK + CONNECTIONS
    assert {} == fetching.folder.files


def test_a_success_ends_a_streak_and_refused_objects_form_none(
    fetching: Fetching, folder: Path
) -> None:
    fetching.s3.put_each((f"dags/{number:03}.py" for number in range(200)), b"x")
    fetching.s3.inject(error(403, "AccessDenied"), is_get())

    assert 200 == len(fetching.fetch().failed)


def test_files_that_failed_before_do_not_end_the_cycle(fetching: Fetching) -> None:
    names = [f"{number:02}.py" for number in range(3 * CONNECTIONS)]
    fetching.s3.put_each((f"dags/{name}" for name in names), b"x")
    fetching.s3.inject(error(500, "InternalError"), is_get())
    before = {name: WireError("request_timeout", name) for name in names}

    work = fetching.fetch(before=before)
    late = fetching.fetch(before=before, until=time.monotonic())

    assert dict.fromkeys(names, "server_error") == reasons(work)
    assert (dict.fromkeys(names, "request_timeout"), set()) == (reasons(late), late.unreached)


def test_a_failure_of_the_source_ends_the_cycle_immediately(fetching: Fetching) -> None:
    fetching.s3.put_each((f"dags/{number:02}.py" for number in range(40)), b"x")
    fetching.s3.inject(error(404, "NoSuchBucket"), is_get())

    found = raised(SourceError, fetching.fetch)

    assert "bucket_not_found" == found.reason
    assert len(fetching.gets()) <= CONNECTIONS
    assert {} == fetching.work.failed


def test_a_canceled_download_leaves_no_staging_file(fetching: Fetching, folder: Path) -> None:
    fetching.s3.put("dags/a.py", b"x" * 2_000_000)
    fetching.s3.inject(hang(after=1_500_000), is_get())
    files = fetching.listed()

    async def scene(client: S3Client) -> None:
        fetch = fetching.source(client).fetch(list(files), State("r", files), fetching.work, {})
        task = asyncio.create_task(fetch)
        await asyncio.to_thread(wait_until, lambda: staged(folder), "the download is under way")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    play(fetching.s3, scene)
    fetching.s3.release()

    assert [] == staged(folder)
    assert {} == tree(folder)
