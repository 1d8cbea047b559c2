"""Cycles with a gate: how often it checks, and which revision is published meanwhile."""

import fcntl
import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from subprocess import run

import pytest

from sidecar_runtime.errors import SidecarError
from tests.runtime.recording import Log
from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import FakeS3, is_get
from tests.support.s3_sync.shelf import RELEASE, Shelf
from tests.support.s3_sync.snapshots import overwrite
from tests.support.scripts import counting, runs, script

GOOD = {
    "sales.py": b"VALUE = 1\n",
    "pkg/stock.py": b"STOCK = 2\n",
    "pkg/old.py": b"OLD = 3\n",
    "notes.txt": b"not Python (\n",
}
BROKEN = GOOD | {"pkg/bad.py": b"one = 1\ntwo = (2\nthree = 3\n", "new.py": b"NEW = 1\n"}
BROKEN["notes.txt"] = b"still not Python (\n"
del BROKEN["pkg/old.py"]
FIXED = BROKEN | {"pkg/bad.py": b"one = 1\ntwo = (2)\nthree = 3\n"}

SNAPSHOT = {"S3_SYNC_LAYOUT": "snapshot"}
GATE = {"S3_SYNC_GATE": "syntax", **SNAPSHOT}


def swap(s3: FakeS3, files: Mapping[str, bytes]) -> None:
    """Replace the content of the bucket with these files."""
    s3.objects.clear()
    s3.put_all(files)


@pytest.fixture
def s3(s3: FakeS3) -> FakeS3:
    """A bucket with a good revision."""
    swap(s3, GOOD)
    return s3


def by_command(command: object) -> dict[str, str]:
    return {**GATE, "S3_SYNC_GATE": "command", "S3_SYNC_GATE_COMMAND": shlex.quote(str(command))}


def checks(process: Process) -> tuple[float, float, float]:
    """Return the number of accepted and refused revisions, and whether the newest is refused."""
    accepted, refused = (
        process.metric("sidecar_gate_checks_total", result=result) or 0.0
        for result in ("accepted", "refused")
    )
    return accepted, refused, process.metric("sidecar_gate_refused") or 0.0


# --- refused revisions


def test_deletion_in_a_refused_revision_is_not_applied_even_after_a_restart(
    s3: FakeS3, process: Process
) -> None:
    process.run(GATE)
    swap(s3, BROKEN)
    refused = process.cycle()
    assert ("refused", {}) == (refused.result, refused.counts)
    process.restart(GATE)
    assert ["refused"] * 2 == [process.cycle().result for _ in range(2)]

    assert GOOD == process.shown
    assert process.is_ready
    assert (0, 1, 1) == checks(process)
    swap(s3, FIXED)
    process.cycle()
    assert FIXED == process.shown


def test_returning_to_the_published_revision_ends_the_refusal(s3: FakeS3, process: Process) -> None:
    process.run(GATE)
    swap(s3, BROKEN)
    process.cycle()
    assert "refused" in process.details
    swap(s3, GOOD)

    assert "unchanged" == process.cycle().result
    assert (1, 1, 0) == checks(process)
    assert "refused" not in process.details
    assert GOOD == process.shown


def test_publishes_nothing_when_the_first_revision_is_refused(
    process: Process, tmp_path: Path
) -> None:
    command = counting(tmp_path / "gate", "echo no; exit 1")
    refused = process.run(by_command(command))

    assert "refused" == refused.result and not refused.is_enough
    assert {} == process.shown
    assert not process.is_ready


def test_damage_is_fixed_while_the_newest_revision_is_refused(s3: FakeS3, process: Process) -> None:
    process.run(GATE)
    swap(s3, BROKEN)
    process.cycle()
    folder = process.folder / "current"
    (folder / "sales.py").unlink()  # the refused revision has the same
    (folder / "pkg/stock.py").chmod(0o644)
    (folder / "pkg/stock.py").write_bytes(b"edited\n")
    assert "refused" == process.cycle().result

    assert GOOD == process.shown
    assert process.is_ready and process.readiness.shortfall == ""


def test_downloads_a_refused_revision_only_once(s3: FakeS3, process: Process) -> None:
    process.run(GATE | {"S3_SYNC_DELETE": "all"})
    swap(s3, BROKEN)
    assert ["refused"] * 2 == [process.cycle().result for _ in range(2)]
    s3.forget()

    assert ["refused"] * 3 == [process.cycle().result for _ in range(3)]
    assert [] == s3.seen(is_get())


