"""Releases and the disk: partial releases, a full disk, blocked paths, deleted files."""

import errno
import os
from unittest.mock import Mock

import pytest

from s3_sync.tree.published import Published
from s3_sync.tree.staging import Staged
from s3_sync.tree.target import Target
from tests.s3_sync.process import Process
from tests.s3_sync.release.following import FILES, PINNED, SNAPSHOT, layouts, staged
from tests.support.http.faults import reset
from tests.support.s3_sync.shelf import Shelf, is_manifest


@pytest.mark.parametrize("path", ["pkg0/m3.py", "z_last.py"])
def test_a_partial_release_in_place_is_not_ready_until_a_cycle_completes_it(
    shelf: Shelf, process: Process, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    shelf.publish({"old.py": b"old\n", path: b"before\n"})
    process.run(PINNED)
    shelf.publish({**FILES, path: b"after\n"})
    put = Target.put

    def fail_at(target: Target, one: Staged, *rest: object) -> None:
        if one.path == path:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        put(target, one, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Target, "put", fail_at)
        assert "target_denied" == process.fail().reason
    assert {"old.py", path} <= process.shown.keys()  # deleted only once all files are in place
    assert (False, "only some files of a release are in place") == (
        process.is_ready,
        process.problem,
    )
    process.restart(PINNED)
    process.s3.inject(reset(), times=3)  # the cycle opens the target, then S3 fails
    assert "connection_lost" == process.fail().reason
    assert not process.is_ready

    assert "changed" == process.cycle().result
    assert {**FILES, path: b"after\n"} == process.shown
    assert process.is_ready
    assert [] == staged(process)


def test_removes_a_publishing_note_that_a_killed_process_left(
    shelf: Shelf, process: Process
) -> None:
    shelf.publish(FILES)
    process.run(PINNED)
    note = process.folder / ".s3-sync/publishing"
    note.write_text("killed between record and removal\n")
    process.restart(PINNED)

    assert "unchanged" == process.cycle().result
    assert process.is_ready
    assert not note.exists()


def test_files_published_without_a_record_do_not_satisfy_the_pin(
    shelf: Shelf, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process without the pin was killed between publishing and recording a release."""
    first = shelf.publish({"a.py": b"a = 1\n"})
    pinned = PINNED | SNAPSHOT | {"S3_SYNC_REVISION": first.revision}
    process.run(pinned)
    shelf.publish({"a.py": b"a = 2\n"})
    process.restart(PINNED | SNAPSHOT)
    with monkeypatch.context() as killed:
        killed.setattr(Published, "record", Mock(side_effect=OSError))
        process.fail()
    process.restart(pinned)
    process.s3.inject(reset(), times=3)

    assert "connection_lost" == process.fail().reason
    assert ({"a.py": b"a = 2\n"}, False) == (process.shown, process.is_ready)
    assert "changed" == process.cycle().result
    assert ({"a.py": b"a = 1\n"}, True) == (process.shown, process.is_ready)


@layouts
def test_a_full_disk_changes_nothing(
    shelf: Shelf, process: Process, monkeypatch: pytest.MonkeyPatch, layout: dict[str, str]
) -> None:
    good = {"a.py": b"a = 1\n", "gone.py": b"b = 1\n"}
    shelf.publish(good)
    process.run(PINNED | layout)
    shelf.publish({"a.py": b"a = 2\n", **FILES})
    stage = Target.stage

    def fill(target: Target, path: str, *rest: object) -> Staged:
        if path == "pkg2/m11.py":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return stage(target, path, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Target, "stage", fill)
        assert "target_full" == process.fail().reason
        process.s3.forget()
        assert "target_full" == process.fail().reason
        assert [] == process.s3.seen(is_manifest)
    assert good == process.shown
    assert [] == staged(process)
    assert "changed" == process.cycle().result


def test_skips_blocked_paths_and_publishes_the_rest(shelf: Shelf, process: Process) -> None:
    blocking = process.folder / "pkg1"
    blocking.write_bytes(b"foreign")
    shelf.publish(FILES)
    outcome = process.run(PINNED)
    rest = {path: body for path, body in FILES.items() if not path.startswith("pkg1/")}

    assert len(FILES) - len(rest) == outcome.counts["keys_skipped"]
    assert rest | {"pkg1": b"foreign"} == process.shown
    blocking.unlink()
    process.cycle()
    assert FILES == process.shown


@layouts
def test_one_cycle_restores_all_deleted_files(
    shelf: Shelf, process: Process, layout: dict[str, str]
) -> None:
    files = {f"m{n:04}.py": b"x = 1\n" for n in range(700)}
    shelf.publish(files)
    process.run(PINNED | layout)
    root = process.folder / "current" if layout == SNAPSHOT else process.folder
    for path in files:
        os.unlink(root.resolve() / path)

    outcome = process.cycle()
    assert len(files) in (outcome.counts.get("files_healed"), outcome.counts["files_published"])
    assert files == process.shown
