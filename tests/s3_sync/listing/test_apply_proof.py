"""Whether an ETag must match the downloaded bytes, and what happens if it does not."""

import hashlib
from pathlib import Path

import pytest

from s3_sync.listing.trust import EtagTrust
from tests.runtime.recording import Log
from tests.s3_sync.listing.applying import Cycle, tree
from tests.support.aws.fake_s3 import is_get
from tests.support.http.faults import flip_first_bit, replace_body


def test_an_object_altered_in_transit_is_not_published(cycle: Cycle, folder: Path) -> None:
    cycle.s3.put("dags/a.py", b"good")
    bodies = iter([b"bad1", b"bad2"])
    cycle.s3.inject(replace_body(lambda _: next(bodies)), is_get())

    result = cycle.apply()

    assert {} == tree(folder)
    assert "object_corrupt" == result.failed["a.py"].reason
    assert "two downloads differ" in result.failed["a.py"].message


def test_an_object_altered_once_is_downloaded_again(cycle: Cycle, folder: Path, log: Log) -> None:
    cycle.s3.put("dags/a.py", b"good")
    cycle.s3.inject(replace_body(flip_first_bit), is_get(), times=1)

    result = cycle.apply()

    assert {"a.py": b"good"} == tree(folder)
    assert (1, 8) == (result.published, result.downloaded_bytes)
    assert [] == log.events("etag_not_md5")


def test_only_the_first_fake_md5_costs_a_second_download(
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


def test_contradicting_objects_wait_until_another_proves_etags(cycle: Cycle, folder: Path) -> None:
    """The proof may be a single object that arrives last."""
    cycle.s3.put_each((f"dags/{number:02}.py" for number in range(40)), b"x", etag="a" * 32)
    cycle.s3.put("dags/z.py", b"z")

    result = cycle.apply()

    assert {"z.py": b"z"} == tree(folder)
    assert {"object_corrupt"} == {error.reason for error in result.failed.values()}


def test_a_verified_file_on_disk_proves_that_etags_are_md5(cycle: Cycle, folder: Path) -> None:
    """A new process has not downloaded anything yet."""
    cycle.s3.put("dags/a.py", b"a")
    cycle.apply()
    cycle.trust = EtagTrust("auto", is_aws=False)
    cycle.s3.put("dags/b.py", b"b", etag="b" * 32)

    assert ["b.py"] == list(cycle.apply(publish=["b.py"]).failed)


def test_an_unverified_file_on_disk_proves_nothing(cycle: Cycle, folder: Path) -> None:
    cycle.s3.put("dags/a.py", b"a", etag="a" * 32)
    cycle.apply()
    cycle.trust = EtagTrust("auto", is_aws=False)
    cycle.s3.put("dags/b.py", b"b", etag="b" * 32)
    cycle.apply(publish=["b.py"])

    assert {"a.py": b"a", "b.py": b"b"} == tree(folder)
    assert {"a.py", "b.py"} == cycle.target.managed.unverified


def test_unverified_files_become_suspects_once_etags_are_proven(cycle: Cycle) -> None:
    cycle.s3.put("dags/a.py", b"a", etag="a" * 32)
    cycle.apply()
    assert () == cycle.trust.suspects()
    cycle.s3.put("dags/b.py", b"b")
    cycle.apply(publish=["b.py"])
    assert {"a.py"} == cycle.trust.suspects()
    cycle.s3.put("dags/a.py", b"a")

    cycle.apply(publish=["a.py"])

    assert set() == cycle.trust.suspects()


@pytest.mark.parametrize("verify", ["auto", "strict"])
def test_only_strict_doubts_the_files_of_an_earlier_process_on_aws(
    cycle: Cycle, verify: str
) -> None:
    """There, no other setting has published a contradiction, so they are encrypted."""
    cycle.s3.put("dags/a.py", b"a", etag="a" * 32)
    cycle.s3.put("dags/b.py", b"b", etag="b" * 32 + "-2")
    cycle.apply()
    cycle.trust = EtagTrust(verify, is_aws=True)
    cycle.trust.recall(cycle.target)

    assert ({"a.py"} if verify == "strict" else set()) == cycle.trust.suspects()


@pytest.mark.parametrize("verify", ["strict", "lenient"])
def test_the_setting_decides_if_nothing_proves_etags(
    cycle: Cycle, folder: Path, verify: str
) -> None:
    cycle.trust = EtagTrust(verify, is_aws=False)
    cycle.s3.put("dags/a.py", b"a", etag="a" * 32)

    result = cycle.apply()

    assert (verify == "strict") == ("a.py" in result.failed)
    assert ["a.py"] == cycle.gets()
    assert (verify == "lenient") == ("a.py" in cycle.target.managed.unverified)


def test_aws_etags_need_no_proof(cycle: Cycle) -> None:
    cycle.trust = EtagTrust("auto", is_aws=True)
    cycle.s3.put("dags/a.py", b"a", etag="a" * 32)

    assert ["a.py"] == list(cycle.apply().failed)


def test_an_empty_object_proves_nothing_about_etags(cycle: Cycle) -> None:
    """Even gateways that invent ETags use the MD5 of empty content."""
    cycle.s3.put("dags/a.py", b"", etag=hashlib.md5(b"").hexdigest())

    cycle.apply()

    assert cycle.trust.is_open
