"""
The table of situations: what there is to do, until when nothing is, and why.
"""

from typing import Any

import pytest

from sidecar_runtime.errors import SidecarError
from sync_perm.airflow import Report, Work
from sync_perm.compare import Difference, Item
from sync_perm.inside_airflow import ENDED
from sync_perm.plan import UNDONE_SECONDS, Done, Memory, Wait, decide, learn
from sync_perm.tables import Look
from tests import Facts, Texts
from tests.sync_perm.given import tables

A, B = (
    Item("dag_permission", name, ("can_read", f"DAG:{name}")) for name in ("a", "b")
)
ROLE = Item("file_role", "", ("team",))
GIVEN = Item("file_grant", "", ("team", "can_read", "DAG:a"))
OTHER = frozenset({("role", "by hand", "")})
FAILED = SidecarError("pass_failed", "no")
NEVER = float("inf")
FULL = {"a": "DiskFull", "b": "DiskFull"}


def look(*items: Item, general: frozenset[Any] = frozenset()) -> Look:
    return Look(
        tables(), general, Difference(frozenset(items), {}, len(items)), is_written=True
    )


def memory(**known: Any) -> Memory:
    return Memory(**{"synced": frozenset(), **known})


@pytest.mark.parametrize(
    ("found", "known", "expected"),
    [
        (look(), {"synced": None}, Work(roles=True, dags=[], given=[])),
        (look(), {}, Done(NEVER)),
        (look(general=OTHER), {}, Work(roles=True, dags=[], given=[])),
        (look(B, A), {}, Work(dags=["a", "b"], given=[])),
        (look(A, GIVEN, ROLE), {}, Work(dags=["a"], given=[ROLE, GIVEN])),
        (look(A, B), {"doubted": {A}}, Work(dags=["b", "a"], given=[])),
        (look(A), {"held": {A: ""}, "held_until": 101}, Done(101)),
        (look(A, B), {"held": {A: ""}, "held_until": 101}, Work(dags=["b"], given=[])),
        (look(A), {"held": {A: ""}, "held_until": 100}, Work(dags=["a"], given=[])),
        (look(A), {"next_at": 101, "error": FAILED}, Wait(101, FAILED)),
        (look(A), {"next_at": 100, "error": FAILED}, Work(dags=["a"], given=[])),
        (look(), {"next_at": 101, "error": FAILED}, Done(NEVER)),
    ],
)
def test_each_situation_has_work_or_a_wait_with_its_reason_or_none(
    found: Look, known: Facts, expected: Work | Wait | Done
) -> None:
    assert expected == decide(found, memory(**known), 100.0)


def test_pauses_between_failed_passes_double_up_to_five_minutes() -> None:
    known = memory()
    pauses = []
    for _ in range(7):
        learn(known, Work(), Report(error=FAILED), look(A), look(A), 0.0)
        pauses.append(known.next_at)

    assert [10, 20, 40, 80, 160, 300, 300] == pauses
    assert 2 * pauses[-1] < UNDONE_SECONDS, "three such passes are compared"


@pytest.mark.parametrize(
    ("item", "report"),
    [
        (A, Report(tried={"a": "no"})), (A, Report(tried={"a": ENDED}, error=FAILED)),
        (GIVEN, Report(tried={"role team": "no"})),
    ],
)  # fmt: skip
def test_rows_that_two_passes_have_not_fixed_are_left_alone_with_their_error(
    item: Item, report: Report
) -> None:
    known = memory()
    found = look(item)
    work = decide(found, known, 0.0)
    assert isinstance(work, Work)

    for now, held in ((0.0, {}), (0.0, {item: "no"}), (300.0, {item: "no"})):
        learn(known, work, report, found, found, now)
        assert held == known.held

    assert Done(600.0) == decide(found, known, 10.0)


@pytest.mark.parametrize(
    ("tried", "known", "is_common"),
    [
        (FULL, {"strikes": 5}, True), (FULL, {"strikes": 6}, False),
        ({"a": "DiskFull"}, {}, False), ({**FULL, "b": ""}, {}, False),
        (FULL, {"doubted": frozenset({A})}, False),
    ],
)  # fmt: skip
def test_if_each_of_several_dags_fails_for_the_first_time_none_is_doubted(
    tried: Texts, known: Facts, is_common: bool
) -> None:
    before = memory(**known)
    doubted = before.doubted

    learn(before, Work(dags=["a", "b"]), Report(tried=tried), look(A, B), look(A, B), 0)

    assert is_common == (doubted == before.doubted)


def test_good_passes_that_write_nothing_end_the_pauses_and_blame_nobody() -> None:
    known = memory(strikes=6, written=[(0.0, frozenset())] * 2)
    undone = learn(known, Work(), Report(), look(), look(), 0.0)

    assert (0, frozenset(), None) == (known.strikes, undone, known.error)


def test_roles_are_synced_once_a_run_of_airflows_own_sync_leaves_them() -> None:
    """Whatever ends that pass later."""
    known = memory(synced=None)
    report = Report(is_synced=True, error=FAILED)
    for before, synced in ((look(), frozenset()), (look(general=OTHER), OTHER)):
        learn(known, Work(), report, before, look(general=OTHER), 0.0)
        assert synced == known.synced
