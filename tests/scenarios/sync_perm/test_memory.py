"""The memory that a roles file for a large installation needs."""

from pathlib import Path

from tests.scenarios.sync_perm.conftest import StartSyncPerm
from tests.scenarios.sync_perm.standin import small
from tests.support.airflow.databases import Postgres
from tests.support.airflow.sync_perm import PASS_SECONDS

DAGS, ROLES = 1_000, 50
# As Airflow fills the tables: one role per team, which can read the DAGs in its folder.
ROWS = f"""
INSERT INTO ab_role (name) SELECT 'team-' || n FROM generate_series(1, {ROLES}) n;
INSERT INTO ab_permission (name) VALUES ('can_edit'), ('can_delete'), ('can_create');
INSERT INTO ab_permission_view_role (permission_view_id, role_id)
    SELECT 1, id FROM ab_role WHERE id > 5;
INSERT INTO dag SELECT 'dag-' || n, '/dags/team-' || 1 + n % {ROLES} || '/' || n || '.py', '/dags'
    FROM generate_series(1, {DAGS}) n;
INSERT INTO serialized_dag
    SELECT dag_id, dag_id, '{{"dag": {{}}}}', NULL, NOW(), NOW(), NULL FROM dag;
INSERT INTO ab_view_menu (name)
    SELECT kind || dag_id FROM dag, (VALUES ('DAG:'), ('DAG Run:')) kinds (kind);
INSERT INTO ab_permission_view (permission_id, view_menu_id)
    SELECT p.id, v.id FROM ab_view_menu v JOIN ab_permission p ON
        v.name LIKE 'DAG:%' AND p.name <> 'can_create'
        OR v.name LIKE 'DAG Run:%' AND p.name IN ('can_create', 'can_read');
INSERT INTO ab_permission_view_role (permission_view_id, role_id)
    SELECT pv.id, r.id FROM ab_permission_view pv
    JOIN ab_permission p ON p.id = pv.permission_id AND p.name = 'can_read'
    JOIN ab_view_menu v ON v.id = pv.view_menu_id
    JOIN dag d ON v.name = 'DAG:' || d.dag_id
    JOIN ab_role r ON r.name LIKE 'team-%' AND d.fileloc LIKE '/dags/' || r.name || '/%'
"""
MOST_MIB = 45.5  # 1 MiB less in the image, where structlog has no rich to import


def test_memory_stays_bounded_with_a_thousand_dags_and_fifty_roles(
    postgres: Postgres, tmp_path: Path, begin: StartSyncPerm
) -> None:
    database = small(postgres)
    database.query(ROWS)
    file = tmp_path / "roles.yaml"
    file.write_text(
        "roles:\n"
        + "".join(
            f"  team-{n}: {{dags: [{{folder: team-{n}/**, permissions: [can_read]}}]}}\n"
            for n in range(1, ROLES + 1)
        )
    )
    daemon = begin(database, {"SYNC_PERM_ROLES": str(file)}).until_good()
    file.write_text(file.read_text() + "# read again\n")
    daemon.wait_for_event("roles_file_accepted", PASS_SECONDS, after=len(daemon.events))

    assert daemon.rss_mib() <= MOST_MIB
    assert [] == daemon.find_events("pass_started")
