"""Large ids, as after years of use: the poll multiplies them."""

from contextlib import closing

import pytest

from sync_perm.connection import parse_url
from sync_perm.database import Database as Connection
from sync_perm.tables import Reader
from tests.scenarios.sync_perm.test_character_sets import TABLES
from tests.support.airflow.databases import MariaDb, Postgres

GREATEST = 2**31 - 1
ROWS = f"""
INSERT INTO ab_permission VALUES ({GREATEST}, 'one'), ({GREATEST - 1}, 'two');
INSERT INTO ab_view_menu VALUES ({GREATEST}, 'one'), ({GREATEST - 1}, 'two');
INSERT INTO ab_permission_view VALUES (1, {GREATEST}, {GREATEST}), (2, {GREATEST}, {GREATEST});
INSERT INTO ab_permission_view_role VALUES (1, {GREATEST}, {GREATEST}), (2, {GREATEST}, {GREATEST})
"""


@pytest.mark.parametrize("server", ["postgres", "mariadb", "mysql"])
def test_the_poll_detects_changes_with_the_largest_ids(
    request: pytest.FixtureRequest, server: str
) -> None:
    running: Postgres | MariaDb = request.getfixturevalue(server)
    database = running.new_database()
    for statement in f"{TABLES};{ROWS}".split(";"):
        database.query(statement)

    with closing(Connection(parse_url("TEST", database.url, ""))) as connection:

        def poll() -> str:
            reader = Reader((2, 11), "")
            return reader.fingerprint(connection, dags=False, selected_by=frozenset(), file="")

        before = poll()
        database.query(f"UPDATE ab_view_menu SET name = 'three' WHERE id = {GREATEST}")

        assert before != poll()
