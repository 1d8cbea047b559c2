"""
Which snapshots are kept, and how the others are removed.
"""

import time
from pathlib import Path

import pytest

from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.snapshots import ASKED
from tests.runtime.volume.snapshot_store import Shelf, filling, pruned

YEAR_SECONDS = 365 * 86400


@pytest.mark.parametrize(
    ("count", "seconds", "ages", "stay"),
    [
        (2, 0.0, [99, 98, 97, 96], {"r5", "r4", "r3"}),
        (0, 600.0, [590, 10_000], {"r3", "r1"}),
        (0, 600.0, [610, 10_000], {"r3"}),
        (0, 0.0, [1, 1], {"r3"}),
        (2, 600.0, [YEAR_SECONDS - n for n in (1, 2, 3)], {"r4", "r3", "r2"}),
    ],
    ids=["by number", "lately", "not so lately", "none", "a clock that was set forward"],
)
def test_keeps_snapshots_by_count_or_if_replaced_recently(
    shelf: Shelf, count: int, seconds: float, ages: list[float], stay: set[str]
) -> None:
    """The ages are those of r1, r2, …; the link shows the newest revision."""
    names = [f"r{number}" for number in range(1, len(ages) + 2)]
    snapshots = shelf.make(*names, retain_count=count, retain_seconds=seconds)
    for name, age in zip(names, ages, strict=False):
        shelf.age(name, age)

    assert stay == pruned(snapshots) == pruned(snapshots) == shelf.names()
    assert names[-1] == (shelf.link / "a.py").read_text()


def test_keeps_the_newest_requested_snapshots(shelf: Shelf) -> None:
    """They are counted separately from older snapshots; their marks are removed with them."""
    snapshots = shelf.make("r1", "r2")
    for name in ("a1", "a2", "a3"):
        snapshots.add(f".{name}", filling(name), Fence())
        snapshots.keep_asked(f".{name}", name, Fence())
    for age, name in enumerate(("a3", "a2", "a1", "r1"), start=1):
        shelf.age(name, age)
    snapshots = shelf.begin(retain_count=1, retain_seconds=0, asked_count=2)

    assert ["a3", "a2", "a1"] == snapshots.asked()
    assert {"r2", "r1", "a3", "a2"} == pruned(snapshots)
    assert {"r2", "r1", "a3", "a2", f"a3{ASKED}", f"a2{ASKED}"} == shelf.names()


def test_a_clock_that_was_set_back_keeps_no_snapshot_indefinitely(shelf: Shelf) -> None:
    """A replacement time in the future counts as now."""
    snapshots = shelf.make("r1", "r2", retain_count=0)
    shelf.age("r1", -86400)

    assert {"r1", "r2"} == pruned(snapshots)
    assert (shelf.store / "r1").stat().st_mtime <= time.time()
    assert {"r1", "r2"} == pruned(snapshots)
    shelf.age("r1", 601)
    assert {"r2"} == pruned(snapshots)


def test_an_abandoned_cycle_cannot_replace_the_snapshot_of_its_successor(
    shelf: Shelf,
) -> None:
    """Its thread, which returns late, shares process id and store with its successor."""
    late, successor = shelf.begin(), shelf.begin()

    def fill(folder: int) -> None:
        successor.add("r1", filling("successor"), Fence())
        filling("late")(folder)

    with pytest.raises(OSError, match="not empty"):
        late.add("r1", fill, Fence())

    assert "successor" == (shelf.store / "r1/a.py").read_text()
    assert {"r1"} == shelf.names()


# --- sweep and remove


def test_sweep_removes_only_leftovers_of_a_crash(shelf: Shelf, tmp_path: Path) -> None:
    snapshots = shelf.make("r1", "r2")
    (shelf.store / ".r3.7/d").mkdir(parents=True)
    (shelf.store / ".r3.7/d/a.py").write_text("x")
    (shelf.store / ".file").write_text("x")
    (shelf.store / ".link").symlink_to(tmp_path)
    (shelf.store / "r1.managed").write_text("x")

    snapshots.sweep()

    assert {"r1", "r2", "r1.managed"} == shelf.names()
    assert tmp_path.exists() and "r2" == snapshots.current()
