"""Releases and the disk: what only the source and the volume together can show."""

import errno
import os
from typing import Any
from unittest.mock import Mock

import pytest

from s3_sync.folder.folder import Folder
from s3_sync.folder.record import Record
from tests.s3_sync.process import Process
from tests.s3_sync.release.following import FILES, PINNED, staged
from tests.support.http.faults import reset
from tests.support.s3_sync.shelf import Shelf, is_bundle


def test_files_published_without_a_record_do_not_satisfy_the_pin(
    shelf: Shelf, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process without the pin was killed between publishing and recording a release."""
    first = shelf.publish({"a.py": b"a = 1\n"})
    pinned = PINNED | {"S3_SYNC_REVISION": first.revision}
    process.run(pinned)
    shelf.publish({"a.py": b"a = 2\n"})
    process.restart(PINNED)
    with monkeypatch.context() as killed:
        killed.setattr(Record, "write", Mock(side_effect=OSError))
        process.fail()
    process.restart(pinned)
    process.s3.inject(reset(), times=3)

    assert "connection_lost" == process.fail().reason
    assert ({"a.py": b"a = 2\n"}, False) == (process.shown, process.is_ready)
    assert "changed" == process.cycle().result
    assert ({"a.py": b"a = 1\n"}, True) == (process.shown, process.is_ready)


def test_the_cycle_after_a_full_disk_goes_on_with_what_has_arrived(
    shelf: Shelf, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {"a.py": b"a = 1\n", "gone.py": b"b = 1\n"}
    shelf.publish(good)
    process.run(PINNED)
    shelf.publish({"a.py": b"a = 2\n", **FILES})
    put, paths = Folder.put, list[str]()

    def fill(folder: Folder, path: str, *rest: Any) -> None:
        if path == "pkg2/m11.py":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        paths.append(path)
        put(folder, path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "put", fill)
        assert ["target_full"] * 2 == [process.fail().reason for _ in range(2)]
    assert good == process.shown and process.is_ready
    assert [] == staged(process)
    process.s3.forget()

    assert "changed" == process.cycle().result
    assert {"a.py": b"a = 2\n", **FILES} == process.shown
    assert len(set(paths)) == len(paths), "nothing is brought twice"
    assert 1 == len(process.s3.seen(is_bundle))


def test_one_cycle_restores_all_deleted_files(shelf: Shelf, process: Process) -> None:
    files = {f"m{n:04}.py": b"x = 1\n" for n in range(700)}
    shelf.publish(files)
    process.run(PINNED)
    for path in files:
        os.unlink((process.folder / "current").resolve() / path)

    assert len(files) == process.cycle().counts["files_healed"]
    assert files == process.shown
