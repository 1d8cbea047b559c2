"""Whole cycles in the snapshot layout: downloads and deletions."""

import pytest

from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import error, is_get
from tests.support.s3_sync.snapshots import (
    SETTINGS,
    A,
    B,
    SwappingS3,
    bucket_of_a,
    current,
    facts,
    shown,
    snapshot_leftovers,
    snapshots,
)

__all__ = ["bucket_of_a"]


def downloads(s3: SwappingS3) -> list[str]:
    """Return the paths of the GETs since the last call."""
    paths = [request.path.partition("/dags/")[2] for request in s3.seen(is_get())]
    s3.forget()
    return paths


def test_downloads_only_changed_files_and_touches_no_others(
    s3: SwappingS3, process: Process
) -> None:
    many = {f"pkg{number % 7}/file{number}.py": b"# %d" % number for number in range(400)}
    s3.swap(many)
    process.run(SETTINGS)
    before = facts(process.folder)
    downloads(s3)
    changed = many | {"pkg3/file3.py": b"# changed", "pkg9/new.py": b"# new"}
    del changed["pkg4/file4.py"]
    s3.swap(changed)

    counts = process.cycle().counts

    assert ["pkg3/file3.py", "pkg9/new.py"] == sorted(downloads(s3))
    assert (2, 1) == (counts["files_published"], counts["files_deleted"])
    assert changed == shown(process.folder)
    after = facts(process.folder)
    same = many.keys() - {"pkg3/file3.py", "pkg4/file4.py"}
    assert {path: before[path] for path in same} == {path: after[path] for path in same}
    assert before["pkg3/file3.py"][0] != after["pkg3/file3.py"][0]
    assert [] == snapshot_leftovers(process.folder)


def test_retain_count_limits_the_old_snapshots(s3: SwappingS3, process: Process) -> None:
    retain = {"S3_SYNC_RETAIN_COUNT": "2", "S3_SYNC_RETAIN_FOR": "0", "S3_SYNC_FSYNC": "true"}
    process.run(SETTINGS | retain)
    target = process.folder
    published = [current(target)]
    for number in range(6):
        s3.swap(A | {"a.py": b"%d" % number})
        process.cycle()
        published.append(current(target))
        process.cycle()
        assert set(published[-3:]) == snapshots(target)
    process.restart(SETTINGS | retain)
    process.cycle()

    assert set(published[-3:]) == snapshots(target)
    assert [] == snapshot_leftovers(target)


def test_an_unreadable_object_holds_back_only_itself(s3: SwappingS3, process: Process) -> None:
    process.run(SETTINGS)
    s3.inject(error(403, "AccessDenied"), is_get("dags/pkg/c.py"))
    s3.swap(B)
    process.cycle()
    assert A == shown(process.folder)  # the whole source may be failing
    for _ in range(5):
        ended = process.cycle()
        assert "partial" == ended.result
        assert ended.problem and "access_denied_get" == ended.problem.reason
        assert B | {"pkg/c.py": A["pkg/c.py"]} == shown(process.folder)  # the old version
        assert process.is_ready
        assert current(process.folder).startswith("partial-")
    s3.heal()
    process.cycle(is_asked_for=True)

    assert B == shown(process.folder)
    assert [] == snapshot_leftovers(process.folder)


@pytest.mark.parametrize("delete", ["none", "all"])
def test_deletes_what_the_setting_allows(delete: str, s3: SwappingS3, process: Process) -> None:
    settings = {**SETTINGS, "S3_SYNC_DELETE": delete}
    process.run(settings)
    target = process.folder
    (target / "current/foreign.txt").write_bytes(b"theirs")
    (target / "current/__pycache__").mkdir()
    (target / "current/__pycache__/a.pyc").write_bytes(b"bytecode")
    process.cycle()
    theirs = {} if delete == "all" else {"foreign.txt": b"theirs"}

    assert A | theirs | {"__pycache__/a.pyc": b"bytecode"} == shown(target)
    s3.swap(B)
    process.cycle()
    kept = {"only/in_a.py": A["only/in_a.py"]} if delete == "none" else {}
    assert B | kept == shown(target)
    process.restart(settings)
    process.cycle()
    assert B | kept == shown(target)


def test_allow_empty_publishes_an_empty_snapshot(s3: SwappingS3, process: Process) -> None:
    process.run({**SETTINGS, "S3_SYNC_ALLOW_EMPTY": "true"})
    s3.swap({})
    process.cycle()
    assert {} == shown(process.folder)
    s3.swap(A)
    process.cycle()
    assert A == shown(process.folder)
