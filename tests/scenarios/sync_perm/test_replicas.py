"""Read-only databases: sync-perm reports one only if its own account cannot write."""

from contextlib import closing

import pytest

from sidecar_runtime.errors import SidecarError
from sync_perm.connection import parse_url
from sync_perm.database import Database as Connection
from tests.support.airflow.databases import MariaDb, Postgres
from tests.support.raising import raised

TABLE = "CREATE TABLE ab_role (id INTEGER PRIMARY KEY, name VARCHAR(64))"


@pytest.mark.parametrize("server", ["mariadb", "mysql"])
def test_a_read_only_replica_is_reported_only_for_unprivileged_accounts(
    request: pytest.FixtureRequest, server: str
) -> None:
    running: MariaDb = request.getfixturevalue(server)
    database = running.new_database()
    database.query(TABLE)
    database.query("CREATE USER plain IDENTIFIED BY 'Pa55'")
    database.query("GRANT SELECT, UPDATE ON *.* TO plain")
    plain = parse_url("TEST", running.url(database.name, "plain", "Pa55"), "")
    with (
        closing(Connection(plain)) as connection,
        closing(Connection(parse_url("TEST", database.url, ""))) as privileged,
    ):
        database.query("SET GLOBAL read_only = ON")
        try:
            error = raised(SidecarError, connection.try_write)
            privileged.try_write()
        finally:
            database.query("SET GLOBAL read_only = OFF")

        assert "database_read_only" == error.reason
        connection.try_write()


def test_an_account_without_write_access_is_reported(postgres: Postgres) -> None:
    database = postgres.new_database()
    database.query(TABLE)
    database.query("CREATE ROLE reader LOGIN PASSWORD 'Pa55'")
    database.query("GRANT SELECT ON ab_role TO reader")
    url = postgres.url(database.name, "reader", "Pa55")
    with closing(Connection(parse_url("TEST", url, ""))) as connection:
        error = raised(SidecarError, connection.try_write)

        assert "database_read_only" == error.reason
        assert "permission denied" in error.message
        database.query("GRANT UPDATE ON ab_role TO reader")
        connection.try_write()
