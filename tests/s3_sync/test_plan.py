"""
What should be on disk ↔ what is → plan; the brake; names that a volume does not
distinguish.
"""

import pytest

from s3_sync.cycle import changes
from s3_sync.holds import HOLD_SECONDS, Brake, Holds
from s3_sync.journal import Held
from s3_sync.listing import Entry
from s3_sync.plan import (
    Done,
    State,
    There,
    Wait,
    Work,
    decide,
    without_clashes,
)
from s3_sync.published import Published
from s3_sync.reasons import failure
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.gate.gate import Finding, RevisionRefused
from tests.runtime.recording import Log
from tests.support.machine.clocks import Clock


def test_a_change_is_another_etag_or_size_and_what_is_kept_stays() -> None:
    entries = {name: Entry(name, "one", 1) for name in ("same", "new", "etag", "size")}
    held = {
        "same": ONE,
        "etag": ONE._replace(etag="two"),
        "size": ONE._replace(size_bytes=2),
        "kept": ONE,
    }
    there = There(held, held, Published(aim="r1", missing=3), is_ready=True)

    assert Done(["new", "etag", "size"]) == decide(
        State("r1", entries, kept={"kept"}), there, Holds(resting=entries.keys()), 0.0
    )


# --- what a cycle has to do

ONE = Held("one", 1, 2, 3, 4)
R1 = State("r1", {"a": Entry("a", "one", 1), "b": Entry("b", "one", 1)}, is_whole=True)
SHOWN = Published("r1", "r1", "r1", published_at=1.0, files=2)
FILES = {"a": ONE, "b": ONE}
BOTH = There(FILES, FILES, SHOWN, is_ready=True)
ONLY_A = BOTH._replace(
    intact={"a": ONE},
    published=SHOWN._replace(revision="", missing=1, files=1),
    is_snapshot=True,
)
UPLOAD = failure("source_unsettled", "it has not stayed the same")
HELD = failure("deletion_held", "most files are missing")
NO = RevisionRefused("r1", [Finding("a", 1, "it is refused")])
# What is there, what holds the cycle back, and what it has to do at the time 100.
DECISIONS: dict[str, tuple[State, There, Holds, object]] = {
    "nothing is published": (R1, There(), Holds(), Work()),
    "all is published": (R1, BOTH, Holds(), Done([])),
    "one cannot be read": (R1, ONLY_A, Holds(resting={"b", "c"}), Done(["b"])),
    "and is due again": (R1, ONLY_A, Holds(resting={"c"}), Work()),
    "the same, but not recorded": (
        R1,
        ONLY_A._replace(published=SHOWN, is_snapshot=False),
        Holds(resting={"b"}),
        Work(),
    ),
    "in place, a killed process left one of another state": (
        R1,
        BOTH._replace(intact={**FILES, "b": ONE._replace(etag="two")}),
        Holds(),
        Work(),
    ),
    "the link leads elsewhere": (
        R1,
        BOTH._replace(is_ready=False, is_snapshot=True),
        Holds(),
        Work(),
    ),
    "one has no key any more": (
        R1,
        BOTH._replace(files={**FILES, "c": ONE}),
        Holds(),
        Work({"c"}),
    ),
    "another listing with the same files": (
        R1,
        BOTH._replace(published=SHOWN._replace(aim="r0"), is_snapshot=True),
        Holds(),
        Work(),
    ),
    "a fallback": (
        R1,
        BOTH._replace(
            published=SHOWN._replace(name="r0", fallback="r1"), is_snapshot=True
        ),
        Holds(),
        Work(),
    ),
    "it settles": (
        R1,
        BOTH,
        Holds((UPLOAD, 3.0), (HELD, 8.0), NO),
        (103.0, "source_unsettled", False),
    ),
    "it is held back": (
        R1,
        BOTH,
        Holds(brake=(HELD, 8.0), refusal=NO),
        (108.0, "deletion_held", True),
    ),
    "it was refused": (R1, BOTH, Holds(refusal=NO), (None, "revision_refused", False)),
    "it was refused, and nothing can be used": (
        R1,
        BOTH._replace(is_ready=False),
        Holds(refusal=NO),
        Work(),
    ),
}


