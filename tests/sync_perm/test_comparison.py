"""
The state that a comparison keeps between two looks.
"""

from sync_perm.comparison import HELD_SECONDS, Comparison, Look
from sync_perm.database.database import Database
from sync_perm.metrics import PermMetrics
from sync_perm.status import Status
from tests.support.clocks import Clock
from tests.sync_perm.given import AIRFLOW_2, Sqlite


def wants_pass(comparison: Comparison, look: Look) -> bool:
    return comparison.plan(look, is_asked=False) is not None


def test_an_unfixed_dag_stays_failing_during_retries(sqlite: Sqlite, database: Database) -> None:
    """A readiness probe that changes every ten minutes would be useless."""
    clock = Clock()
    comparison = Comparison(AIRFLOW_2, include_dags=True, clock=clock)
    comparison.define(comparison.look(database).tables)
    sqlite.serialize("d", "1")
    found = comparison.look(database)
    of_dag = frozenset(item for item in found.items if item.dag_id)
    assert of_dag <= found.shown and not found.failing

    kept = comparison.keep(found.items, found)

    assert (False, False) == (wants_pass(comparison, kept), comparison.wants_retry)
    clock.seconds += HELD_SECONDS + 1
    assert comparison.wants_retry
    again = comparison.look(database)
    assert (True, False) == (wants_pass(comparison, again), comparison.wants_retry)
    for look in (kept, again):
        assert not of_dag & look.shown
        assert ["not_fixed"] == [failure.reason for failure in look.failing.values()]
    sqlite.run("DELETE FROM serialized_dag")
    assert {} == comparison.look(database).failing


def test_dags_that_passes_did_not_fix_are_a_shortfall(sqlite: Sqlite, database: Database) -> None:
    comparison = Comparison(AIRFLOW_2, include_dags=True)
    comparison.define(comparison.look(database).tables)
    sqlite.serialize("d", "1")
    status = Status(PermMetrics("0", "0"))

    look = comparison.look(database)
    look = comparison.keep(look.items, look)
    status.show_differences(frozenset(), look.failing, "r", is_defined=True)

    assert (True, "DAGs that passes did not fix: 1") == (
        status.readiness.ready,
        status.readiness.shortfall,
    )
    status.show_differences(frozenset(), {}, "r", is_defined=True)
    assert (True, "") == (status.readiness.ready, status.readiness.shortfall)
