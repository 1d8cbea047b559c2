"""
Reading the tables.
"""

import zlib

import pytest

from sync_perm.database.access_control import Unreadable
from sync_perm.database.database import Database
from sync_perm.database.tables import BATCH, Place, Reader
from tests.sync_perm.given import Sqlite

SET = {"__type": "set", "__var": ["can_read"]}


def reader(*, release: tuple[int, int] = (2, 11), dags_folder: str = "") -> Reader:
    return Reader(release=release, dags_folder=dags_folder)


def test_reads_roles_permissions_and_grants_by_name(sqlite: Sqlite, database: Database) -> None:
    sqlite.run("INSERT INTO ab_role VALUES (1, 'Viewer'), (2, 'team')")
    sqlite.run("INSERT INTO ab_permission VALUES (1, 'can_read')")
    sqlite.run("INSERT INTO ab_view_menu VALUES (1, 'Jobs'), (2, 'DAG:d')")
    sqlite.run("INSERT INTO ab_permission_view VALUES (1, 1, 1), (2, 1, 2), (3, NULL, 1)")
    sqlite.run("INSERT INTO ab_permission_view VALUES (4, 1, NULL), (5, 9, 1)")
    sqlite.run("INSERT INTO ab_permission_view_role VALUES (1, 1, 1), (2, 2, 2), (3, 3, 1)")

    found = reader().read(database, dags=True)

    assert {"Viewer", "team"} == found.roles
    assert {("can_read", "Jobs"), ("can_read", "DAG:d")} == found.permissions
    assert {"Viewer": {("can_read", "Jobs")}, "team": {("can_read", "DAG:d")}} == found.grants
    assert 3 == found.broken


def test_keeps_each_name_in_memory_once(sqlite: Sqlite, database: Database) -> None:
    """Stored once per row, names took megabytes with 1,000 DAGs."""
    sqlite.run("INSERT INTO ab_permission VALUES (1, 'can_read')")
    for number in range(1, 4):
        sqlite.run("INSERT INTO ab_view_menu VALUES (?, ?)", number, f"DAG:{number}")
        sqlite.run("INSERT INTO ab_permission_view VALUES (?, 1, ?)", number, number)

    found = reader().read(database, dags=True)

    assert 3 == len(found.permissions)
    assert 1 == len({id(action) for action, _ in found.permissions})


def test_finds_roles_with_the_collation_of_the_database(sqlite: Sqlite, database: Database) -> None:
    sqlite.run("DROP TABLE ab_role")
    sqlite.run("CREATE TABLE ab_role (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE)")
    sqlite.run("INSERT INTO ab_role VALUES (1, 'Data-Eng'), (2, 'team')")
    sqlite.serialize("a", "1", {"data-eng": SET, "team": SET, "missing": SET})
    sqlite.serialize("b", "1", "no mapping")

    found = reader().read(database, dags=True, names=["TEAM", "other"])

    assert {"data-eng": "Data-Eng", "TEAM": "team"} == found.aliases


def test_reads_only_changed_dags_again(sqlite: Sqlite, database: Database) -> None:
    one = reader()
    sqlite.serialize("a", "1", {"team": SET})
    sqlite.serialize("b", "1")
    first = one.read(database, dags=True)
    sqlite.serialize("b", "1", {"unseen": SET})  # unnoticed, because the hash is the same
    sqlite.run("UPDATE serialized_dag SET dag_hash = '2', data = '{}' WHERE dag_id = 'a'")
    sqlite.serialize("c", "1")

    second = one.read(database, dags=True)

    assert ({"a": {"team": {"can_read"}}, "b": None}, frozenset()) == (first.dags, first.fresh)
    assert {"a": None, "b": None, "c": None} == second.dags
    assert {"a", "c"} == second.fresh
    sqlite.run("DELETE FROM serialized_dag")
    assert {} == one.read(database, dags=True).dags


