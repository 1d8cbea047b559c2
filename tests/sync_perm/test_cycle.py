"""
What a cycle leaves to the next one: the order of DAGs, and what passes did not fix.
"""

import pytest

from sync_perm.airflow import Portion, Report
from sync_perm.compare import KINDS, Difference, Item
from sync_perm.cycle import Memory
from sync_perm.tables import Look
from tests.sync_perm.given import tables

MISSING = {
    name: Item("dag_permission", name, ("can_read", f"DAG:{name}")) for name in "abc"
}
FULL = {"a": "DiskFull", "b": "DiskFull"}
# The grant of a DAG by the roles file, which another spelling of its id has on MySQL.
GIVEN = Item("file_dag_grant", "a", ("team", "can_read", "DAG:a"))


def planned(memory: Memory, *items: Item) -> Portion | None:
    found = Difference(frozenset(items), {}, len(items))
    return memory.plan(Look(tables(), frozenset(), found, is_written=True))


def test_a_portion_creates_roles_before_it_grants_anything() -> None:
    portion = planned(Memory(), *(Item(kind, "", ("team",)) for kind in KINDS[3:]))

    assert portion and "file_role" == next(iter(portion.given)).kind


def test_a_dag_that_ends_each_pass_keeps_no_other_waiting() -> None:
    memory, left, done = Memory(synced=frozenset()), dict(MISSING), []

    for _ in range(3):
        work = planned(memory, *left.values())
        assert work
        for name in work.dags:
            if name == "a":
                memory.strike()
                break
            done.append(name)
            del left[name]

    assert ["b", "c"] == done


def test_pauses_between_failed_passes_double_up_to_five_minutes() -> None:
    memory = Memory()

    assert [10, 20, 40, 80, 160, 300, 300] == [memory.strike() for _ in range(7)]


def test_good_passes_that_write_nothing_end_the_pauses_and_blame_nobody() -> None:
    memory = Memory(strikes=6, written=[(float("inf"), frozenset())] * 2)
    memory.judge(frozenset())

    assert 0 == memory.strikes


def test_rows_of_a_dag_are_left_alone_if_two_passes_have_not_fixed_them() -> None:
    memory, items = Memory(synced=frozenset()), {MISSING["a"], GIVEN}
    work = planned(memory, *items)
    assert work

    for held in ({}, {MISSING["a"]: "DiskFull", GIVEN: "DiskFull"}):
        memory.hold(work, Report(str, {"a": "DiskFull"}), items, items)
        assert held == memory.held

    assert planned(memory, *items) is None
    more = planned(memory, *items, MISSING["b"])
    assert more and ["b"] == more.dags
    memory.held_until -= 600
    again = planned(memory, *items)
    assert again and ["a"] == again.dags


@pytest.mark.parametrize(
    ("doubted", "tried", "after", "strikes", "is_refused"),
    [
        ("", FULL, "ab", 5, True), ("", FULL, "ab", 6, False), ("", FULL, "a", 0, False),
        ("", {"a": "DiskFull"}, "ab", 0, False), ("", {**FULL, "b": ""}, "ab", 0, False),
        ("a", FULL, "ab", 0, False),
    ],
)  # fmt: skip
def test_if_each_of_several_dags_fails_for_the_first_time_the_pass_has_failed(
    doubted: str, tried: dict[str, str], after: str, strikes: int, is_refused: bool
) -> None:
    memory = Memory(doubted={MISSING[name] for name in doubted}, strikes=strikes)
    before, left = ({MISSING[name] for name in names} for names in ("ab", after))

    memory.hold(Portion(dags=list(tried)), Report(str, tried), before, left)

    assert is_refused == (str(memory.error) == "DiskFull") == (not memory.doubted)
