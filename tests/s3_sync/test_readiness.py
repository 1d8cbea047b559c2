"""Checks each row of the documented readiness table in every layout that allows it."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
from _pytest.mark import ParameterSet

from s3_sync import cycle
from s3_sync.holds import HOLD_SECONDS, Brake
from s3_sync.volume import Volume
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned
from tests import Texts
from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import FakeS3, error, is_get, is_list
from tests.support.http.faults import first
from tests.support.machine.clocks import Clock
from tests.support.s3_sync.shelf import RELEASE, Shelf, is_bundle
from tests.support.scripts import script
from tests.support.waiting import wait_until

DOCS = Path(__file__).parents[2] / "docs"
SNAPSHOT = {"S3_SYNC_LAYOUT": "snapshot"}
LAYOUTS = {
    "in place": {},
    "snapshot": SNAPSHOT,
    "snapshot, gate": SNAPSHOT | {"S3_SYNC_GATE": "syntax"},
}
NAMES = "abcd"
KEYS = {"KEY_PATH": "dags"}
BROKEN = b"x = (\n"


def rows() -> list[list[str]]:
    """Return the rows of the table."""
    text = (DOCS / "reference/readiness.md").read_text()
    lines = [
        line
        for line in text.splitlines()
        if line.startswith(("| listing", "| release"))
    ]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return found + [
        [source, f"{before}, not the last one", *rest]
        for source, before, *rest in found
        if before.endswith("one file removed")
    ]


def cases() -> list[ParameterSet]:
    """Return each row with each layout that applies to it."""
    return [
        pytest.param(row, name, id=f"{'; '.join(row[:3])}: {name}")
        for row in rows()
        for name in LAYOUTS
        if ("gate" not in row[2] or "gate" in name)
        and (row[0] == "listing" or "snap" in name)
    ]


class World:
    """A bucket, a volume, and the processes that use it one after another."""

    def __init__(self, s3: FakeS3, process: Process, settings: Texts) -> None:
        self.s3 = s3
        self.process = process
        self.settings = KEYS | settings
        self.shelf = Shelf(s3)
        self.before = ""
        self.earlier = ""

    def put(self, version: int, names: str = NAMES) -> None:
        for name in names:
            self.s3.put(f"dags/{name}.py", f"v = {version}\n".encode())

    def publish(self, version: int, broken: bool = False) -> str:
        return self.shelf.publish(
            {f"{name}.py": f"v = {version}\n".encode() for name in NAMES}
            | ({"b.py": BROKEN} if broken else {})
        ).revision

    def sync(self, times: int = 1) -> None:
        """Run some cycles in one process, then stop it."""
        self.process.start(self.settings)
        for _ in range(times):
            self.process.cycle()
        self.before = self.process.revision
        self.process.stop()


Make = Callable[[World], object]


def denied(world: World, names: str) -> None:
    world.put(2)
    for name in names:
        world.s3.inject(DENIED, is_get(f"dags/{name}.py"))


def rewritten(world: World) -> None:
    """Rewrite an object after each listing, before its download."""
    world.put(2)
    count = iter(range(100))

    def write() -> None:
        world.s3.put("dags/b.py", f"v = {next(count)}0\n".encode())

    world.s3.inject(first(write), is_get("dags/b.py"))


def vanished(world: World) -> None:
    world.put(2)
    world.s3.inject(error(404, "NoSuchKey"), is_get("dags/b.py"))


def archived(world: World) -> None:
    world.put(2)
    world.s3.put("dags/b.py", b"v = 2\n", storage_class="GLACIER")


def broken(world: World) -> None:
    world.put(2)
    world.s3.put("dags/b.py", BROKEN)


def refused_whole(world: World) -> None:
    world.put(2)
    command = script(world.process.folder.parent / "gate", "exit 1")
    world.settings |= {"S3_SYNC_GATE": "command", "S3_SYNC_GATE_COMMAND": command}


def lost_most(world: World) -> None:
    for number in range(29):
        world.s3.delete(f"dags/{number:02}.py")


def filtered(world: World) -> None:
    world.put(2)
    world.settings |= {"S3_SYNC_INCLUDE": "[a-d].py"}


def partly_published(world: World) -> None:
    world.put(1)
    world.s3.inject(DENIED, is_get("dags/b.py"), times=2)
    world.sync(2)  # a snapshot waits for one cycle


def all_published(world: World) -> None:
    world.put(1)
    world.publish(1) if world.settings.get("S3_SYNC_SOURCE") else None
    world.sync()


def many_published(world: World) -> None:
    for number in range(30):
        world.s3.put(f"dags/{number:02}.py", b"v = 1\n")
    world.sync()


def files_removed(world: World, *, with_list: bool) -> None:
    all_published(world)
    folder = world.process.folder
    for place in folder.rglob("*.py"):
        place.unlink()
    if with_list:
        for place in (folder / ".s3-sync").rglob("*managed"):
            place.unlink()


def one_removed(world: World, order: str) -> None:
    """
    Remove a file and all hard links to it; whether it was published first or last,
    because the last line of the list is believed only if its file exists.
    """
    if world.settings.get("S3_SYNC_SOURCE"):
        all_published(world)
    else:
        for names in order.split():
            world.put(1, names)
            world.sync()
    for place in world.process.folder.rglob("b.py"):
        place.unlink()


def earlier_accepted(world: World) -> None:
    world.earlier = world.publish(5)
    world.publish(6, broken=True)
    world.publish(7, broken=True)


DENIED = error(403, "AccessDenied")
BEFORE: dict[str, Make] = {
    "nothing": lambda world: None,
    "complete": all_published,
    "complete, 30 files": many_published,
    "partial": partly_published,
    "complete, then one file removed": lambda world: one_removed(world, "acd b"),
    "complete, then one file removed, not the last one": lambda world: one_removed(
        world, "b acd"
    ),
    "complete, then its files removed": lambda world: files_removed(
        world, with_list=False
    ),
    "complete, then its files and its list removed": lambda world: files_removed(
        world, with_list=True
    ),
}
NOW: dict[str, Make] = {
    "cannot be listed": lambda world: world.s3.inject(DENIED, is_list),
    "one of four objects cannot be read": lambda world: denied(world, "b"),
    "three of four objects cannot be read": lambda world: denied(world, "bcd"),
    "one of four objects keeps changing": rewritten,
    "one of four objects is listed but missing": vanished,
    "one of four objects is archived": archived,
    "the gate refuses one of four files": broken,
    "the gate refuses without naming a file": refused_whole,
    "has lost most of its objects": lost_most,
    "the filters select other files": filtered,
    "cannot be read": lambda world: world.s3.inject(DENIED, is_get()),
    "its bundle is missing": lambda world: (
        world.publish(8),
        world.s3.inject(error(404, "NoSuchKey"), is_bundle),
    ),
    "the gate refuses it, and accepts an earlier one": earlier_accepted,
    "the gate refuses it, and all earlier ones": lambda world: (
        world.publish(5, broken=True),
        world.publish(6, broken=True),
    ),
    "the gate refuses it, and it is pinned": lambda world: (
        world.publish(5),
        world.settings.update(S3_SYNC_REVISION=world.publish(6, broken=True)),
    ),
}


def complete(world: World) -> None:
    world.publish(2) if world.settings.get("S3_SYNC_SOURCE") else world.put(2)


@pytest.mark.parametrize(("row", "layout"), cases())
def test_every_row_of_the_table_holds(
    row: list[str], layout: str, s3: FakeS3, process: Process
) -> None:
    source, before, now, ready, published, revision, one_shot = row
    world = World(
        s3, process, LAYOUTS[layout] | (RELEASE if source == "release" else {})
    )
    BEFORE[before](world)
    if now == "is complete":
        complete(world)
    else:
        NOW[now](world)

    process.start(world.settings)
    outcomes = [process.attempt() for _ in range(4)]

    assert (ready == "yes") == process.is_ready, process.problem
    assert published == what_is_published(process)
    if revision in ("old", "earlier"):
        assert (
            {"old": world.before, "earlier": world.earlier}[revision]
            == process.revision
            != ""
        )
    elif revision == "new":
        assert process.revision not in ("", world.before)
    else:
        assert "" == process.revision
    ends = [end is not None and (end.is_success or end.is_enough) for end in outcomes]
    assert {"at once": 0, "after three cycles": 2, "never": None}[one_shot] == (
        ends.index(True) if True in ends else None
    )


@pytest.mark.parametrize(
    ("before", "gone", "delete"),
    [
        ("complete", "a", "managed"),
        ("partial", "ab", "managed"),
        ("complete", "a", "none"),
    ],
)
def test_a_kill_between_a_deletion_and_its_record_keeps_the_rest_ready(
    s3: FakeS3,
    process: Process,
    monkeypatch: pytest.MonkeyPatch,
    before: str,
    gone: str,
    delete: str,
) -> None:
    """With a change of S3_SYNC_DELETE, the deletion comes with no change of the listing."""
    BEFORE[before](World(s3, process, {}))
    for name in gone:
        s3.delete(f"dags/{name}.py")
    if delete == "none":
        process.run(KEYS | {"S3_SYNC_DELETE": delete})
        process.stop()
    process.start(KEYS)
    with monkeypatch.context() as patch, suppress(CycleAbandoned):
        patch.setattr(cycle.Sync, "_note_publish", Mock(side_effect=CycleAbandoned))
        process.cycle()
    process.stop()
    s3.inject(DENIED, is_list)

    with suppress(SidecarError):
        process.run(KEYS)

    assert process.is_ready and not (process.folder / "a.py").exists()


def test_a_one_shot_does_not_succeed_while_it_is_not_ready(
    s3: FakeS3, process: Process
) -> None:
    """
    A file is lost and cannot be read again, while most others are gone from the source.
    """
    world = World(s3, process, {})
    s3.put_each([f"dags/{number:02}.py" for number in range(30)], b"v = 1\n")
    process.run(world.settings | {"S3_SYNC_ONE_SHOT": "true"})
    (process.folder / "29.py").unlink()
    s3.put("dags/29.py", b"v = 1\n")
    s3.inject(DENIED, is_get("dags/29.py"))
    lost_most(world)

    for _ in range(4):
        end = process.attempt()
        assert not process.is_ready
        assert end is None or not (end.is_success or end.is_enough)


def denied_listing(s3: FakeS3) -> None:
    s3.inject(DENIED, is_list, times=1)


def another_file(s3: FakeS3) -> None:
    s3.put("dags/more.py", b"v = 1\n")


@pytest.mark.parametrize("event", [denied_listing, another_file])
def test_a_cycle_that_judges_no_listing_does_not_count_towards_the_end_of_a_hold(
    s3: FakeS3,
    process: Process,
    monkeypatch: pytest.MonkeyPatch,
    event: Callable[[FakeS3], None],
) -> None:
    """It fails, or its listing settles: the operator reads of that, not of the hold."""
    clock = Clock()
    monkeypatch.setattr(cycle, "Brake", partial(Brake, clock=clock))
    world = World(s3, process, {})
    many_published(world)
    process.start(world.settings | {"S3_SYNC_SETTLE": "0.001"})
    lost_most(world)

    ended = list[str]()

    def has_settled() -> bool:
        ended.append(process.cycle().reason)
        return ended[-1] != "source_unsettled"

    def settled() -> str:
        wait_until(has_settled, "it settles")
        return ended[-1]

    assert "deletion_held" == settled()
    clock.seconds += 1
    event(s3)
    with suppress(SidecarError):
        assert "source_unsettled" == process.cycle().reason
    clock.seconds += HOLD_SECONDS

    assert "deletion_held" == settled()
    # Nor does one that fails before it has a volume.
    with monkeypatch.context() as broken:
        broken.setattr(Volume, "is_current", Mock(side_effect=OSError(5, "EIO")))
        process.attempt()
    clock.seconds += HOLD_SECONDS
    assert "deletion_held" == settled()
    clock.seconds += HOLD_SECONDS
    assert "" == settled()


def what_is_published(process: Process) -> str:
    """Return the state that the process reports, in the words of the table."""
    readiness = process.readiness
    if readiness.published_at is None:
        return "nothing"
    if "fallback" in readiness.shortfall:
        return "a fallback"
    return "partial" if readiness.shortfall else "complete"