@pytest.mark.parametrize("situation", DECISIONS)
def test_each_situation_has_its_work_wait_or_end(situation: str) -> None:
    state, there, holds, expected = DECISIONS[situation]

    found = decide(state, there, holds, 100.0)

    if isinstance(found, Wait):
        assert expected == (found.until, found.why.reason, found.is_enough)
    else:
        assert expected == found


# --- the brake


class Listings:
    """A brake, and what the cycles of its sidecar bring; 100 files are published."""

    def __init__(self, percent: int = 20) -> None:
        self.clock = Clock()
        self.brake = Brake(percent, self.clock)
        self.published = 100
        self.left_seconds = 0.0

    def read(self, missing: range, *, asked: bool = False) -> bool:
        """Read a listing that lacks files; return whether it is held back."""
        self.brake.begin_cycle()
        judged = self.brake.judge(
            {f"{number:04}.py" for number in missing},
            self.published,
            is_asked_for=asked,
        )
        self.left_seconds = judged[1] if judged else 0.0
        return judged is not None

    def fail(self) -> None:
        """Run a cycle that reads no listing, or whose listing settles."""
        self.brake.begin_cycle()


@pytest.mark.parametrize(
    ("percent", "managed", "left", "held"),
    [(80, 100, 20, False), (80, 100, 19, True), (80, 25, 5, False), (80, 25, 4, True),
     (80, 21, 1, False), (100, 100, 0, False)],
)  # fmt: skip
def test_holds_over_20_deletions_above_the_share(
    percent: int, managed: int, left: int, held: bool
) -> None:
    world = Listings(percent)
    world.published = managed

    assert held == world.read(range(left, managed))


