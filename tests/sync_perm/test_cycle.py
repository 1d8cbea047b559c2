"""
What a cycle leaves to the next one: the order of DAGs.
"""

from sync_perm.airflow import Portion
from sync_perm.compare import KINDS, Difference, Item
from sync_perm.cycle import Memory
from sync_perm.tables import Look
from tests.sync_perm.given import tables

MISSING = {name: Item("dag_permission", name, ("can_read", f"DAG:{name}")) for name in "abc"}


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
