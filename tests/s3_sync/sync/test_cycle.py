"""Whole cycles against a scripted S3: gates, layouts, damage and other processes combined."""

import errno
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from s3_sync.tree import journal
from s3_sync.tree.target import Target
from sidecar_runtime.errors import SidecarError
from tests.runtime.recording import Log
from tests.s3_sync.failing import failure
from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import error, is_get, is_list
from tests.support.scripts import script

GATE = {"S3_SYNC_GATE": "syntax"}
SNAPSHOT = {"S3_SYNC_LAYOUT": "snapshot"}
BROKEN = b"x = (\n"
CYCLES = 20

whole = pytest.mark.parametrize("layout", [GATE, SNAPSHOT | GATE], ids=["in-place", "snapshot"])


# --- damage


@pytest.mark.parametrize("layout", [GATE, SNAPSHOT], ids=["gate in place", "snapshot"])
def test_a_failed_repair_fails_the_cycle_with_its_reason(
    process: Process, layout: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    process.s3.put("a.py", b"a = 1\n")
    process.run(layout)
    (process.folder / ("current/a.py" if layout is SNAPSHOT else "a.py")).unlink()
    process.restart(layout)
    rename = os.rename

    def deny(source: str, target: str, **folders: int) -> None:
        if target == "a.py":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        rename(source, target, **folders)

    with monkeypatch.context() as denied:
        denied.setattr(os, "rename", deny)
        assert "target_denied" == process.fail().reason
        assert not process.is_ready
    assert process.cycle().is_success
    assert {"a.py": b"a = 1\n"} == process.shown


@pytest.mark.parametrize("is_new_process", [False, True], ids=["", "restarted before the repair"])
@pytest.mark.parametrize("layout", [{}, GATE, SNAPSHOT, SNAPSHOT | GATE], ids=str)
def test_bytes_that_are_proven_wrong_later_are_replaced_for_consumers(
    process: Process,
    layout: dict[str, str],
    is_new_process: bool,
    monkeypatch: pytest.MonkeyPatch,
    log: Log,
) -> None:
    """Something alters a download twice, while it is unknown whether ETags are MD5s."""
    good, altered = b"a = 1\n", b"a = 2\n"
    process.s3.put("a.py", altered, etag=hashlib.md5(good).hexdigest())
    process.run(layout)
    assert {"a.py": altered} == process.shown
    process.s3.put("a.py", good)
    process.s3.put("b.py", b"b = 1\n")
    process.cycle()
    if is_new_process and layout:
        with monkeypatch.context() as failing:
            failing.setattr(Target, "take", _fail)
            process.fail()
        for file in process.folder.rglob("*.py"):  # also a restored volume, so all look damaged
            content = file.read_bytes()
            file.unlink()
            file.write_bytes(content)
        process.restart(layout)
    process.cycle()

    assert {"a.py": good, "b.py": b"b = 1\n"} == process.shown
    changed = [event.get("changed") for event in log.events("files_changed")]
    assert is_new_process or ["a.py"] == changed[-1]
    assert 0 == process.metric("s3_sync_unverified_files")
    assert process.is_ready, process.problem
    assert {"unchanged"} == {process.cycle().result for _ in range(2)}


@pytest.mark.parametrize("proof", ["a new file", "a file on disk", "strict"])
@pytest.mark.parametrize("layout", [{}, GATE, SNAPSHOT, SNAPSHOT | GATE], ids=str)
def test_a_new_process_replaces_wrong_bytes_of_the_one_before(
    process: Process, layout: dict[str, str], proof: str
) -> None:
    good = b"a = 1\n"
    process.s3.put("a.py", b"a = 2\n", etag=hashlib.md5(good).hexdigest())
    if proof == "a file on disk":
        process.s3.put("b.py", b"b = 1\n")
    process.run(layout | ({"S3_SYNC_VERIFY": "lenient"} if proof == "a file on disk" else {}))
    process.s3.put("a.py", good)
    process.restart(layout | ({"S3_SYNC_VERIFY": "strict"} if proof == "strict" else {}))
    if proof == "a new file":
        process.s3.put("b.py", b"b = 1\n")
        process.cycle()
    process.cycle()

    assert good == process.shown["a.py"]
    assert 0 == process.metric("s3_sync_unverified_files")
    assert {"unchanged"} == {process.cycle().result for _ in range(2)}


def test_a_new_process_downloads_a_file_that_nothing_can_verify_only_once(
    process: Process,
) -> None:
    """Its ETag looks like an MD5, but its encryption shows that it is not one."""
    encrypted = {"x-amz-server-side-encryption": "aws:kms"}
    process.s3.put("a.py", b"a = 1\n", etag="a" * 32, headers=encrypted)
    process.run({})
    process.s3.forget()
    process.restart({"S3_SYNC_VERIFY": "strict"})

    for _ in range(3):
        assert process.cycle().is_success
    assert 1 == len(process.s3.seen(is_get()))
    assert 1 == process.metric("s3_sync_unverified_files")


def _fail(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@whole
def test_the_gate_sees_the_bytes_that_replace_wrong_ones(
    process: Process, layout: dict[str, str], log: Log
) -> None:
    altered = b"x = 1\n"
    process.s3.put("a.py", altered, etag=hashlib.md5(BROKEN).hexdigest())
    process.run(layout)
    process.s3.put("a.py", BROKEN)
    process.s3.put("b.py", b"b = 1\n")
    process.cycle()

    assert "refused" == process.cycle().result
    assert ["a.py"] == [event["path"] for event in log.events("revision_refused")]
    process.cycle()
    assert {"a.py": altered, "b.py": b"b = 1\n"} == process.shown
    assert 1 == process.metric("s3_sync_unverified_files")


@pytest.mark.parametrize("layout", [GATE, SNAPSHOT], ids=["gate in place", "snapshot"])
def test_wrong_bytes_that_cannot_be_replaced_fail_the_cycle(
    process: Process, layout: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    process.s3.put("a.py", b"a = 2\n", etag=hashlib.md5(b"a = 1\n").hexdigest())
    process.run(layout)
    process.s3.put("a.py", b"a = 1\n")
    process.s3.put("b.py", b"b = 1\n")
    process.cycle()

    def deny(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as denied:
        denied.setattr(Target, "take", deny)
        assert {"target_denied"} == {process.fail().reason for _ in range(2)}
    process.cycle()
    assert b"a = 1\n" == process.shown["a.py"]


# --- the gate


def test_an_empty_source_deletes_no_foreign_files(process: Process) -> None:
    (process.folder / "theirs.py").write_bytes(b"x = 1\n")
    process.start({**GATE, "S3_SYNC_DELETE": "all"})

    assert "source_empty" == process.fail().reason
    assert {"theirs.py": b"x = 1\n"} == process.shown


@pytest.mark.parametrize("layout", [{}, GATE, SNAPSHOT, SNAPSHOT | GATE], ids=str)
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
    assert "out/theirs.py" in kept and sorted(set(kept)) == sorted(kept)


def test_of_many_files_that_cannot_be_deleted_only_the_first_are_logged(
    process: Process, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    for number in range(1001):
        (process.folder / f"{number}.theirs").touch()
    process.s3.put("a.py", b"a = 1\n")
    unlink = os.unlink

    def deny(name: str, **more: int) -> None:
        if name.endswith(".theirs"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        unlink(name, **more)

    monkeypatch.setattr(os, "unlink", deny)
    process.run({"S3_SYNC_DELETE": "all"})
    for _ in range(4):
        process.cycle()

    *named, last = [event["name"] for event in log.events("leftover_kept")]
    assert 50 == len(set(named)) == len(named)
    assert "more than 50 files" == last


def test_a_refused_revision_deletes_nothing(process: Process) -> None:
    everything = {**GATE, "S3_SYNC_DELETE": "all"}
    process.s3.put("a.py", b"a = 1\n")
    process.run(everything)
    (process.folder / ".s3-sync/managed").unlink()  # all files count as foreign now
    process.s3.put("a.py", BROKEN)
    process.restart(everything)

    assert "refused" == process.cycle().result
    assert {"a.py": b"a = 1\n"} == process.shown


@whole
def test_sighup_during_an_outage_repeats_the_gate_check_after_it(
    process: Process, layout: dict[str, str], tmp_path: Path
) -> None:
    """The gate command is fixed, but S3 fails in the cycle that SIGHUP triggers."""
    fixed = tmp_path / "fixed"
    fixed.touch()
    command = f"sh -c 'test -e {fixed}'"
    process.s3.put("a.py", b"a = 1\n")
    process.run({**layout, "S3_SYNC_GATE": "command", "S3_SYNC_GATE_COMMAND": command})
    fixed.unlink()
    process.s3.put("a.py", b"a = 2\n")
    assert ["refused"] * 2 == [process.cycle().result for _ in range(2)]
    fixed.touch()
    process.s3.inject(error(403, "AccessDenied"), is_list)
    assert "access_denied_list" == failure(process.cycle, is_asked_for=True).reason
    process.s3.heal()

    assert "changed" == process.cycle().result
    assert {"a.py": b"a = 2\n"} == process.shown


def test_deletes_foreign_files_once_a_revision_is_accepted(process: Process) -> None:
    (process.folder / "theirs.py").write_bytes(b"x = 1\n")
    process.s3.put("a.py", b"a = 1\n")
    process.start({**GATE, "S3_SYNC_DELETE": "all"})

    assert "changed" == process.cycle().result
    assert {"a.py": b"a = 1\n"} == process.shown


@whole
def test_the_gate_checks_blocked_files(process: Process, layout: dict[str, str]) -> None:
    process.s3.put("a.py", b"a = 1\n")
    process.run(layout)
    (tree,) = {"tree", "staged"} & {path.name for path in (process.folder / ".s3-sync").iterdir()}
    planted = process.folder / ".s3-sync" / tree / "bad.py"
    planted.mkdir()
    (planted / "f").touch()
    process.s3.put("bad.py", BROKEN)

    assert ["refused", "refused"] == [process.cycle().result for _ in range(2)]
    assert {"a.py": b"a = 1\n"} == process.shown


def test_completes_an_interrupted_revision_although_the_next_is_refused(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.s3.put_each(("a.py", "b.py", "c.py"), b"v = 1\n")
    process.run(GATE)
    process.s3.put_each(("a.py", "b.py", "c.py"), b"v = 22\n")
    taken: list[str] = []
    take = Target.take

    def take_one(self: Target, path: str, *others: Any) -> None:
        taken.append(path)
        if len(taken) == 2:  # after the first rename
            raise KeyboardInterrupt
        take(self, path, *others)

    with monkeypatch.context() as killed:
        killed.setattr(Target, "take", take_one)
        with pytest.raises(KeyboardInterrupt):
            process.cycle()
    assert {b"v = 1\n", b"v = 22\n"} == set(process.shown.values())
    process.s3.put("c.py", BROKEN)
    process.restart(GATE)

    assert "refused" == process.cycle().result
    assert {f"{name}.py": b"v = 22\n" for name in "abc"} == process.shown


@whole
def test_undoes_edits_by_a_gate_command(
    process: Process, tmp_path: Path, layout: dict[str, str]
) -> None:
    meddles = "grep -q v2 a.py || exit 0\nchmod u+w a.py b.py; echo '#' >> b.py; exit 1"
    command = script(tmp_path / "check", meddles)
    process.s3.put_each(("a.py", "b.py"), b"v1\n")
    process.run({**layout, "S3_SYNC_GATE": "command", "S3_SYNC_GATE_COMMAND": command})
    process.s3.put("a.py", b"v2\n")

    assert "refused" == process.cycle().result
    assert not process.is_ready  # noticed in the same cycle, wherever the scan is
    assert "refused" == process.cycle().result
    assert {"a.py": b"v1\n", "b.py": b"v1\n"} == process.shown


# --- kept files


@pytest.mark.parametrize("layout", [GATE, SNAPSHOT], ids=["in-place", "snapshot"])
@pytest.mark.parametrize("lost", ["folder", "file"])
def test_delete_none_keeps_files_when_the_working_copy_is_lost(
    process: Process, layout: dict[str, str], lost: str
) -> None:
    process.s3.put_each(("a.py", "k.py"), b"v = 1\n")
    process.run({**layout, "S3_SYNC_DELETE": "none"})
    process.s3.delete("k.py")
    process.cycle()
    before = {p: (process.folder / p).stat().st_ino for p in os.listdir(process.folder)}
    tree = process.folder / ".s3-sync" / ("staged" if layout is GATE else "tree")
    for path in list(tree.iterdir()) if lost == "folder" else [tree / "k.py"]:
        path.unlink()
    if lost == "folder":
        tree.rmdir()
    process.s3.put("n.py", b"n = 1\n")

    for _ in range(3):
        with suppress(SidecarError):  # the cycle that notices the loss
            process.cycle()

    assert {"a.py", "k.py", "n.py"} == process.shown.keys()
    assert layout is SNAPSHOT or before["k.py"] == (process.folder / "k.py").stat().st_ino


def test_delete_none_keeps_an_edited_file_when_a_gate_is_switched_on(process: Process) -> None:
    process.s3.put_each(("a.py", "k.py"), b"v = 1\n")
    process.run({"S3_SYNC_DELETE": "none"})
    process.s3.delete("k.py")
    process.cycle()
    (process.folder / "k.py").write_bytes(b"mine\n")
    process.restart({**GATE, "S3_SYNC_DELETE": "none"})
    process.cycle()

    assert {"a.py": b"v = 1\n", "k.py": b"mine\n"} == process.shown


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


def test_is_ready_after_the_mark_of_a_partial_release_is_removed(process: Process) -> None:
    process.s3.put("a.py", b"a = 1\n")
    process.run({})
    mark = process.folder / ".s3-sync/publishing"
    mark.touch()  # as after a kill
    process.s3.inject(error(403, "AccessDenied"), is_list)
    process.restart({})
    process.fail()
    assert "only some files of a release are in place" == process.problem
    mark.unlink()
    process.s3.heal()

    assert "unchanged" == process.cycle().result
    assert process.is_ready


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
        pytest.param(GATE, unwritable(), id="gate in place, lists fail"),
        pytest.param(GATE, unwritable("managed"), id="gate in place, the second list fails"),
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
