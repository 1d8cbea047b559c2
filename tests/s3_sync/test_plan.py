"""What should be on disk ↔ what is → plan."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_sync.folder.journal import Held
from s3_sync.pages import Entry
from s3_sync.plan import Plan, State, make_plan

PATHS = st.sampled_from(["a", "b", "c/d", "c/e", "f/g/h"])
ETAGS = st.sampled_from(["one", "two"])
SIZES = st.integers(0, 2)
WANTED = st.dictionaries(PATHS, st.builds(Entry, st.just("key"), ETAGS, SIZES))
HOLDINGS = st.dictionaries(PATHS, st.builds(Held, ETAGS, SIZES, st.just(1), st.just(2), st.just(3)))


@dataclass
class World:
    """A model of a folder: files on disk, our files, damaged files."""

    disk: dict[str, object]
    held: dict[str, Held]
    damaged: set[str]

    @property
    def foreign(self) -> dict[str, object]:
        return {path: what for path, what in self.disk.items() if path not in self.held}

    def apply(self, plan: Plan, wanted: Mapping[str, Entry]) -> None:
        for path in plan.put:
            self.disk[path] = entry = wanted[path]
            self.held[path] = Held(entry.etag, entry.size_bytes, 1, 2, 3)
            self.damaged.discard(path)
        for path in plan.delete:
            self.disk.pop(path, None)
            self.held.pop(path, None)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    held = draw(HOLDINGS)
    disk: dict[str, object] = dict(held)
    damaged = {path for path in held if draw(st.booleans())}
    for path in damaged:
        disk[path] = "damaged"
        if draw(st.booleans()):
            del disk[path]
    foreign = draw(st.sets(st.sampled_from(["x", "c/z", "__pycache__/p", "a", "c/d"])))
    foreign -= held.keys()
    return World(disk | dict.fromkeys(foreign, "foreign"), held, damaged)


def plan_of(wanted: Mapping[str, Entry], world: World, **changes: Any) -> Plan:
    arguments: dict[str, Any] = {"damaged": world.damaged, "may_delete": True}
    state = State("r1", wanted, kept=changes.pop("kept", ()))
    return make_plan(state, world.held, **(arguments | changes))


@given(WANTED, worlds())
def test_our_files_become_the_wanted_files(wanted: dict[str, Entry], world: World) -> None:
    foreign = dict(world.foreign)

    world.apply(plan_of(wanted, world), wanted)

    assert {path: (held.etag, held.size_bytes) for path, held in world.held.items()} == {
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
def test_never_puts_files_that_are_up_to_date(wanted: dict[str, Entry], world: World) -> None:
    for path in plan_of(wanted, world).put:
        held, entry = world.held.get(path), wanted[path]
        is_right = held and (held.etag, held.size_bytes) == (entry.etag, entry.size_bytes)
        assert path in world.damaged or not is_right


@given(WANTED, worlds())
def test_deletes_nothing_if_may_delete_is_false(wanted: dict[str, Entry], world: World) -> None:
    plan = plan_of(wanted, world, may_delete=False, foreign=["x"])

    assert plan.delete == ()
    assert plan.put == plan_of(wanted, world).put


@given(WANTED, worlds())
def test_deletes_the_given_foreign_files(wanted: dict[str, Entry], world: World) -> None:
    world.apply(plan_of(wanted, world, foreign=sorted(world.foreign)), wanted)

    assert world.disk.keys() == wanted.keys()


@given(WANTED, worlds(), st.sets(PATHS))
def test_never_deletes_a_file_whose_object_cannot_be_read_by_anybody(
    wanted: dict[str, Entry], world: World, kept: set[str]
) -> None:
    """Such as an archived one."""
    plan = plan_of(wanted, world, kept=kept, foreign=sorted(world.foreign))

    assert not kept & set(plan.delete)
    assert set(plan_of(wanted, world, foreign=sorted(world.foreign)).delete) <= {
        *plan.delete,
        *kept,
    }


ENTRY = Entry("a", "etag", 5)
HELD = Held("etag", 5, 1, 2, 3)


@pytest.mark.parametrize(
    ("held", "is_published"),
    [
        (HELD, False),
        (HELD._replace(mtime_ns=99, inode=99, mode=99), False),
        (HELD._replace(etag="other"), True),
        (HELD._replace(size_bytes=6), True),
    ],
)
def test_only_another_etag_or_size_is_a_change(held: Held, is_published: bool) -> None:
    plan = make_plan(State("r1", {"a": ENTRY}), {"a": held}, may_delete=True)

    assert bool(plan.put) is is_published
