"""
What a roles file for a large installation takes of memory.
"""

from pathlib import Path

import pytest

from tests.support.daemon import SidecarProcess
from tests.support.databases import Database, Postgres
from tests.support.sync_perm import PASS_SECONDS, SYNC_PERM
from tests.sync_perm.site import Site

DAGS, ROLES = 1_000, 50
# As Airflow fills them: a role for each team, which may read the DAGs of its folder.
TABLES = f"""
CREATE TABLE ab_role (id SERIAL PRIMARY KEY, name TEXT);
CREATE TABLE ab_permission (id SERIAL PRIMARY KEY, name TEXT);
CREATE TABLE ab_view_menu (id SERIAL PRIMARY KEY, name TEXT);
CREATE TABLE ab_permission_view (id SERIAL PRIMARY KEY, permission_id INT, view_menu_id INT);
CREATE TABLE ab_permission_view_role (id SERIAL PRIMARY KEY, permission_view_id INT, role_id INT);
CREATE TABLE serialized_dag (
    dag_id TEXT, dag_hash TEXT, data TEXT, data_compressed BYTEA,
    last_updated TIMESTAMP, created_at TIMESTAMP
);
CREATE TABLE dag (dag_id TEXT, fileloc TEXT, processor_subdir TEXT);
CREATE TABLE dag_tag (dag_id TEXT, name TEXT);
INSERT INTO ab_role (name) VALUES ('Admin'), ('Public'), ('Viewer'), ('User'), ('Op');
INSERT INTO ab_role (name) SELECT 'team-' || n FROM generate_series(1, {ROLES}) n;
INSERT INTO ab_permission (name)
    VALUES ('can_read'), ('can_edit'), ('can_delete'), ('can_create');
INSERT INTO ab_view_menu (name) VALUES ('Website');
INSERT INTO ab_permission_view (permission_id, view_menu_id) VALUES (1, 1);
INSERT INTO ab_permission_view_role (permission_view_id, role_id) SELECT 1, id FROM ab_role;
INSERT INTO dag SELECT 'dag-' || n, '/dags/team-' || 1 + n % {ROLES} || '/' || n || '.py', '/dags'
    FROM generate_series(1, {DAGS}) n;
INSERT INTO serialized_dag SELECT dag_id, dag_id, '{{"dag": {{}}}}', NULL, NOW(), NOW() FROM dag;
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
MOST_MIB = 45.5  # one less in the image, which has no rich for structlog to import


@pytest.fixture
def filled(postgres: Postgres) -> Database:
    database = postgres.new_database()
    database.query(TABLES)
    return database


def test_a_thousand_dags_and_fifty_roles(filled: Database, tmp_path: Path) -> None:
    file = tmp_path / "roles.yaml"
    file.write_text(
        "roles:\n"
        + "".join(
            f"  team-{n}: {{dags: [{{folder: team-{n}/**, permissions: [can_read]}}]}}\n"
            for n in range(1, ROLES + 1)
        )
    )
    site = Site(tmp_path / "site")
    site.add_python()
    environment = {
        **site.environment(AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=filled.url),
        "TMPDIR": str(tmp_path),
        "INTERVAL": "0.1",
        "SYNC_PERM_HTTP_BIND": "127.0.0.1:0",
        "SYNC_PERM_ROLES": str(file),
    }
    with SidecarProcess(SYNC_PERM, environment, tmp_path / "home") as daemon:
        daemon.wait_until_ready(PASS_SECONDS)
        file.write_text(file.read_text() + "# read again\n")
        daemon.wait_for_event("roles_file_taken", PASS_SECONDS, after=len(daemon.events))

        assert daemon.rss_mib() <= MOST_MIB
        assert [] == daemon.find_events("pass_started")