MOST = range(99)
"""What a listing lacks: almost everything."""
HALF = HOLD_SECONDS / 2
# What happens from the first listing without MOST on: seconds to wait before it, what a
# cycle reads ("fails": nothing that could be judged), and whether it is held back.
SITUATIONS: dict[str, list[tuple[float, object, bool]]] = {
    "each listing lacks them": [
        (HALF, MOST, True),
        (HALF - 1, MOST, True),
        (1, MOST, False),
    ],
    "one listing is complete": [
        (HALF, range(0), False),
        (HALF, MOST, True),
        (HOLD_SECONDS - 1, MOST, True),
        (1, MOST, False),
    ],
    "cycles fail or settle until long after": [
        (1, "fails", False),
        (HALF, "fails", False),
        (2 * HOLD_SECONDS, MOST, True),
        (HOLD_SECONDS - 1, MOST, True),
        (1, MOST, False),
    ],
    "the interval is longer": [(4 * HOLD_SECONDS, MOST, False)],
    "some cycles fail": [
        (HALF, MOST, True),
        (1, "fails", False),
        (1, MOST, True),
        (HALF - 1, MOST, True),
        (1, MOST, False),
    ],
    "other files are missing instead": [
        (0, range(50, 100), True),
        (HALF, range(50), True),
        (HOLD_SECONDS - 1, range(50), True),
        (1, range(50), False),
    ],
    "few more are missing later": [
        (0, range(80), True),
        (HOLD_SECONDS - 1, range(80), True),
        (1, range(100), False),
    ],
    "SIGHUP": [(1, "asked", False), (1, MOST, False)],
    "SIGHUP after failures": [(1, "fails", False), (HALF, "asked", False)],
    "SIGHUP while cycles fail": [
        (1, "asked and fails", False),
        (1, MOST, True),
        (1, "asked", False),
    ],
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_holds_a_listing_until_the_same_files_were_missing_for_15_minutes(
    situation: str,
) -> None:
    """The time of cycles that judge no listing does not count: nobody saw the hold."""
    world = Listings()
    assert world.read(MOST)
    for step, (seconds, event, is_held) in enumerate(SITUATIONS[situation]):
        world.clock.seconds += seconds
        if isinstance(event, range):
            held = world.read(event)
        elif event == "asked":
            held = world.read(MOST, asked=True)
        else:
            world.fail()
            held = False

        assert is_held == held, f"step {step}"


def test_a_hold_lasts_until_the_younger_of_two_groups_was_missing_long_enough() -> None:
    """What it says is how long the loop may rest: none of it is negative."""
    world = Listings()
    world.read(range(30))
    for seconds in (600, 300):
        world.clock.seconds += seconds
        assert world.read(range(60))

    assert HOLD_SECONDS - 300 == world.left_seconds


def test_a_listing_on_which_sighup_came_first_is_held() -> None:
    assert Listings().read(MOST, asked=True)


@pytest.mark.parametrize("asked", [False, True])
def test_an_approved_deletion_does_not_cover_the_next_one(asked: bool) -> None:
    world = Listings(80)
    world.published = 1000
    assert world.read(range(100, 1000))
    world.clock.seconds += 0 if asked else HOLD_SECONDS
    assert not world.read(range(100, 1000), asked=asked)

    # some of the files were deleted, then S3 failed
    world.fail()
    world.published = 600
    assert not world.read(range(99, 600))
    world.published = 99
    assert world.read(range(5, 99))
    world.clock.seconds += HOLD_SECONDS - 1
    assert world.read(range(5, 99))


def test_logs_each_hold_once_with_its_first_files(log: Log) -> None:
    world = Listings()
    for missing in (MOST, MOST, range(0), MOST):
        world.read(missing)

    assert [(99, 20)] * 2 == [
        (event["files_to_delete"], len(event["paths"]))
        for event in log.events("deletion_held")
    ]


# --- names


def state_of(*paths: str, is_whole: bool = False) -> State:
    return State(
        "revision",
        {path: Entry(path, "etag", 1) for path in paths},
        {"dags/x//y": "unsafe_path"},
        is_whole=is_whole,
    )


@pytest.mark.parametrize(
    ("kept", "skipped"),
    [
        (["a.py", "b.py"], []),
        (["A.py", "b.py"], ["a.py"]),
        (["A.PY"], ["A.py", "a.py"]),
        (["Pkg/a.py", "pkg/b.py"], ["pkg/A.py"]),
        (["pkg/a.py"], ["PKG"]),
        (["pkg/a.py", "pkg/b.py", "pkgs/a.py"], []),
    ],
)
def test_keeps_the_first_of_several_names_that_the_volume_does_not_distinguish(
    kept: list[str], skipped: list[str]
) -> None:
    state = state_of(*kept, *skipped)

    found = without_clashes(state, str.casefold, "dags/")

    assert set(kept) == set(found.files)
    assert {
        "dags/x//y": "unsafe_path",
        **{f"dags/{path}": "name_clash" for path in skipped},
    } == found.skipped
    assert "revision" == found.revision
    assert state is without_clashes(state, None, "dags/"), (
        "a volume that distinguishes them"
    )


def test_refuses_a_release_with_names_that_the_volume_does_not_distinguish() -> None:
    with pytest.raises(SidecarError, match="does not distinguish") as caught:
        without_clashes(state_of("a.py", "A.py", is_whole=True), str.casefold)

    assert "release_invalid" == caught.value.reason


def test_a_file_that_was_restored_or_linked_is_no_change() -> None:
    old = Held("one", 1, 2, 3, 4)
    new = Held("two", 1, 2, 3, 4)
    after = {"a": old._replace(inode=9), "b": old, "c": new, "d": new}

    assert {"added": ["d"], "changed": ["c"], "deleted": ["e"]} == changes(
        {"a": old, "b": old, "c": old, "e": old}, after
    )