@pytest.mark.parametrize(("release", "newest"), [((3, 2), "fast"), ((3, 3), "second")])
def test_reads_the_newest_version_of_a_dag(
    sqlite: Sqlite, database: Database, release: tuple[int, int], newest: str
) -> None:
    """The clock of the parser that wrote the first one was fast."""
    sqlite.serialize("a", "1", {"fast": SET}, at="2026-02-01", version=1)
    sqlite.serialize("a", "3", {"second": SET}, at="2026-01-01", version=10)
    sqlite.serialize("a", "2", {"old": SET}, at="2025-01-01", version=9)

    assert {"a": {newest: {"can_read"}}} == reader(release=release).read(database, dags=True).dags


def test_reads_compressed_dags_and_marks_unknown_forms(sqlite: Sqlite, database: Database) -> None:
    sqlite.serialize("a", "1", {"__type": "datetime", "__var": 1})
    sqlite.serialize("b", "1")
    blob = zlib.compress(b'{"dag": {"_access_control": {"team": ["can_read"]}}}')
    sqlite.run(
        "UPDATE serialized_dag SET data = NULL, data_compressed = ? WHERE dag_id = 'b'", blob
    )

    found = reader().read(database, dags=True).dags

    assert isinstance(found["a"], Unreadable)
    assert {"team": ["can_read"]} == found["b"]


def test_reads_many_dags_in_batches(sqlite: Sqlite, database: Database) -> None:
    names = [f"dag {number}" for number in range(2 * BATCH + 1)]
    for name in names:
        sqlite.serialize(name, "1", {"team": SET})

    queries: list[str] = []
    database._connection.set_trace_callback(queries.append)

    found = reader().read(database, dags=True).dags

    assert {name: {"team": {"can_read"}} for name in names} == found
    assert [BATCH, BATCH, 1] == [q.count("'dag ") for q in queries if "data_compressed" in q]


def test_does_not_read_dags_that_are_left_out(sqlite: Sqlite, database: Database) -> None:
    sqlite.run("DROP TABLE serialized_dag")

    assert {} == reader().read(database, dags=False).dags


def test_airflow_2_paths_are_relative_to_a_dags_folder(sqlite: Sqlite, database: Database) -> None:
    for dag_id, path, folder in (
        ("processor", "/repo/tests/dags/a/x.py", "/repo/tests/dags"),
        ("slash", "/repo/x.py", "/repo/"),
        ("configured", "/opt/dags/b/y.py", None),
        ("outside", "/elsewhere/z.py", "/repo"),
        ("beside", "/opt/dags-old/z.py", None),
        ("nowhere", None, None),
    ):
        sqlite.run("INSERT INTO dag VALUES (?, ?, ?, 'wrong')", dag_id, path, folder)
    sqlite.run("INSERT INTO dag_tag VALUES ('slash', 'b'), ('slash', 'a'), ('gone', 'x')")

    found = reader(dags_folder="/opt/dags").read_places(database)

    assert {
        "processor": Place("a/x.py", ()),
        "slash": Place("x.py", ("a", "b")),
        "configured": Place("b/y.py", ()),
        "outside": Place("", ()),
        "beside": Place("", ()),
        "nowhere": Place("", ()),
    } == found


def test_airflow_3_paths_are_relative_to_the_bundle(sqlite: Sqlite, database: Database) -> None:
    sqlite.run("INSERT INTO dag VALUES ('a', '/wrong', '/', 'team/x.py'), ('b', '/w', '/', NULL)")

    found = reader(release=(3, 2)).read(database, dags=True, places=True).places

    assert {"a": Place("team/x.py", ()), "b": Place("", ())} == found


def test_only_a_name_that_cannot_be_encoded_is_unfit(sqlite: Sqlite, database: Database) -> None:
    names = ["other", "a\ud800", "a\0b"]

    assert {"a\ud800"} == reader().read(database, dags=False, names=names).unfit