@pytest.mark.parametrize("is_release", [False, True], ids=["listing", "release"])
def test_a_new_process_downloads_a_refused_revision_only_once(
    s3: FakeS3, process: Process, is_release: bool
) -> None:
    settings = GATE | (RELEASE | {"KEY_PATH": "dags"} if is_release else {})
    publish = Shelf(s3).publish if is_release else partial(swap, s3)
    publish(GOOD)
    process.run(settings)
    publish(BROKEN)
    process.cycle()
    process.restart(settings)
    assert ["refused"] * 2 == [process.cycle().result for _ in range(2)]
    s3.forget()

    assert ["refused"] * 3 == [process.cycle().result for _ in range(3)]
    assert all(request.path.endswith("/current.json") for request in s3.seen(is_get()))


def test_a_damaged_snapshot_in_use_costs_no_download_while_the_newest_is_refused(
    s3: FakeS3, process: Process
) -> None:
    process.run(GATE)
    place = process.folder / ".s3-sync/snapshots" / process.revision
    swap(s3, GOOD | {"sales.py": b"VALUE = 9\n"})
    process.cycle()
    process.stop()
    overwrite(place / "sales.py", b"")
    reader = os.open(place, os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_SH)
    process.start(GATE)
    process.cycle()
    swap(s3, BROKEN)
    process.cycle()
    s3.forget()

    assert ["refused"] * 2 == [process.cycle().result for _ in range(2)]
    assert place.exists()
    os.close(reader)
    process.cycle()
    assert not place.exists()
    assert [] == s3.seen(is_get())


# --- a command


def test_checks_accepted_revisions_once_and_refused_ones_at_each_sighup(
    s3: FakeS3, process: Process, tmp_path: Path, log: Log
) -> None:
    command = counting(
        tmp_path / "check", "grep -q bad *.py && { echo sales.py:7: bad value; exit 4; }\nexit 0"
    )
    process.run(by_command(command))
    bad = GOOD | {"sales.py": b"bad\n"}
    other = GOOD | {"sales.py": b"other\n"}
    assert 1 == runs(command)
    seen = []
    for files in (bad, bad, GOOD, bad, other, bad, GOOD, other, bad):
        swap(s3, files)
        seen.append(process.cycle(is_asked_for=True).result)
        assert process.shown != bad

    assert 5 == seen.count("refused")
    assert 2 + 5 == runs(command)
    assert (2, 5, 1) == checks(process)
    (refused,) = log.events("revision_refused")
    assert ("sales.py", 7, "bad value") == (refused["path"], refused["line"], refused["problem"])
    assert other == process.shown


def test_a_killed_gate_command_is_not_a_refusal(
    s3: FakeS3, process: Process, tmp_path: Path
) -> None:
    spared = tmp_path / "spared"
    command = counting(tmp_path / "check", f"test -e {spared} || kill -KILL $$")
    spared.touch()
    process.run(by_command(command))
    spared.unlink()
    swap(s3, FIXED)

    assert "gate_undecided" == process.fail().reason
    spared.touch()
    assert "changed" == process.cycle().result
    assert FIXED == process.shown


def test_sighup_repeats_a_check_whose_command_failed(
    s3: FakeS3, process: Process, tmp_path: Path
) -> None:
    works = tmp_path / "works"
    works.touch()
    command = counting(tmp_path / "check", f"test -e {works} || {{ echo no license; exit 1; }}")
    process.run(by_command(command))
    works.unlink()
    swap(s3, FIXED)
    refused = [process.cycle() for _ in range(3)]
    assert all(one.problem and "no license" in one.problem.message for one in refused)
    asked = runs(command)
    works.touch()

    assert "changed" == process.cycle(is_asked_for=True).result
    assert asked + 1 == runs(command)
    assert FIXED == process.shown


def test_a_missing_gate_command_fails_the_cycle_and_refuses_nothing(
    s3: FakeS3, process: Process, tmp_path: Path
) -> None:
    command = counting(tmp_path / "check", "exit 0")
    process.run(by_command(command))
    command.rename(tmp_path / "aside")
    swap(s3, FIXED)

    failed = process.fail()

    assert "gate_undecided" == failed.reason and str(command) in failed.message
    assert process.is_ready and GOOD == process.shown
    (tmp_path / "aside").rename(command)
    process.cycle()
    assert FIXED == process.shown


