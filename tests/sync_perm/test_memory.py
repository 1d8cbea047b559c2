"""
Memory for comparing a large installation, without the database's client library.
"""

import sys
import tracemalloc
from pathlib import Path

from sync_perm.comparison import Comparison
from sync_perm.database.database import Database
from sync_perm.role_file.file import RoleFile
from tests.sync_perm.given import AIRFLOW_2, KINDS, Sqlite, tables

DAGS, ROLES = 1_000, 50
# Every team role can read every DAG.
FILLED = f"""
BEGIN;
CREATE TABLE numbers AS
    WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {DAGS})
    SELECT n FROM n;
INSERT INTO ab_role (name) VALUES ('Admin'), ('Public'), ('Viewer'), ('User'), ('Op');
INSERT INTO ab_role (name) SELECT 'team-' || n FROM numbers WHERE n <= {ROLES};
INSERT INTO ab_permission (name)
    VALUES ('can_read'), ('can_edit'), ('can_delete'), ('can_create'), ('menu_access');
INSERT INTO ab_view_menu (name) VALUES ('Website');
INSERT INTO ab_permission_view (permission_id, view_menu_id) VALUES (1, 1);
INSERT INTO ab_view_menu (name) SELECT prefix || n FROM numbers,
    (SELECT 'DAG:dag-' AS prefix UNION ALL SELECT 'DAG Run:dag-');
INSERT INTO ab_permission_view (permission_id, view_menu_id)
    SELECT p.id, v.id FROM ab_view_menu v JOIN ab_permission p ON
        v.name LIKE 'DAG:%' AND p.name NOT IN ('can_create', 'menu_access')
        OR v.name LIKE 'DAG Run:%' AND p.name <> 'can_edit';
INSERT INTO ab_permission_view_role (permission_view_id, role_id)
    SELECT p.id, r.id FROM ab_permission_view p JOIN ab_view_menu v ON v.id = p.view_menu_id
    JOIN ab_role r WHERE p.permission_id = 1
    AND (v.name = 'Website' OR v.name LIKE 'DAG:%' AND r.name LIKE 'team-%');
INSERT INTO dag SELECT 'dag-' || n, '/dags/' || n || '.py', '/dags', '' FROM numbers;
INSERT INTO serialized_dag SELECT dag_id, dag_id, '{{"dag": {{}}}}', NULL, '1', '1', NULL FROM dag;
COMMIT
"""


def test_a_grant_takes_less_memory_than_two_pairs_of_numbers(
    sqlite: Sqlite, database: Database, tmp_path: Path
) -> None:
    sqlite.script(FILLED)
    path = tmp_path / "roles.yaml"
    selection = "{folder: '**', permissions: [can_read]}"
    path.write_text(
        "".join(
            ["roles:\n", *(f"  team-{n}: {{dags: [{selection}]}}\n" for n in range(1, ROLES + 1))]
        )
    )
    file = RoleFile(str(path), KINDS)
    file.refresh()
    comparison = Comparison(AIRFLOW_2, include_dags=True, file=file)
    comparison.define(tables())
    tracemalloc.start()
    try:
        look = comparison.look(database)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (frozenset(), DAGS * ROLES + ROLES + 5) == (look.items, look.tables.grant_count)
    assert look.wanted and not look.wanted.idle
    assert peak_bytes < look.tables.grant_count * 2 * sys.getsizeof((0, 0))
