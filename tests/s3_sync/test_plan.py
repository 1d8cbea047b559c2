"""What should be on disk ↔ what is → plan; the brake; names that a volume does not distinguish."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_sync.folder.journal import Held
from s3_sync.listing import Entry
from s3_sync.plan import HOLD_SECONDS, Brake, Plan, State, make_plan, without_clashes
from sidecar_runtime.errors import SidecarError
from tests.runtime.recording import Log
from tests.support.machine.clocks import Clock

PATHS = st.sampled_from(["a", "b", "c/d", "c/e", "f/g/h"])
ETAGS = st.sampled_from(["one", "two"])
SIZES = st.integers(0, 2)
WANTED = st.dictionaries(PATHS, st.builds(Entry, st.just("key"), ETAGS, SIZES))
HOLDINGS = st.dictionaries(PATHS, st.builds(Held, ETAGS, SIZES, st.just(1), st.just(2), st.just(3)))


@dataclass
class World:
    """A model of a folder: files on disk, and our files; damaged ones are held without content."""

    disk: dict[str, object]
    held: dict[str, Held]

    @property
    def foreign(self) -> dict[str, object]:
        return {path: what for path, what in self.disk.items() if path not in self.held}

    def apply(self, plan: Plan, wanted: Mapping[str, Entry]) -> None:
        for path in plan.put:
            self.disk[path] = entry = wanted[path]
            self.held[path] = Held(entry.etag, entry.size_bytes, 1, 2, 3)
        for path in plan.delete:
            self.disk.pop(path, None)
            self.held.pop(path, None)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    held = draw(HOLDINGS)
    disk: dict[str, object] = dict(held)
    damaged = {path for path in held if draw(st.booleans())}
    for path in damaged:
        held[path] = held[path]._replace(etag="")
        disk[path] = "damaged"
        if draw(st.booleans()):
            del disk[path]
    foreign = draw(st.sets(st.sampled_from(["x", "c/z", "__pycache__/p", "a", "c/d"])))
    foreign -= held.keys()
    return World(disk | dict.fromkeys(foreign, "foreign"), held)


def plan_of(wanted: Mapping[str, Entry], world: World, **changes: Any) -> Plan:
    arguments: dict[str, Any] = {"may_delete": True}
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
        assert not is_right


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


# --- the brake


def many(count: int) -> set[str]:
    return {f"{number:03}.py" for number in range(count)}


def brake(clock: Clock, percent: int = 80) -> Brake:
    return Brake(percent, clock)


def is_held(one: Brake, wanted: set[str], managed: set[str], asked: bool = False) -> bool:
    return one.judge(managed - wanted, len(managed), is_asked_for=asked) is not None


@pytest.mark.parametrize(
    ("managed", "left", "held"),
    [(100, 20, False), (100, 19, True), (25, 5, False), (25, 4, True), (21, 1, False)],
)
def test_holds_over_20_deletions_above_the_share(managed: int, left: int, held: bool) -> None:
    assert held == is_held(brake(Clock()), many(left), many(managed))


def test_applies_the_deletion_after_the_hold_time(log: Log) -> None:
    clock = Clock()
    one = brake(clock)
    for _ in range(3):
        assert is_held(one, many(1), many(100))
        clock.seconds += HOLD_SECONDS / 3

    assert not is_held(one, many(1), many(100))
    assert [(99, 20)] == [
        (event["files_to_delete"], len(event["paths"])) for event in log.events("deletion_held")
    ]


def test_a_complete_listing_restarts_the_hold_time() -> None:
    clock = Clock()
    one = brake(clock)
    assert is_held(one, many(1), many(100))
    clock.seconds += HOLD_SECONDS - 1
    assert not is_held(one, many(100), many(100))
    clock.seconds += 1

    assert is_held(one, many(1), many(100))


def test_sighup_ends_an_existing_hold() -> None:
    one = brake(Clock())

    assert is_held(one, many(1), many(100), asked=True)  # SIGHUP came before the hold
    assert not is_held(one, many(1), many(100), asked=True)


@pytest.mark.parametrize("asked", [False, True])
def test_an_approved_deletion_does_not_cover_the_next_one(asked: bool) -> None:
    clock = Clock()
    one = brake(clock)
    assert is_held(one, many(100), many(1000))
    clock.seconds += 0 if asked else HOLD_SECONDS
    assert not is_held(one, many(100), many(1000), asked=asked)

    assert not is_held(one, many(99), many(600))  # some of the files were deleted, then S3 failed
    assert is_held(one, many(5), many(99))
    clock.seconds += HOLD_SECONDS - 1
    assert is_held(one, many(5), many(99))


def test_the_brake_can_be_switched_off() -> None:
    assert not is_held(brake(Clock(), 100), set(), many(100))


# --- names


def state_of(*paths: str, is_whole: bool = False) -> State:
    files = {path: Entry(path, "etag", 1) for path in paths}
    return State("revision", files, {"dags/x//y": "unsafe_path"}, is_whole=is_whole)


@pytest.mark.parametrize(
    ("kept", "skipped"),
    [
        (["a.py", "b.py"], []),
        (["A.py", "b.py"], ["a.py"]),
        (["A.PY"], ["A.py", "a.py"]),
        (["Pkg/a.py", "pkg/b.py"], ["pkg/A.py"]),
        (["pkg/a.py", "pkg/b.py", "pkgs/a.py"], []),
    ],
)
def test_keeps_the_first_of_several_names_that_the_volume_does_not_distinguish(
    kept: list[str], skipped: list[str]
) -> None:
    found = without_clashes(state_of(*kept, *skipped), str.casefold, "dags/")

    assert set(kept) == set(found.files)
    clashes = {f"dags/{path}": "name_clash" for path in skipped}
    assert {"dags/x//y": "unsafe_path", **clashes} == found.skipped
    assert "revision" == found.revision


def test_keeps_all_names_where_the_volume_distinguishes_them() -> None:
    state = state_of("a.py", "A.py")

    assert state is without_clashes(state, None, "dags/")


def test_refuses_a_release_with_names_that_the_volume_does_not_distinguish() -> None:
    with pytest.raises(SidecarError, match="does not distinguish") as caught:
        without_clashes(state_of("a.py", "A.py", is_whole=True), str.casefold)

    assert "release_invalid" == caught.value.reason
