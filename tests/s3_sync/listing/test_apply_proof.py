"""What must agree with the bytes of an object, and when they contradict."""

import hashlib
from pathlib import Path

import pytest

from s3_sync.listing.trust import Trust
from tests.runtime.recording import Log
from tests.s3_sync.listing.applying import Cycle, tree
from tests.support.fake_s3 import is_get
from tests.support.faults import flip_first_bit, replace_body


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
    cycle.s3.put_each((f"dags/{number:02}.py" for number in range(40)), b"x", etag="a" * 32)
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