@pytest.mark.parametrize(
    "deed", ["touch made.py", "rm -f sales.py", "echo x >> sales.py", "rm *.*"]
)
def test_publishes_only_bucket_content_when_the_command_edits_files(
    s3: FakeS3, process: Process, deed: str, tmp_path: Path
) -> None:
    command = counting(tmp_path / "check", f"chmod -R u+w .; {deed}\nexit 0")
    process.start(by_command(command))
    # An edit through a hard link changes all links until the next cycle.
    edited = GOOD | {"sales.py": GOOD["sales.py"] + b"x\n"}
    for files in (GOOD, FIXED):
        swap(s3, files)
        for _ in range(4):
            with suppress(SidecarError):  # a build that was edited is thrown away
                process.cycle(is_asked_for=True)
            assert process.shown in ({}, GOOD, FIXED, edited)
        assert files == process.shown


# --- fallbacks


@pytest.fixture
def shelf(s3: FakeS3) -> Shelf:
    """Releases in an otherwise empty bucket."""
    s3.objects.clear()
    return Shelf(s3)


def release(number: int, *, broken: bool = False) -> dict[str, bytes]:
    return {"a.py": b"x = (\n" if broken else b"V = %d\n" % number, "b.py": b"V = %d\n" % number}


FOLLOW = {"KEY_PATH": "dags", **RELEASE}


@pytest.mark.parametrize("is_new", [True, False], ids=["new volume", "old volume"])
def test_a_refused_pinned_revision_has_no_fallback(
    shelf: Shelf, process: Process, is_new: bool, log: Log
) -> None:
    shelf.publish(release(1))
    bad = shelf.publish(release(2, broken=True))
    if not is_new:
        process.run(FOLLOW | GATE)
        assert process.is_ready
    process.restart(FOLLOW | GATE | {"S3_SYNC_REVISION": bad.revision})

    refused = process.cycle()

    assert "refused" == refused.result and not refused.is_enough  # for a one-shot
    assert refused.problem and "revision_refused" == refused.problem.reason
    assert "which S3_SYNC_REVISION pins" in refused.problem.message
    assert "change S3_SYNC_REVISION" in refused.problem.advice
    assert bad.revision == log.events("revision_refused")[-1]["revision"]
    assert not process.is_ready
    assert ({} if is_new else release(1)) == process.shown


def test_repairs_damage_to_a_published_fallback(shelf: Shelf, process: Process) -> None:
    shelf.publish(release(1))
    shelf.publish(release(2, broken=True))
    first = process.run(FOLLOW | GATE)
    assert ("refused", 2) == (first.result, first.counts["files_published"])
    assert process.is_ready
    stamp = process.metric("sidecar_last_publish_timestamp_seconds")
    assert process.readiness.published_at == stamp
    assert {} == process.cycle().counts
    (process.folder / "current/a.py").unlink()

    for _ in range(2):
        process.cycle()
    assert release(1) == process.shown
    assert process.is_ready


DAMAGE = {"an edit": "chmod u+w {0}; echo x >> {0}", "a loss": "rm {0}"}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    ("source", "verdict"),
    [("release", "exit 1"), ("listing", "exit 1"), ("release", "kill -9 $$")],
    ids=["release", "listing", "no verdict"],
)
def test_damage_that_only_a_refused_version_could_fix_leads_to_the_fallback_of_a_new_volume(
    s3: FakeS3,
    shelf: Shelf,
    process: Process,
    tmp_path: Path,
    source: str,
    damage: str,
    verdict: str,
) -> None:
    checks = f"grep -qs bad a.py && {{ echo a.py:1: no; {verdict}; }}\nexit 0"
    command = script(tmp_path / "gate", checks)
    settings = FOLLOW | by_command(command) | {"S3_SYNC_SOURCE": source}
    one, two = {"a.py": b"one\n", "b.py": b"one\n"}, {"a.py": b"bad\n", "b.py": b"two\n"}
    shelf.publish(one)
    s3.put_all(one, "dags/")
    process.run(settings)
    shelf.publish(two)
    s3.put_all(two, "dags/")
    shown = process.folder / "current"
    run(["sh", "-c", DAMAGE[damage].format("a.py")], cwd=shown, check=True)
    new = Process(s3, tmp_path / "new")
    new.start(settings)

    for _ in range(4):
        for each in (process, new):
            with suppress(SidecarError):  # the check has no verdict
                each.cycle()
    new.stop()

    assert new.is_ready and process.is_ready, process.problem
    assert new.shown == process.shown
    assert new.revision == process.revision
    fixed = {"a.py": b"three\n", "b.py": b"two\n"}
    shelf.publish(fixed)
    s3.put_all(fixed, "dags/")
    process.cycle()
    assert fixed == process.shown and process.readiness.shortfall == ""


