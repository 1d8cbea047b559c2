"""Whole cycles against a scripted S3: proofs, foreign files, gates and leaks."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3_sync.folder import journal
from tests.runtime.recording import Log
from tests.s3_sync.failing import failure
from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import error, is_get, is_list
from tests.support.scripts import script

SNAPSHOT = {"S3_SYNC_LAYOUT": "snapshot"}
GATE = {"S3_SYNC_GATE": "syntax", **SNAPSHOT}
BROKEN = b"x = (\n"
CYCLES = 20


# --- damage


@pytest.mark.parametrize("layout", [{}, SNAPSHOT], ids=["in place", "snapshot"])
def test_a_failed_repair_fails_the_cycle_with_its_reason(
    process: Process, layout: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    process.s3.put_each(("a.py", "b.py"), b"a = 1\n")
    process.run(layout)
    (process.folder / ("current" if layout else "") / "a.py").unlink()
    process.restart(layout)
    rename = os.rename

    def deny(source: str, target: str, **folders: int) -> None:
        if target in ("a.py", "b.py"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        rename(source, target, **folders)

    with monkeypatch.context() as denied:
        denied.setattr(os, "rename", deny)
        assert not process.is_ready
        for _ in range(2):
            process.cycle()
            assert {"a.py": "target_denied"} == process.details["unread"]
    assert process.cycle().is_success
    assert dict.fromkeys(("a.py", "b.py"), b"a = 1\n") == process.shown


# --- files of others


def test_an_empty_source_deletes_no_foreign_files(process: Process) -> None:
    (process.folder / "theirs.py").write_bytes(b"x = 1\n")
    process.start({"S3_SYNC_DELETE": "all"})

    assert "source_empty" == process.fail().reason
    assert {"theirs.py": b"x = 1\n"} == process.shown


@pytest.mark.parametrize("layout", [{}, SNAPSHOT, GATE], ids=str)
def test_a_foreign_file_that_cannot_be_deleted_holds_nothing_back(
    process: Process, layout: dict[str, str], monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    """Such as a file that is mounted there, or in a folder of root."""
    (process.folder / "theirs.py").write_bytes(b"x = 1\n")
    process.s3.put("a.py", b"a = 1\n")
    unlink = os.unlink

    def busy(name: str, **more: int) -> None:
        if os.path.basename(name) == "theirs.py":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        unlink(name, **more)

    monkeypatch.setattr(os, "unlink", busy)

    assert process.run(layout | {"S3_SYNC_DELETE": "all"}).is_success
    assert process.is_ready, process.problem
    assert process.revision
    out = (process.folder / "current").resolve() if "S3_SYNC_LAYOUT" in layout else process.folder
    (out / "out").mkdir()
    (out / "out/theirs.py").write_bytes(b"x = 1\n")
    process.s3.put("a.py", b"a = 2\n")
    for _ in range(4):
        assert process.cycle().is_success
    assert b"a = 2\n" == process.shown["a.py"]
    assert process.is_ready, process.problem
    kept = [event["name"] for event in log.events("leftover_kept")]
    assert "out/theirs.py" in kept


# --- the gate


def test_sighup_during_an_outage_repeats_the_gate_check_after_it(
    process: Process, tmp_path: Path
) -> None:
    """The gate command is fixed, but S3 fails in the cycle that SIGHUP triggers."""
    fixed = tmp_path / "fixed"
    fixed.touch()
    command = f"sh -c 'test -e {fixed}'"
    process.s3.put("a.py", b"a = 1\n")
    process.run({**GATE, "S3_SYNC_GATE": "command", "S3_SYNC_GATE_COMMAND": command})
    fixed.unlink()
    process.s3.put("a.py", b"a = 2\n")
    assert ["refused"] * 2 == [process.cycle().result for _ in range(2)]
    fixed.touch()
    process.s3.inject(error(403, "AccessDenied"), is_list)
    assert "access_denied_list" == failure(process.cycle, is_asked_for=True).reason
    process.s3.heal()

    assert "changed" == process.cycle().result
    assert {"a.py": b"a = 2\n"} == process.shown


def test_undoes_edits_by_a_gate_command(process: Process, tmp_path: Path) -> None:
    meddles = "grep -q v2 a.py || exit 0\nchmod u+w a.py b.py; echo '#' >> b.py; exit 1"
    command = script(tmp_path / "check", meddles)
    process.s3.put_each(("a.py", "b.py"), b"v1\n")
    process.run({**GATE, "S3_SYNC_GATE": "command", "S3_SYNC_GATE_COMMAND": command})
    process.s3.put("a.py", b"v2\n")

    assert ["refused"] * 2 == [process.cycle().result for _ in range(2)]
    assert {"a.py": b"v1\n", "b.py": b"v1\n"} == process.shown


# --- other situations


def test_damage_to_a_settling_file_does_not_fail_the_cycle(process: Process) -> None:
    process.s3.put_each(("a.py", "b.py", "c.py"), b"v = 1\n")
    process.run({})
    process.restart({"S3_SYNC_SETTLE": "1h"})
    process.cycle()
    process.s3.put("a.py", b"v = 2\n")
    for name in "ab":
        (process.folder / f"{name}.py").write_bytes(b"edited\n")

    assert {"settling"} == {process.cycle().result for _ in range(5)}
    unchanged = dict.fromkeys(("b.py", "c.py"), b"v = 1\n")  # so their damage is repaired
    assert {"a.py": b"edited\n"} | unchanged == process.shown


@pytest.mark.parametrize("verify", ["auto", "lenient"])
def test_syncs_from_a_store_whose_etags_are_not_md5(process: Process, verify: str) -> None:
    """Some stores encrypt or invent ETags without saying so, some only for some objects."""
    if verify == "lenient":
        process.s3.put("true.py", b"its ETag is its MD5")
    for number in range(3):
        process.s3.put(f"odd{number}.py", b"v = 1\n", etag=f"{number:032x}")
    assert "changed" == process.run({"S3_SYNC_VERIFY": verify}).result
    asked = len(process.s3.seen(is_get()))

    assert "unchanged" == process.cycle().result
    process.s3.put("odd1.py", b"v = 2\n", etag=f"{9:032x}")
    assert "changed" == process.cycle().result
    assert asked + 1 == len(process.s3.seen(is_get()))
    assert {path: stored.body for path, stored in process.s3.objects.items()} == process.shown
    assert 3 == process.metric("s3_sync_unverified_files")


def test_does_not_reload_an_unverified_file_that_was_deleted(process: Process) -> None:
    process.s3.put("odd.py", b"v = 1\n", etag=f"{1:032x}")
    process.run({})
    process.s3.delete("odd.py")
    process.s3.put("true.py", b"its ETag is its MD5")
    process.cycle()
    process.s3.forget()

    assert [{}] * 2 == [process.cycle().counts for _ in range(2)], "nothing left to do"
    assert [] == process.s3.seen(is_get())


# --- descriptors


def unwritable(*lists: str) -> Callable[[pytest.MonkeyPatch, Path], None]:
    """Return a fault: these lists cannot be written, or none if none is given."""

    def spoil(monkeypatch: pytest.MonkeyPatch, _: Path) -> None:
        write = journal.write_file  # type: ignore[attr-defined]

        def write_file(name: str, *others: Any, **more: Any) -> None:
            if not lists or name in lists:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            write(name, *others, **more)

        monkeypatch.setattr(journal, "write_file", write_file)

    return spoil


def block(_: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "current").unlink(missing_ok=True)
    (folder / "current").mkdir()
    (folder / "current" / "theirs").touch()


@pytest.mark.parametrize(
    ("layout", "spoil"),
    [
        pytest.param({}, unwritable(), id="in-place, lists fail"),
        pytest.param(SNAPSHOT, unwritable(), id="snapshot, lists fail"),
        pytest.param(SNAPSHOT, block, id="snapshot, link blocked"),
    ],
)
def test_failing_cycles_leak_no_descriptors_or_files(
    process: Process,
    monkeypatch: pytest.MonkeyPatch,
    layout: dict[str, str],
    spoil: Callable[[pytest.MonkeyPatch, Path], None],
) -> None:
    process.s3.put("a.py", b"a = 1\n")
    process.run(layout)
    process.s3.put("a.py", b"a = 2\n")
    process.restart(layout)
    spoil(monkeypatch, process.folder)

    def fail() -> tuple[int, int]:
        process.fail()
        store = process.folder / ".s3-sync/snapshots"
        return len(process.held), len(os.listdir(store)) if store.exists() else 0

    open_before, files_before = [fail() for _ in range(2)][-1]
    open_after, files_after = [fail() for _ in range(CYCLES)][-1]

    assert open_after <= open_before
    assert files_after == files_before


def test_a_link_blocked_from_the_start_leaks_no_descriptors(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.s3.put("a.py", b"a = 1\n")
    block(monkeypatch, process.folder)
    process.start(SNAPSHOT)

    def fail() -> int:
        process.fail()
        return len(process.held)

    before = [fail() for _ in range(2)][-1]

    assert [fail() for _ in range(CYCLES)][-1] <= before
