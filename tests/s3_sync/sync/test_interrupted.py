"""In place, files are replaced one by one: an interrupted change is partial."""

import errno
import json
import os
from collections.abc import Mapping
from typing import Any

import pytest

from s3_sync.folder.folder import Folder
from s3_sync.folder.record import NAME, Published, Record
from s3_sync.folder.volume import Volume
from sidecar_runtime.fence import Fence
from tests.s3_sync.failing import Killed
from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import FakeS3, error, is_get
from tests.support.http.loopback import Match, Request

FILES = 40
READ = 12


def put(s3: FakeS3, version: int, files: int = FILES) -> None:
    s3.put_each((f"{number:02}.py" for number in range(files)), b"v = %d\n" % version)


def record(process: Process) -> dict[str, object]:
    found: dict[str, object] = json.loads((process.folder / ".s3-sync" / NAME).read_text())
    return found


def new_files(process: Process) -> int:
    return sum(content == b"v = 2\n" for content in process.shown.values())


@pytest.fixture
def one(s3: FakeS3, process: Process) -> Process:
    """A sidecar that has published version 1 while the bucket contains version 2."""
    put(s3, 1)
    process.run({})
    put(s3, 2)
    return process


def after(count: int, match: Match) -> Match:
    """Return a match that skips the first `count` matching requests."""
    left = [count]

    def is_later(request: Request) -> bool:
        left[0] -= match(request)
        return match(request) and left[0] < 0

    return is_later


def interrupt(s3: FakeS3, process: Process) -> None:
    """Run a cycle in which S3 fails after some objects."""
    s3.inject(error(500, "InternalError"), after(READ, is_get()))
    process.fail()


def test_a_change_interrupted_by_s3_is_partial_and_reported(s3: FakeS3, one: Process) -> None:
    interrupt(s3, one)

    missing = FILES - new_files(one)
    for _ in range(2):
        assert 0 < missing < FILES
        assert (True, "") == (one.is_ready, one.revision)
        assert f"{missing} files are missing or out of date" in one.readiness.shortfall
        assert 1 == one.metric("s3_sync_partial")
        assert ("", missing) == (record(one)["revision"], record(one)["missing"])
        one.restart({})
        s3.inject(error(500, "InternalError"))  # now listing fails, too
        one.fail()


def test_the_completing_cycle_reports_the_whole_change(s3: FakeS3, one: Process) -> None:
    interrupt(s3, one)
    s3.heal()
    s3.put("new.py", b"")
    s3.delete("00.py")

    one.cycle()

    assert (FILES, "") == (len(one.shown), one.readiness.shortfall)
    change = one.details["last_change"]
    assert isinstance(change, dict)
    assert ["1", str(FILES - 1), "1"] == [
        change[kind].partition(":")[0] for kind in ("added", "changed", "deleted")
    ]


def test_a_killed_process_leaves_a_partial_state(
    one: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(one, monkeypatch)
    one.restart({})

    one.fail()

    assert READ == new_files(one)
    assert (True, "") == (one.is_ready, one.revision)
    assert one.readiness.shortfall


def kill(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill a cycle after some files; S3 fails from then on."""
    put_file, left = Folder.put, [READ]

    def killed(*given: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        put_file(*given)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "put", killed)
        patch.setattr(Folder, "end_cycle", killed)  # nor can it record the end of the cycle
        with pytest.raises(Killed):
            process.cycle()
    process.s3.inject(error(500, "InternalError"))


def test_another_layout_stays_until_the_new_one_is_complete(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first publish in place is killed, and the settings return to snapshots."""
    snapshot = {"S3_SYNC_LAYOUT": "snapshot"}
    put(process.s3, 1)
    process.run(snapshot)
    before = process.revision
    process.restart({})
    kill(process, monkeypatch)
    process.restart({})
    process.fail()
    assert not process.is_ready

    process.restart(snapshot)
    process.fail()

    assert (True, before) == (process.is_ready, process.revision)


def test_half_a_publish_is_never_reported_as_the_earlier_source(
    s3: FakeS3, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings return to the source that was recorded last; its files are gone."""
    old, new = ({"KEY_PATH": path} for path in ("old", "new"))
    for version, path in enumerate(["old", "new"], 1):
        keys = (f"{path}/{number:02}.py" for number in range(FILES))
        s3.put_each(keys, b"v = %d\n" % version)
    process.run(old)
    process.restart(new)
    kill(process, monkeypatch)

    for settings in (new, old):
        process.restart(settings)
        process.fail()
        assert READ == new_files(process)
        assert not process.is_ready
    s3.heal()
    process.cycle()
    assert process.is_ready and 0 == new_files(process)


@pytest.mark.parametrize("layout", [{}, {"S3_SYNC_LAYOUT": "snapshot"}])
def test_a_publish_that_cannot_be_recorded_is_not_reported_as_the_revision_before(
    s3: FakeS3, process: Process, monkeypatch: pytest.MonkeyPatch, layout: dict[str, str]
) -> None:
    put(s3, 1, files=1)
    process.run(layout)
    before = process.revision
    put(s3, 2, files=1)
    write = Volume.write_state

    def full(volume: Volume, name: str, content: bytes, fence: Fence) -> None:
        if name == NAME:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(volume, name, content, fence)

    with monkeypatch.context() as patch:
        patch.setattr(Volume, "write_state", full)
        for _ in range(2):
            assert "target_full" == process.fail().reason
            assert 1 == new_files(process)
            assert (True, "") == (process.is_ready, process.readiness.shortfall)
            assert before != process.revision
    said = process.revision
    process.cycle()

    assert said == process.revision == record(process)["revision"]


def test_keeps_the_revision_when_no_file_was_replaced(s3: FakeS3, one: Process) -> None:
    before, revision = record(one), one.revision
    s3.inject(error(500, "InternalError"), is_get())

    one.fail()

    assert (before, revision, "") == (record(one), one.revision, one.readiness.shortfall)


def test_a_change_of_one_file_is_never_recorded_as_partial(
    s3: FakeS3, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, 1)
    process.run({})
    names: list[str] = []
    write = Record.write

    def noted(
        one: Record, volume: Volume, fence: Fence, said: Published, changes: Mapping[str, int]
    ) -> None:
        names.append(said.name)
        write(one, volume, fence, said, changes)

    monkeypatch.setattr(Record, "write", noted)
    put(s3, 2, files=1)
    process.cycle()
    assert [process.revision] == names

    put(s3, 2, files=2)
    s3.put("new.py", b"")
    process.cycle()
    assert ["partial-unfinished", process.revision] == names[1:]
