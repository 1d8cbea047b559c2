"""Actual state ↔ wanted state → plan."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_sync.listing.entries import Entry
from s3_sync.plan import Plan, make_plan
from s3_sync.tree.journal import Managed

PATHS = st.sampled_from(["a", "b", "c/d", "c/e", "f/g/h"])
ETAGS = st.sampled_from(["one", "two"])
SIZES = st.integers(0, 2)
WANTED = st.dictionaries(PATHS, st.builds(Entry, st.just("key"), ETAGS, SIZES))
MANAGED = st.dictionaries(
    PATHS, st.builds(Managed, ETAGS, SIZES, st.just(1), st.just(2), st.just(3))
)


@dataclass
class World:
    """A model of a folder: files on disk, managed files, damaged files."""

    disk: dict[str, object]
    managed: dict[str, Managed]
    damaged: set[str]

    @property
    def foreign(self) -> dict[str, object]:
        return {path: what for path, what in self.disk.items() if path not in self.managed}

    def apply(self, plan: Plan, wanted: Mapping[str, Entry]) -> None:
        for path in plan.publish:
            self.disk[path] = entry = wanted[path]
            self.managed[path] = Managed(entry.etag, entry.size_bytes, 1, 2, 3)
            self.damaged.discard(path)
        for path in plan.delete:
            self.disk.pop(path, None)
            self.managed.pop(path, None)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    managed = draw(MANAGED)
    disk: dict[str, object] = dict(managed)
    damaged = {path for path in managed if draw(st.booleans())}
    for path in damaged:
        disk[path] = "damaged"
        if draw(st.booleans()):
            del disk[path]
    foreign = draw(st.sets(st.sampled_from(["x", "c/z", "__pycache__/p", "a", "c/d"])))
    foreign -= managed.keys()
    return World(disk | dict.fromkeys(foreign, "foreign"), managed, damaged)


def plan_of(wanted: Mapping[str, Entry], world: World, **changes: object) -> Plan:
    arguments = {"damaged": world.damaged, "foreign": (), "last": (), "may_delete": True}
    return make_plan(wanted, world.managed, **(arguments | changes))  # type: ignore[arg-type]


@given(WANTED, worlds())
def test_managed_files_become_the_wanted_files(wanted: dict[str, Entry], world: World) -> None:
    foreign = dict(world.foreign)

    world.apply(plan_of(wanted, world), wanted)

    assert {path: (held.etag, held.size_bytes) for path, held in world.managed.items()} == {
        path: (entry.etag, entry.size_bytes) for path, entry in wanted.items()
    }
    assert "damaged" not in world.disk.values()
    assert wanted.keys() <= world.disk.keys()
    assert world.foreign == {path: what for path, what in foreign.items() if path not in wanted}


@given(WANTED, worlds())
def test_never_deletes_foreign_files(wanted: dict[str, Entry], world: World) -> None:
    assert not world.foreign.keys() & set(plan_of(wanted, world).delete)


@given(WANTED, worlds())
def test_a_second_plan_is_empty(wanted: dict[str, Entry], world: World) -> None:
    world.apply(plan_of(wanted, world), wanted)

    assert plan_of(wanted, world) == Plan((), ())


@given(WANTED, worlds())
def test_never_publishes_files_that_are_up_to_date(wanted: dict[str, Entry], world: World) -> None:
    for path in plan_of(wanted, world).publish:
        held, entry = world.managed.get(path), wanted[path]
        is_right = held and (held.etag, held.size_bytes) == (entry.etag, entry.size_bytes)
        assert path in world.damaged or not is_right


@given(WANTED, worlds())
def test_deletes_nothing_if_may_delete_is_false(wanted: dict[str, Entry], world: World) -> None:
    plan = plan_of(wanted, world, may_delete=False, foreign=["x"])

    assert plan.delete == ()
    assert plan.publish == plan_of(wanted, world).publish


@given(WANTED, worlds())
def test_deletes_the_given_foreign_files(wanted: dict[str, Entry], world: World) -> None:
    world.apply(plan_of(wanted, world, foreign=sorted(world.foreign)), wanted)

    assert world.disk.keys() == wanted.keys()


@given(WANTED, worlds(), st.sets(PATHS))
def test_files_that_failed_before_come_last(
    wanted: dict[str, Entry], world: World, last: set[str]
) -> None:
    plain = plan_of(wanted, world).publish
    plan = plan_of(wanted, world, last=last).publish

    assert sorted(plain, key=lambda path: path in last) == list(plan)


ENTRY = Entry("a", "etag", 5, "dags/")
HELD = Managed("etag", 5, 1, 2, 3)


@pytest.mark.parametrize(
    ("held", "is_published"),
    [
        (HELD, False),
        (HELD._replace(mtime_ns=99, inode=99, mode=99), False),
        (HELD._replace(etag="other"), True),
        (HELD._replace(size_bytes=6), True),
    ],
)
def test_only_another_etag_or_size_is_a_change(held: Managed, is_published: bool) -> None:
    plan = make_plan({"a": ENTRY}, {"a": held}, damaged=(), foreign=(), last=(), may_delete=True)

    assert bool(plan.publish) is is_published


def test_a_plan_without_actions_is_empty() -> None:
    plans = [Plan((), ()), Plan(("a",), ()), Plan((), ("a",))]

    assert [True, False, False] == [plan.is_empty for plan in plans]
