"""Many supervisors: one pass at a time per database and schema, and no lost grants."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path

import pytest

from sidecar_runtime.child import TICK_SECONDS
from sync_perm import database as module
from sync_perm.config import Address, parse_url
from sync_perm.database import Database as Lock
from tests.scenarios.sync_perm.conftest import StartSyncPerm
from tests.support.airflow.databases import Database, MariaDb, PgBouncer, Postgres
from tests.support.airflow.installed import Airflow
from tests.support.airflow.permissions import Contents, contents, difference, null_rows
from tests.support.airflow.sync_perm import PASS_SECONDS, SyncPerm
from tests.support.waiting import wait_until

DAGS = {f"dag_{number}": {"Viewer": ["can_edit"]} for number in range(12)}
PAIRS = 10


@pytest.fixture
def fresh(airflow: Airflow, postgres: Postgres, home: Path) -> Database:
    """A migrated database with DAGs and without any permission."""
    database = airflow.new_postgres(postgres, home, "migrated")
    airflow.write_dags(database, home, DAGS)
    return database


@pytest.fixture
def wanted(airflow: Airflow, postgres: Postgres, home: Path, fresh: Database) -> Contents:
    """The contents of a copy after a single full sync by Airflow."""
    copy = Database(postgres, postgres.new_database(fresh.name).name)
    airflow.full_sync(copy, home)
    return contents(copy)


def overlapping(supervisors: Sequence[SyncPerm]) -> list[str]:
    """Return the passes that began before the previous one had ended."""
    spans = []
    for number, supervisor in enumerate(supervisors):
        begun = ""
        for event in supervisor.events:
            if event["event"] == "pass_started":
                begun = event["timestamp"]
            if event["event"] == "pass_finished":
                spans.append((begun, event["timestamp"], number))
    spans.sort()
    return [f"{a} {b}" for a, b in pairwise(spans) if b[0] < a[1]]


@pytest.mark.parametrize("server", ["postgres", "mariadb"])
def test_each_schema_of_each_database_has_its_own_lock(
    request: pytest.FixtureRequest, server: str
) -> None:
    running: Postgres | MariaDb = request.getfixturevalue(server)
    urls = [running.new_database().url for _ in range(2)]
    schemas = [(urls[0], ""), (urls[0], "airflow"), (urls[0], "other"), (urls[1], "airflow")]
    with ExitStack() as stack:

        def takes(url: str, schema: str) -> bool:
            return stack.enter_context(closing(Lock(parse_url("TEST", url, schema)))).try_lock()

        assert [True] * 4 == [takes(*one) for one in schemas]
        assert [False] * 4 == [takes(*one) for one in schemas]


@pytest.fixture(params=["postgres", "pgbouncer", "mariadb"])
def address(request: pytest.FixtureRequest) -> Address:
    """The address of an empty database, for each kind of server."""
    running: Postgres | PgBouncer | MariaDb = request.getfixturevalue(request.param)
    if isinstance(running, PgBouncer):
        database = Database(running, running.postgres.new_database().name)
    else:
        database = running.new_database()
    return parse_url("TEST", database.url, "")


def test_a_lock_holder_whose_connection_goes_silent_loses_the_lock(address: Address) -> None:
    """To the server, a node that loses power is an open connection without traffic."""
    with closing(Lock(address)) as silent:
        assert silent.try_lock(idle_seconds=1)

        def is_free() -> bool:
            with closing(Lock(address)) as other:
                return other.try_lock()

        wait_until(is_free, "the server frees it")


def test_the_limits_of_a_query_and_a_lock_check_fit_into_the_idle_limit() -> None:
    assert module.ANSWER_SECONDS + TICK_SECONDS < module.IDLE_SECONDS < 60


@pytest.mark.usefixtures("only_in_full")
def test_two_supervisors_behind_pgbouncer_take_turns(
    fresh: Database, wanted: Contents, pgbouncer: PgBouncer, start: StartSyncPerm
) -> None:
    behind = Database(pgbouncer, fresh.name)
    supervisors = [start(behind) for _ in range(2)]

    for supervisor in supervisors:
        supervisor.wait_until_good(2 * PASS_SECONDS)
    for supervisor in supervisors:  # both want a full pass at the same moment
        supervisor.sighup()
    for supervisor in supervisors:
        supervisor.wait_for_pass(reason="asked")

    assert [] == difference(contents(fresh), wanted)
    assert 0 == null_rows(fresh)
    assert [] == overlapping(supervisors)
