"""
Polling the tables with a fingerprint.
"""

import zlib

import pytest

from sync_perm.database.database import Database
from sync_perm.database.fingerprint import Fingerprint, read_fingerprint
from tests.sync_perm.given import Sqlite


@pytest.fixture
def filled(sqlite: Sqlite) -> Sqlite:
    sqlite.run("INSERT INTO ab_role VALUES (1, 'Viewer'), (2, 'team')")
    for table in ("ab_permission", "ab_view_menu"):
        sqlite.run(f"INSERT INTO {table} VALUES (1, 'one'), (2, 'two')")
    sqlite.run("INSERT INTO ab_permission_view VALUES (1, 1, 1), (2, 2, 2)")
    sqlite.run("INSERT INTO ab_permission_view_role VALUES (1, 1, 1), (2, 2, 2)")
    sqlite.serialize("a", "1", at="2024-05-01 09:00:00.001")
    sqlite.serialize("b", "1", at="2024-05-01 10:00:00")
    return sqlite


def poll(
    database: Database,
    *,
    include_dags: bool = True,
    path_column: str = "",
    include_tags: bool = False,
) -> Fingerprint:
    return read_fingerprint(
        database, include_dags=include_dags, path_column=path_column, include_tags=include_tags
    )


def test_is_the_same_while_nothing_changes(filled: Sqlite, database: Database) -> None:
    assert poll(database) == poll(database)
    assert poll(database).revision == poll(database).revision


@pytest.mark.parametrize(
    "deed",
    [
        "UPDATE ab_role SET name = 'renamed' WHERE id = 2",
        "INSERT INTO ab_role VALUES (3, 'late')",
        "DELETE FROM ab_permission_view_role WHERE id = 1",
        "UPDATE ab_permission_view_role SET role_id = 2 WHERE id = 1",
        "INSERT OR REPLACE INTO ab_permission_view_role VALUES (2, 1, 2)",  # under the same id
        "UPDATE ab_permission_view SET permission_id = NULL WHERE id = 1",
        "UPDATE ab_permission_view SET view_menu_id = 3 - view_menu_id",  # swaps the two
        "UPDATE ab_permission_view_role SET role_id = 3 - role_id",
        "UPDATE ab_permission SET name = 'three' WHERE id = 1",
        "UPDATE ab_view_menu SET name = CASE name WHEN 'one' THEN 'two' ELSE 'one' END",
        "DELETE FROM ab_view_menu WHERE id = 2",
        "INSERT INTO ab_permission_view VALUES (3, 1, 3)",
        "UPDATE serialized_dag SET dag_hash = '2', last_updated = '2024-05-02 10:00:00.123'",
        # by a parser whose clock is slow
        "UPDATE serialized_dag SET last_updated = '2024-05-01 09:00:00.002' WHERE dag_id = 'a'",
    ],
)
def test_detects_every_kind_of_change(filled: Sqlite, database: Database, deed: str) -> None:
    before = poll(database)

    filled.run(deed)

    assert before != poll(database)
    assert before.revision != poll(database).revision


def test_sums_of_the_largest_ids_do_not_overflow(filled: Sqlite, database: Database) -> None:
    for table in ("ab_permission", "ab_view_menu"):
        filled.run(f"DELETE FROM {table}")
        for number in range(10):
            filled.run(f"INSERT INTO {table} VALUES (?, 'name')", 2**31 - 1 - number)
    before = poll(database)

    filled.run("UPDATE ab_view_menu SET name = 'other' WHERE id = 2147483647")

    assert before != poll(database)


def test_ignores_dags_that_are_left_out(filled: Sqlite, database: Database) -> None:
    before = poll(database, include_dags=False)

    filled.run("UPDATE serialized_dag SET last_updated = '2025-01-01 00:00:00'")

    assert before == poll(database, include_dags=False)


def test_includes_the_revision_of_the_roles_file(filled: Sqlite, database: Database) -> None:
    plain = poll(database)

    assert plain.beside("1") == plain.beside("1")
    assert 3 == len({plain, plain.beside("1"), plain.beside("2")})


def test_detects_tags_only_if_they_matter(filled: Sqlite, database: Database) -> None:
    """Airflow 2 commits the serialized DAG before its tags."""

    def poll_tags() -> tuple[Fingerprint, Fingerprint]:
        return poll(database, include_tags=True), poll(database)

    seen = [poll_tags()]
    for change in (
        "INSERT INTO dag_tag (name, dag_id) VALUES ('public', 'a'), ('late', 'b')",
        "UPDATE dag_tag SET dag_id = CASE dag_id WHEN 'a' THEN 'b' ELSE 'a' END",
    ):
        filled.run(change)
        seen.append(poll_tags())

    assert (3, 1) == (len({one for one, _ in seen}), len({one for _, one in seen}))


def test_detects_tags_whose_numbers_are_large(filled: Sqlite, database: Database) -> None:
    """The product of two checksums can exceed 64 bits."""
    assert all(zlib.crc32(name) > 3_600_000_000 for name in (b"tag-2", b"tag-6", b"dag-3"))
    filled.run("INSERT INTO dag_tag (name, dag_id) VALUES ('tag-2', 'dag-3')")
    before = poll(database, include_tags=True)

    filled.run("UPDATE dag_tag SET name = 'tag-6'")

    assert before != poll(database, include_tags=True)


def test_detects_moved_files_only_in_the_path_column(filled: Sqlite, database: Database) -> None:
    def poll_paths(column: str) -> Fingerprint:
        return poll(database, path_column=column)

    filled.run("INSERT INTO dag (dag_id, relative_fileloc) VALUES ('a', 'x/a.py'), ('b', NULL)")
    before = poll_paths("relative_fileloc"), poll_paths(""), poll_paths("fileloc")

    filled.run("UPDATE dag SET relative_fileloc = 'y/a.py' WHERE dag_id = 'a'")

    after = poll_paths("relative_fileloc"), poll_paths(""), poll_paths("fileloc")
    assert [True, False, False] == [one != other for one, other in zip(before, after, strict=True)]
