"""
Which pass mends a difference.
"""

from collections.abc import Iterable

from sync_perm.difference import Item
from sync_perm.plan import Pass, make_plan

ROLE = Item("role_grant", "", ("team", "can_read", "Website"))
DAG_B = Item("dag_grant", "b", ("team", "can_read", "DAG:b"))
DAG_A = Item("dag_permission", "a", ("can_read", "DAG:a"))


def plan(
    *items: Item, every: Iterable[str] = ("b", "a"), asked: bool = False, first: bool = False
) -> Pass | None:
    return make_plan(frozenset(items), every_dag=every, is_asked=asked, is_first=first)


def test_nothing_to_do() -> None:
    assert None is plan()
    assert None is plan(first=True)


def test_only_the_dags_that_differ() -> None:
    assert Pass("dags", False, ("a", "b")) == plan(DAG_B, DAG_A)


def test_roles_without_dags() -> None:
    assert Pass("roles", True, ()) == plan(ROLE)


def test_roles_and_dags_together() -> None:
    assert Pass("roles", True, ("b",)) == plan(ROLE, DAG_B)


def test_the_first_pass_syncs_roles_too() -> None:
    assert Pass("start", True, ("a",)) == plan(DAG_A, first=True)


def test_a_person_gets_everything() -> None:
    assert Pass("asked", True, ("a", "b")) == plan(asked=True)
    assert Pass("asked", True, ()) == plan(ROLE, every=(), asked=True)
