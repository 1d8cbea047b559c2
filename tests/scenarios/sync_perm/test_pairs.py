"""Many supervisors: one lock for each database and schema, also through PgBouncer."""

from contextlib import ExitStack, closing
from dataclasses import replace

import pytest

from sidecar_runtime.child import TICK_SECONDS
from sidecar_runtime.errors import SidecarError
from sync_perm import database as module
from sync_perm.airflow_config import parse_url
from sync_perm.database import Database as Lock
from sync_perm.tables import _find_aliases
from tests.support.airflow.databases import Database, MariaDb, PgBouncer, Postgres
from tests.support.raising import raised
from tests.support.waiting import wait_until

SERVERS = ("postgres", "pgbouncer", "mariadb", "mysql")


def new_url(request: pytest.FixtureRequest, server: str) -> str:
    """Return the URL of an empty database on a kind of server."""
    running: Postgres | PgBouncer | MariaDb = request.getfixturevalue(server)
    if isinstance(running, PgBouncer):
        return Database(running, running.postgres.new_database().name).url
    return running.new_database().url


@pytest.mark.parametrize("server", SERVERS)
def test_each_schema_of_each_database_has_its_own_lock(
    request: pytest.FixtureRequest, server: str
) -> None:
    urls = [new_url(request, server) for _ in range(2)]
    schemas = [
        (urls[0], ""),
        (urls[0], "airflow"),
        (urls[0], "other"),
        (urls[1], "airflow"),
    ]
    with ExitStack() as stack:

        def holder(url: str, schema: str) -> str:
            return stack.enter_context(
                closing(Lock(replace(parse_url("TEST", url), schema=schema)))
            ).take_lock()

        assert [""] * 4 == [holder(*one) for one in schemas]
        assert all("(127.0.0.1" in holder(*one) for one in schemas)
        if server in ("postgres", "pgbouncer"):
            assert holder(urls[0], "public"), "the tables of whoever names no schema"


@pytest.mark.parametrize("server", SERVERS)
def test_a_lock_holder_whose_connection_goes_silent_loses_the_lock(
    request: pytest.FixtureRequest, server: str
) -> None:
    """To the server, a node that loses power is an open connection without traffic."""
    address = parse_url("TEST", new_url(request, server))
    with closing(Lock(address)) as silent:
        assert "" == silent.take_lock(idle_seconds=1)

        def is_free() -> bool:
            with closing(Lock(address)) as other:
                return other.take_lock() == ""

        wait_until(is_free, "the server frees it")


@pytest.mark.parametrize("server", SERVERS[:2])
def test_a_query_that_waits_for_a_lock_ends(
    request: pytest.FixtureRequest, server: str
) -> None:
    """As during a migration, which locks tables exclusively."""
    address = parse_url("TEST", new_url(request, server))
    with (
        closing(Lock(address)) as other,
        closing(Lock(address, query_seconds=1)) as one,
    ):
        one.rows("CREATE TABLE ab_role (name TEXT)")
        assert "" == other.take_lock()
        other.rows("LOCK TABLE ab_role IN ACCESS EXCLUSIVE MODE")

        failed = raised(SidecarError, one.rows, "SELECT name FROM ab_role")

        assert "canceling statement due to statement timeout" in failed.message


@pytest.mark.parametrize("server", SERVERS[2:])
def test_a_role_whose_letters_the_character_set_lacks_has_no_alias(
    request: pytest.FixtureRequest, server: str
) -> None:
    running: MariaDb = request.getfixturevalue(server)
    database = running.new_database("latin1_swedish_ci")
    database.query("CREATE TABLE ab_role (name VARCHAR(64)) SELECT 'Team' AS name")
    with closing(Lock(parse_url("TEST", database.url))) as connection:
        assert {"team": "Team"} == _find_aliases(
            connection, ["Ωmega", "x😀", "team", "other"]
        )


def test_the_limits_of_a_query_and_a_lock_check_fit_into_the_idle_limit() -> None:
    assert module.ANSWER_SECONDS + TICK_SECONDS < module.IDLE_SECONDS < 60
