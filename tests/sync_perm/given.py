"""
Test data for sync-perm: Airflow installations, tables, and a small metadata database.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sync_perm.airflow.installation import Installation
from sync_perm.database.access_control import AccessControl, Unreadable
from sync_perm.database.connection import Address, parse_url
from sync_perm.database.tables import Grant, Permission, Tables, by_role
from sync_perm.difference import DEFAULT_ROLES, WEBSITE, Resource

KINDS = {
    "DAGs": Resource("DAG:", frozenset({"can_read", "can_edit", "can_delete"})),
    "DAG Runs": Resource(
        "DAG Run:", frozenset({"can_create", "can_read", "can_delete", "menu_access"})
    ),
}
AIRFLOW_2 = Installation(
    "/usr/bin/airflow", "/usr/bin/python3", "2.11.2", "1.5.4", "", KINDS, False
)
AIRFLOW_3 = Installation("/usr/bin/airflow", "/usr/bin/python3", "3.3.2", "3.10.2", "", KINDS, True)

SCHEMA = """
CREATE TABLE ab_role (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE ab_permission (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE ab_view_menu (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE ab_permission_view (id INTEGER PRIMARY KEY, permission_id INT, view_menu_id INT);
CREATE TABLE ab_permission_view_role (id INTEGER PRIMARY KEY, permission_view_id INT, role_id INT);
CREATE TABLE serialized_dag (
    dag_id TEXT, dag_hash TEXT, data TEXT, data_compressed BLOB, last_updated TEXT, created_at TEXT,
    dag_version_id INT
);
CREATE TABLE dag_version (id INTEGER PRIMARY KEY, version_number INT);
CREATE TABLE dag (dag_id TEXT, fileloc TEXT, processor_subdir TEXT, relative_fileloc TEXT);
CREATE TABLE dag_tag (dag_id TEXT, name TEXT);
"""


def permissions_of(*dag_ids: str) -> set[Permission]:
    """Return the permissions that these DAGs must have."""
    return {
        (action, f"{kind.prefix}{dag_id}")
        for dag_id in dag_ids
        for kind in KINDS.values()
        for action in kind.actions
    }


def tables(
    dags: Mapping[str, AccessControl | Unreadable | None] = {},
    *,
    roles: Iterable[str] = (),
    grants: Iterable[Grant] = (),
    permissions: Iterable[Permission] | None = None,
    broken: int = 0,
) -> Tables:
    """Return tables that are complete except for the given deviations."""
    held = [(role, (action, resource)) for role, action, resource in grants]
    website = [(role, WEBSITE) for role in (*roles, "Admin")]
    return Tables(
        permissions=frozenset(permissions_of(*dags) if permissions is None else permissions)
        | {WEBSITE},
        grants=by_role((*DEFAULT_ROLES, *roles), [*held, *website]),
        broken=broken,
        dags=dags,
        fresh=frozenset(),
    )


class Sqlite:
    """A metadata database with the tables that sync-perm reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.address: Address = parse_url("TEST", f"sqlite:///{path}", "")
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.executescript(f"PRAGMA synchronous = OFF;{SCHEMA}")

    def run(self, sql: str, *values: Any) -> None:
        self._connection.execute(sql, values)

    def script(self, sql: str) -> None:
        self._connection.executescript(sql)

    def close(self) -> None:
        self._connection.close()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql).fetchall()

    def serialize(
        self, dag_id: str, digest: str, access: Any = None, at: str = "1", version: int = 1
    ) -> None:
        """Add a row of ``serialized_dag``, or replace the one with the same hash."""
        dag = {"dag_id": dag_id} if access is None else {"_access_control": access}
        self.run("DELETE FROM serialized_dag WHERE dag_id = ? AND dag_hash = ?", dag_id, digest)
        self.run("INSERT INTO dag_version (version_number) VALUES (?)", version)
        self.run(
            "INSERT INTO serialized_dag VALUES"
            " (?, ?, ?, NULL, ?, ?, (SELECT MAX(id) FROM dag_version))",
            *(dag_id, digest, json.dumps({"dag": dag}), at, at),
        )
