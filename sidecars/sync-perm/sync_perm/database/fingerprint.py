"""
The poll: detects whether anything has changed since the tables were read.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sync_perm.database.database import Database, Row


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """
    Counts, greatest ids and sums of ids, a sum over the names, and each role by name.

    Sums detect changes that counts and greatest ids miss, such as a deleted row whose id SQLite
    reuses for a new row. Sums of products detect two rows that exchange their values.
    """

    rows: tuple[Row, ...]

    @property
    def revision(self) -> str:
        """
        Return a short digest.
        """
        return hashlib.sha256(repr(self.rows).encode()).hexdigest()[:12]

    def beside(self, revision: str) -> Fingerprint:
        """
        Return a fingerprint that also changes with this revision of a file.
        """
        return Fingerprint((*self.rows, (revision,)))


def read_fingerprint(
    database: Database, *, include_dags: bool, path_column: str, include_tags: bool
) -> Fingerprint:
    """
    Read the fingerprint: one query, 1 ms at 1,000 DAGs on PostgreSQL.

    Args:
        path_column: The column with the path of a DAG's file, if paths matter: Airflow 3 does not
            serialize a DAG again when its file moves.
        include_tags: Whether tags matter: Airflow 2 writes them after the serialized DAG.

    Raises:
        SidecarError: The database failed, or is not migrated.
    """
    table, product = database.table, database.driver.PRODUCT
    permissions = (
        "(SELECT COUNT(*) AS c1, MAX(id) AS m1, SUM(permission_id) AS s1, SUM(view_menu_id) AS t1,"
        f" SUM({product.format('permission_id', 'view_menu_id')}) AS u1"
        f" FROM {table('ab_permission_view')}) AS p"
    )
    grants = (
        "(SELECT COUNT(*) AS c2, MAX(id) AS m2, SUM(permission_view_id) AS s2, SUM(role_id) AS t2,"
        f" SUM({product.format('permission_view_id', 'role_id')}) AS u2"
        f" FROM {table('ab_permission_view_role')}) AS g"
    )
    name = product.format(database.driver.NUMBER.replace("{}", "name"), "id")
    names = [
        f"(SELECT COUNT(*) AS c{n}, SUM({name}) AS s{n} FROM {table(of)}) AS n{n}"
        for n, of in ((5, "ab_permission"), (6, "ab_view_menu"))
    ]
    parts = [permissions, grants, *names]
    if include_dags:
        # last_updated changes exactly when a DAG is serialized again. The newest value alone would
        # miss a DAG whose parser's clock is slow.
        moment = database.driver.MILLISECONDS.replace("{}", "last_updated")
        moments = f"SELECT COUNT(*) AS c3, SUM({moment}) AS s3"
        parts.append(f"({moments} FROM {table('serialized_dag')}) AS d")
    if path_column:
        number = database.driver.NUMBER.replace("{}", path_column)
        parts.append(f"(SELECT COUNT(*) AS c4, SUM({number}) AS s4 FROM {table('dag')}) AS f")
    if include_tags:
        hashes = [database.driver.NUMBER.replace("{}", column) for column in ("name", "dag_id")]
        tags = f"SELECT COUNT(*) AS c7, SUM({product.format(*hashes)}) AS s7"
        parts.append(f"({tags} FROM {table('dag_tag')}) AS t")
    roles = f"LEFT JOIN (SELECT id AS role, name FROM {table('ab_role')}) AS r ON 1 = 1"
    sql = f"SELECT * FROM {' CROSS JOIN '.join(parts)} {roles} ORDER BY role"
    return Fingerprint(tuple(database.rows(sql)))