@pytest.mark.parametrize("crash", ["exit 1", "kill -9 $$"])
@pytest.mark.parametrize("source", ["release", "listing"])
def test_repeats_a_failed_check_of_the_fallback(
    s3: FakeS3, shelf: Shelf, process: Process, tmp_path: Path, source: str, crash: str
) -> None:
    """The newest revision is bad; the check of the fallback fails at first."""
    works = tmp_path / "works"
    command = script(
        tmp_path / "check",
        "grep -q bad dag.py && { echo dag.py:1: bad; exit 1; }\n"
        f"test -e {works} || {{ echo no memory; {crash}; }}",
    )
    good = {f"ok{number}.py": b"x = 1\n" for number in range(4)}
    shelf.publish(good | {"dag.py": b"good\n"})
    shelf.publish(good | {"dag.py": b"bad\n"})
    s3.put_all(good | {"dag.py": b"bad\n"}, "dags/")
    process.start({**FOLLOW, **by_command(command), "S3_SYNC_SOURCE": source})
    if "kill" in crash:
        assert "gate_undecided" == process.fail().reason
    else:
        assert "refused" == process.cycle().result
    assert not process.is_ready
    works.touch()

    process.cycle(is_asked_for=True)
    assert process.is_ready
    assert good.keys() <= process.shown.keys()


def test_a_fallback_is_never_a_release_that_was_rolled_back(shelf: Shelf, process: Process) -> None:
    shelf.publish(release(3))
    refused = shelf.publish(release(4, broken=True))
    shelf.publish(release(5))
    shelf.point_to(refused, restores=2)

    process.run(FOLLOW | GATE)

    assert release(3) == process.shown


def test_publishes_a_fallback_after_three_undecided_checks(
    shelf: Shelf, process: Process, tmp_path: Path, log: Log
) -> None:
    """The newest release kills the check; the one before does not."""
    command = tmp_path / "gate"
    script(command, "grep -q 2 a.py && kill -9 $$\nexit 0")
    shelf.publish(release(1))
    shelf.publish(release(2))
    process.start(FOLLOW | by_command(command))

    assert ["gate_undecided"] * 3 == [process.fail().reason for _ in range(3)]
    assert release(1) == process.shown
    assert 1 == len(log.events("gate_fallback"))
    script(command, "exit 0")
    process.cycle(is_asked_for=True)
    assert release(2) == process.shown


# --- on and off


def test_switching_the_gate_on_or_off_downloads_nothing(s3: FakeS3, process: Process) -> None:
    process.run(SNAPSHOT)
    files = dict(GOOD)
    for number, gate in enumerate(["syntax", "off", "command", "syntax", "off"]):
        s3.forget()
        command = {"S3_SYNC_GATE_COMMAND": "true"} if gate == "command" else {}
        process.restart({**SNAPSHOT, "S3_SYNC_GATE": gate, **command})
        process.cycle()
        assert process.is_ready
        assert files == process.shown
        assert [] == s3.seen(is_get())
        files = GOOD | {"sales.py": b"VALUE = %d\n" % number}
        if number % 2:
            del files["pkg/stock.py"]
        swap(s3, files)
        process.cycle()
        assert files == process.shown


def test_a_gate_sees_every_file_on_a_volume_of_another_source(s3: FakeS3, process: Process) -> None:
    """What was published there before has passed no gate."""
    s3.put_all(BROKEN, "old/")
    s3.put_all(BROKEN, "new/")
    process.run(SNAPSHOT | {"KEY_PATH": "old"})
    process.restart(GATE | {"KEY_PATH": "new"})
    process.cycle()

    without = {path: body for path, body in BROKEN.items() if path != "pkg/bad.py"}
    assert without == process.shown
    assert "fallback" in process.readiness.shortfall
    process.restart(GATE | {"KEY_PATH": "new"})
    assert "refused" == process.cycle().result
    assert without == process.shown and process.is_ready


@pytest.mark.parametrize("is_release", [False, True], ids=["listing", "release"])
def test_a_new_volume_without_an_accepted_state_downloads_each_only_once(
    s3: FakeS3, shelf: Shelf, process: Process, is_release: bool, tmp_path: Path
) -> None:
    command = counting(tmp_path / "gate", "echo no; exit 1")
    settings = by_command(command)
    if is_release:
        settings |= FOLLOW
        for number in range(3):
            shelf.publish(release(number))
    else:
        swap(s3, GOOD)
    process.start(settings)
    for _ in range(2):
        with suppress(SidecarError):
            process.cycle()
    s3.forget()

    for _ in range(3):
        with suppress(SidecarError):
            process.cycle()
        assert not process.is_ready
    assert all(request.path.endswith("/current.json") for request in s3.seen(is_get()))
