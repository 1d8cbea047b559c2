"""
The state that a comparison keeps between two looks.
"""

from pathlib import Path

from sync_perm.comparison import HELD_SECONDS, Comparison, Look
from sync_perm.database.database import Database
from sync_perm.difference import DEFAULT_ROLES
from sync_perm.metrics import PermMetrics
from sync_perm.role_file.document import Mistake, Where
from sync_perm.role_file.file import RoleFile
from sync_perm.status import Status
from tests.support.machine.clocks import Clock
from tests.sync_perm.given import AIRFLOW_2, KINDS, Sqlite, tables


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


def test_finds_defined_roles_with_the_collation_of_the_database(
    sqlite: Sqlite, database: Database
) -> None:
    sqlite.run("DROP TABLE ab_role")
    sqlite.run("CREATE TABLE ab_role (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE)")
    sqlite.run("INSERT INTO ab_role VALUES (1, 'data-eng')")
    comparison = Comparison(AIRFLOW_2, include_dags=True)
    comparison.define(tables(roles=["Data-Eng"]))

    found = comparison.look(database)

    missing = {item.row[0] for item in found.items if item.kind == "role"}
    assert (set(DEFAULT_ROLES), {"Data-Eng": "data-eng"}) == (missing, found.tables.aliases)


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


def test_a_role_name_that_the_database_cannot_store_holds_back_only_its_role(
    tmp_path: Path,
) -> None:
    path = tmp_path / "roles.yaml"
    path.write_text("roles:\n  fits: {}\n  데이터: {}\n")
    file = RoleFile(str(path), KINDS)
    file.refresh()
    status = Status(PermMetrics("0", "0"))

    file.judge((), frozenset({"데이터"}))
    status.show_file(file, None)
    status.confirm("r")
    assert status.readiness.shortfall.startswith(f"{path}:3: roles.데이터: ")

    file.judge((Mistake(Where(2, "roles.fits"), "is wrong"),))
    status.show_file(file, None)
    status.confirm("r")
    assert status.readiness.shortfall.startswith(f"the roles file is ignored: {path}:2: ")
