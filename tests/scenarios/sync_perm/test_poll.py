"""
A poll notices whatever a pass depends on, in the tables and in the roles file.
"""

from contextlib import closing
from pathlib import Path

from sync_perm.airflow_config import parse_url
from sync_perm.database import Database
from sync_perm.roles_file import RoleFile
from sync_perm.tables import Reader
from tests.scenarios.sync_perm.standin import add_dag, small
from tests.support.airflow.databases import Postgres

FILE = "roles: {team: {dags: [{owner: ann, permissions: [can_read]}]}}"
CHANGES = (
    "INSERT INTO ab_role (name) VALUES ('late')",
    "UPDATE ab_permission SET name = 'can_edit'",
    "UPDATE ab_view_menu SET name = 'Home'",
    "INSERT INTO ab_permission_view (permission_id) VALUES (1)",
    "DELETE FROM ab_permission_view_role",
    "UPDATE serialized_dag SET last_updated = now()",
    "UPDATE dag SET owners = 'ann'",
    "UPDATE dag SET fileloc = '/dags/other.py'",
    "INSERT INTO dag_tag (dag_id, name) VALUES ('a', 'public')",
)


def test_a_poll_notices_each_change_that_a_pass_depends_on(
    postgres: Postgres, tmp_path: Path
) -> None:
    database = small(postgres)
    add_dag(database, "a", {})
    database.query("INSERT INTO dag VALUES ('a', 'bob', '/dags/a.py', '/dags')")
    path = tmp_path / "roles.yaml"
    path.write_text(FILE)
    file = RoleFile(str(path))
    file.refresh()
    reader = Reader(include_dags=True, file=file, has_versions=False)
    missed = []
    with closing(Database(parse_url("TEST", database.url))) as connection:
        seen = reader.fingerprint(connection)
        assert seen == reader.fingerprint(connection)
        for change in CHANGES:
            database.query(change)
            before = seen
            seen = reader.fingerprint(connection)
            missed += [change] if seen == before else []
        path.write_text(FILE.replace("can_read", "can_edit"))
        file.refresh()

        assert seen != reader.fingerprint(connection), "the file has changed"
    assert [] == missed
