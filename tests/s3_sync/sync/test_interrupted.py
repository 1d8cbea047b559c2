"""In place, files are replaced one by one: an interrupted change is partial."""

import errno
import json
import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from s3_sync.listing.source import ListingSource
from s3_sync.tree.published import NAME, Published
from s3_sync.tree.target import Target
from s3_sync.tree.volume import Volume
from sidecar_runtime.fence import Fence
from tests.s3_sync.failing import Killed
from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import FakeS3, error, is_get
from tests.support.http.loopback import Match, Request
from tests.support.s3_sync.shelf import RELEASE, Shelf
from tests.support.scripts import script

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
    publish, left = Target.publish, [READ]

    def killed(*given: object) -> bool:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return publish(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Target, "publish", killed)
        patch.setattr(Target, "end_cycle", killed)  # nor can it record the end of the cycle
        with pytest.raises(Killed):
            one.cycle()
    one.stop()
    one.start({})
    one.s3.inject(error(500, "InternalError"))

    one.fail()

    assert READ == new_files(one)
    assert (True, "") == (one.is_ready, one.revision)
    assert one.readiness.shortfall


GATE = {"S3_SYNC_GATE": "syntax"}


def kill_a_publish(process: Process, monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    """Kill a gated publish of version 2 after this many renames; S3 fails from then on."""
    put(process.s3, 1)
    process.run(GATE)
    put(process.s3, 2)
    kill_in_the_renames(process, monkeypatch, taken)


def kill_in_the_renames(process: Process, monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    take, left = Target.take, [taken]

    def killed(*given: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        take(*given)  # type: ignore[arg-type]

    def killed_at_the_end(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Target, "take", killed)
        patch.setattr(Published, "record", killed_at_the_end)
        with pytest.raises(Killed):
            process.cycle()
    process.s3.inject(error(500, "InternalError"))


@pytest.mark.parametrize("taken", [1, READ, FILES])
def test_a_killed_publish_that_a_gate_accepted_is_finished_without_s3_and_has_no_revision(
    s3: FakeS3, process: Process, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    """Only the source can tell which revision the files are."""
    kill_a_publish(process, monkeypatch, taken)
    assert taken == new_files(process)

    for _ in range(2):  # the second process finds everything finished
        process.restart(GATE)
        process.fail()

        assert FILES == new_files(process)
        assert (True, "") == (process.is_ready, process.revision)
        assert "its revision is unknown" in process.readiness.shortfall
        assert "" == record(process)["revision"]
    s3.heal()
    process.cycle()
    assert not (process.folder / ".s3-sync/publishing").exists()
    s3.inject(error(500, "InternalError"))
    process.restart(GATE)
    process.fail()
    assert (True, "") == (process.is_ready, process.readiness.shortfall)
    assert process.revision == record(process)["revision"] != ""


@pytest.mark.parametrize("then", ["refused", "undecided", "interrupted"])
def test_a_publish_that_was_finished_stays_ready_whatever_happens_to_the_next_one(
    s3: FakeS3, process: Process, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, then: str
) -> None:
    """Also after another restart, for a standby, and without the gate."""
    kill_a_publish(process, monkeypatch, READ)
    process.restart(GATE)
    process.fail()
    s3.heal()
    s3.put_each((f"{number:02}.py" for number in range(FILES)), b"v = (\n")
    gate = GATE
    if then == "refused":
        assert "refused" == process.cycle().result
    elif then == "undecided":
        command = script(tmp_path / "check", "kill -KILL $$")
        gate = {"S3_SYNC_GATE": "command", "S3_SYNC_GATE_COMMAND": command}
        process.restart(gate)
        assert ["gate_undecided"] * 4 == [process.fail().reason for _ in range(4)]
    else:
        interrupt(s3, process)
    s3.inject(error(500, "InternalError"))

    standby = Process(s3, process.folder)
    try:
        assert "waiting" == standby.run(gate).result
        assert (True, "") == (standby.is_ready, standby.revision)
        assert standby.readiness.shortfall
    finally:
        standby.stop()
    for settings in (gate, {}):
        process.restart(settings)
        process.fail()
        assert FILES == new_files(process)
        assert (True, "") == (process.is_ready, process.revision)
        assert process.readiness.shortfall


def test_a_publish_that_was_finished_is_ready_while_s3_is_asked(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_a_publish(process, monkeypatch, READ)
    seen = []
    look = ListingSource.look

    async def watched(source: ListingSource, fence: Fence) -> Any:
        seen.append(process.is_ready)
        return await look(source, fence)

    monkeypatch.setattr(ListingSource, "look", watched)
    process.restart(GATE)
    process.fail()

    assert [True] == seen


@pytest.mark.parametrize("settings", [GATE, {**GATE, "KEY_PATH": "dags", **RELEASE}])
def test_a_process_killed_right_after_its_record_loses_nothing(
    s3: FakeS3, process: Process, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    """Only the mark is left."""
    release = Shelf(s3).publish({"a.py": b"v = 2\n"})
    put(s3, 1)
    if "S3_SYNC_SOURCE" in settings:
        settings = settings | {"S3_SYNC_REVISION": release.revision}
    with monkeypatch.context() as patch:
        patch.setattr(Volume, "end_showing", Mock(side_effect=Killed))
        with pytest.raises(Killed):
            process.run(settings)
    before = record(process)
    assert before["revision"]
    s3.inject(error(500, "InternalError"))

    for _ in range(2):
        process.restart(settings)
        process.fail()
        assert (True, before["revision"]) == (process.is_ready, process.revision)
        assert "" == process.readiness.shortfall
        assert before == record(process)


def test_another_layout_stays_until_the_new_one_is_complete(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first publish in place is killed, and the settings return to snapshots."""
    snapshot = {"S3_SYNC_LAYOUT": "snapshot"}
    put(process.s3, 1)
    process.run(snapshot)
    before = process.revision
    process.restart(GATE)
    kill_in_the_renames(process, monkeypatch, READ)
    process.restart(GATE)
    process.fail()

    process.restart(snapshot)
    process.fail()

    assert (True, before) == (process.is_ready, process.revision)


def test_a_finished_publish_is_never_reported_as_the_earlier_source(
    s3: FakeS3, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings return to the source that was recorded last; its files are gone."""
    old, new = ({**GATE, "KEY_PATH": path} for path in ("old", "new"))
    for version, path in enumerate(["old", "new"], 1):
        keys = (f"{path}/{number:02}.py" for number in range(FILES))
        s3.put_each(keys, b"v = %d\n" % version)
    process.run(old)
    process.restart(new)
    kill_in_the_renames(process, monkeypatch, READ)

    for settings in (new, old):
        process.restart(settings)
        process.fail()
        assert FILES == new_files(process)
        assert not process.is_ready
    s3.heal()
    process.cycle()
    assert process.is_ready and 0 == new_files(process)


@pytest.mark.parametrize("layout", [{}, GATE, {"S3_SYNC_LAYOUT": "snapshot"}])
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
    assert not (process.folder / ".s3-sync/publishing").exists()


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
    names: list[object] = []
    record_it = Published.record

    def noted(*given: Any, **facts: Any) -> None:
        names.append(facts["name"])
        record_it(*given, **facts)

    monkeypatch.setattr(Published, "record", noted)
    put(s3, 2, files=1)
    process.cycle()
    assert [process.revision] == names

    put(s3, 2, files=2)
    s3.put("new.py", b"")
    process.cycle()
    assert ["partial-unfinished", process.revision] == names[1:]
