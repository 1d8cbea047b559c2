"""
What should be on disk ↔ what is → plan; the brake; names that a volume does not
distinguish.
"""

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_sync.folder.journal import Held
from s3_sync.listing import Entry
from s3_sync.plan import HOLD_SECONDS, Brake, Plan, State, make_plan, without_clashes
from s3_sync.sync import compare
from sidecar_runtime.errors import SidecarError
from tests.runtime.recording import Log
from tests.support.machine.clocks import Clock

PATHS = st.sampled_from(["a", "b", "c/d", "c/e", "f/g/h"])
ETAGS = st.sampled_from(["one", "two"])
SIZES = st.integers(0, 2)
WANTED = st.dictionaries(PATHS, st.builds(Entry, st.just("key"), ETAGS, SIZES))
HOLDINGS = st.dictionaries(
    PATHS, st.builds(Held, ETAGS, SIZES, st.just(1), st.just(2), st.just(3))
)


@dataclass
class World:
    """
    A model of a folder: files on disk, and our files; damaged ones are held without
    content.
    """

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


def plan_of(
    wanted: Mapping[str, Entry],
    world: World,
    *,
    foreign: Collection[str] = (),
    kept: Set[str] = frozenset(),
) -> Plan:
    return make_plan(State("r1", wanted, kept=kept), world.held, foreign=foreign)


@given(WANTED, worlds())
def test_our_files_become_the_wanted_files_and_foreign_ones_stay(
    wanted: dict[str, Entry], world: World
) -> None:
    foreign, plan = dict(world.foreign), plan_of(wanted, world)
    assert not foreign.keys() & set(plan.delete)
    assert Plan(plan.put, ()) == plan_of(wanted, world, kept={*world.disk, *world.held})
    for path in plan.put:
        held, entry = world.held.get(path), wanted[path]
        assert held is None or (held.etag, held.size_bytes) != (
            entry.etag,
            entry.size_bytes,
        )

    world.apply(plan, wanted)

    assert {
        path: (held.etag, held.size_bytes) for path, held in world.held.items()
    } == {path: (entry.etag, entry.size_bytes) for path, entry in wanted.items()}
    assert "damaged" not in world.disk.values()
    assert wanted.keys() <= world.disk.keys()
    assert world.foreign == {
        path: what for path, what in foreign.items() if path not in wanted
    }
    assert Plan((), ()) == plan_of(wanted, world)


@given(WANTED, worlds(), st.sets(PATHS))
def test_deletes_the_given_foreign_files_and_never_those_that_are_kept(
    wanted: dict[str, Entry], world: World, kept: set[str]
) -> None:
    """
    Kept are files whose object cannot be read by anybody, and all under
    S3_SYNC_DELETE=none.
    """
    foreign = sorted(world.foreign)
    plan = plan_of(wanted, world, foreign=foreign)
    assert set(plan.delete) - kept == {
        *plan_of(wanted, world, foreign=foreign, kept=kept).delete
    }

    world.apply(plan, wanted)

    assert world.disk.keys() == wanted.keys()


# --- the brake


def many(count: int) -> set[str]:
    return {f"{number:03}.py" for number in range(count)}


def is_held(
    one: Brake, wanted: set[str], managed: set[str], asked: bool = False
) -> bool:
    return one.judge(managed - wanted, len(managed), is_asked_for=asked) is not None


@pytest.mark.parametrize(
    ("percent", "managed", "left", "held"),
    [(80, 100, 20, False), (80, 100, 19, True), (80, 25, 5, False), (80, 25, 4, True),
     (80, 21, 1, False), (100, 100, 0, False)],
)  # fmt: skip
def test_holds_over_20_deletions_above_the_share(
    percent: int, managed: int, left: int, held: bool
) -> None:
    assert held == is_held(Brake(percent, Clock()), many(left), many(managed))


def test_applies_the_deletion_after_the_hold_time_which_a_complete_listing_restarts(
    log: Log,
) -> None:
    clock = Clock()
    one = Brake(80, clock)
    assert is_held(one, many(1), many(100))
    clock.seconds += HOLD_SECONDS - 1
    assert not is_held(one, many(100), many(100))
    for _ in range(3):
        assert is_held(one, many(1), many(100))
        clock.seconds += HOLD_SECONDS / 3

    assert not is_held(one, many(1), many(100))
    assert [(99, 20)] * 2 == [
        (event["files_to_delete"], len(event["paths"]))
        for event in log.events("deletion_held")
    ]


@pytest.mark.parametrize("asked", [False, True])
def test_an_approved_deletion_does_not_cover_the_next_one(asked: bool) -> None:
    clock = Clock()
    one = Brake(80, clock)
    assert is_held(one, many(100), many(1000), asked)  # SIGHUP came before the hold
    clock.seconds += 0 if asked else HOLD_SECONDS
    assert not is_held(one, many(100), many(1000), asked)

    # some of the files were deleted, then S3 failed
    assert not is_held(one, many(99), many(600))
    assert is_held(one, many(5), many(99))
    clock.seconds += HOLD_SECONDS - 1
    assert is_held(one, many(5), many(99))


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
    state = state_of(*kept, *skipped)

    found = without_clashes(state, str.casefold, "dags/")

    assert set(kept) == set(found.files)
    clashes = {f"dags/{path}": "name_clash" for path in skipped}
    assert {"dags/x//y": "unsafe_path", **clashes} == found.skipped
    assert "revision" == found.revision
    assert state is without_clashes(state, None, "dags/"), (
        "a volume that distinguishes them"
    )
    cold = without_clashes(
        state_of("a.py")._replace(kept={"A.py", "b.py"}), str.casefold
    )
    assert {"b.py"} == cold.kept


def test_refuses_a_release_with_names_that_the_volume_does_not_distinguish() -> None:
    with pytest.raises(SidecarError, match="does not distinguish") as caught:
        without_clashes(state_of("a.py", "A.py", is_whole=True), str.casefold)

    assert "release_invalid" == caught.value.reason


def test_a_file_that_was_restored_or_linked_is_no_change() -> None:
    old, new = Held("one", 1, 2, 3, 4), Held("two", 1, 2, 3, 4)
    after = {"a": old._replace(inode=9), "b": old, "c": new, "d": new}
    found = compare({"a": old, "b": old, "c": old, "e": old}, after)
    assert {"added": ["d"], "changed": ["c"], "deleted": ["e"]} == found
