"""
Reads the tables: whether anything changed (the fingerprint), and the rows by name.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from sys import intern
from typing import Any

from sidecar_runtime.errors import SidecarError
from sync_perm.compare import Access, AccessControl, Permission, Place, Tables, Unreadable
from sync_perm.database import Database

# The number of serialized DAGs to fetch at a time: 50 DAGs of 4.4 MB each take 82 MB of memory, but
# 175 MB with 25 at a time (2026-11).
BATCH = 5
_ACCESS_KEYS = ("_access_control", "access_control")  # Airflow 2, Airflow 3


class Reader:
    """
    Reads the tables, and caches the access control of unchanged DAGs.

    Args:
        release: Of Airflow. From 3.0 on a DAG may have several rows, the newest of which counts.
        dags_folder: The folder of Airflow 2's DAGs, for DAGs whose row does not name one.
    """

    def __init__(self, release: tuple[int, int], dags_folder: str) -> None:
        self._has_versions = release >= (3, 0)
        # Before 3.3 the newest one is the latest, even if the clock of its parser was fast.
        self._has_numbers = release >= (3, 3)
        self._dags_folder = dags_folder
        self._longest: int | None = None
        # DAG → hash, and the access control with that hash. The mapping is replaced, never shrunk,
        # because an abandoned cycle may still be reading it.
        self._known: dict[str, tuple[str, Access]] = {}

    def fingerprint(
        self, database: Database, *, dags: bool, selected_by: frozenset[str], file: str
    ) -> str:
        """
        Return a digest of all that passes read: one query, 1 ms at 1,000 DAGs on PostgreSQL.

        It covers counts, greatest ids and sums of ids, sums over the names, and each role by name.
        Sums detect changes that counts and greatest ids miss. Sums of products detect two rows that
        exchange their values.

        Args:
            selected_by: By what else than its id the roles file selects a DAG: Airflow writes tags,
                owners and paths without serializing the DAG again.
            file: The revision of the roles file.

        Raises:
            SidecarError: The database failed, or is not migrated.
        """
        of = database.dialect

        def product(first: str, second: str) -> str:
            return f"SUM({of.product.format(first, second)})"

        def hashed(column: str, other: str = of.number.format("dag_id")) -> str:
            return product(of.number.format(column), other)

        def pairs(first: str, second: str) -> str:
            return f"MAX(id), SUM({first}), SUM({second}), {product(first, second)}"

        sums = {
            "ab_permission_view": pairs("permission_id", "view_menu_id"),
            "ab_permission_view_role": pairs("permission_view_id", "role_id"),
            "ab_permission": hashed("name", "id"),
            "ab_view_menu": hashed("name", "id"),
        }
        if dags:
            # last_updated changes exactly when a DAG is serialized again. The newest value alone
            # would miss a DAG whose parser's clock is slow.
            sums["serialized_dag"] = f"SUM({of.milliseconds.format('last_updated')})"
        if "tag" in selected_by:
            sums["dag_tag"] = hashed("name")
        if not selected_by.isdisjoint(("folder", "owner")):
            sums["dag"] = f"{hashed(self._path_column)}, {hashed('owners')}"
        joined = " CROSS JOIN ".join(
            f"(SELECT COUNT(*), {columns} FROM {database.table(name)}) AS {name}"
            for name, columns in sums.items()
        )
        roles = f"(SELECT id AS role, name FROM {database.table('ab_role')}) AS r"
        sql = f"SELECT * FROM {joined} LEFT JOIN {roles} ON 1 = 1 ORDER BY role"
        rows = [*database.rows(sql), (file,)]
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    @property
    def _path_column(self) -> str:
        return "relative_fileloc" if self._has_versions else "fileloc"

    def read(
        self,
        database: Database,
        *,
        dags: bool,
        places: bool = False,
        names: Iterable[str] = (),
    ) -> Tables:
        """
        Read everything: 20 ms of CPU at 1,000 DAGs.

        Args:
            dags: Whether to read the access control of DAGs.
            places: Whether to read the places of DAGs.
            names: Further role names to look up in the database.

        Raises:
            SidecarError: The database failed.
        """
        table = database.table
        access, fresh = self._read_dags(database) if dags else ({}, frozenset[str]())
        roles: dict[int, str] = dict(database.rows(f"SELECT id, name FROM {table('ab_role')}"))
        rows = database.rows(
            "SELECT p.id, a.name, r.name"
            f" FROM {table('ab_permission_view')} p"
            f" LEFT JOIN {table('ab_permission')} a ON a.id = p.permission_id"
            f" LEFT JOIN {table('ab_view_menu')} r ON r.id = p.view_menu_id"
        )
        pairs = {n: (intern(a), intern(r)) for n, a, r in rows if None not in (a, r)}
        resources = database.rows(f"SELECT name FROM {table('ab_view_menu')}")
        grants: dict[str, set[Permission]] = {role: set() for role in roles.values()}
        sql = f"SELECT permission_view_id, role_id FROM {table('ab_permission_view_role')}"
        for number, role in database.rows(sql):
            if number in pairs and role in roles:
                grants[roles[role]].add(pairs[number])
        named = {role for one in access.values() if isinstance(one, dict) for role in one}
        unknown = named.union(names).difference(grants)
        aliases, unfit = _find_roles(database, sorted(unknown))
        if self._longest is None:
            ((self._longest,),) = database.rows(
                "SELECT COALESCE(MIN(character_maximum_length), 2147483647)"
                " FROM information_schema.columns"
                " WHERE table_name = 'ab_view_menu' AND column_name = 'name'"
            )
        return Tables(
            permissions=frozenset(pairs.values()),
            grants=grants,
            broken=len(rows) - len(pairs),
            dags=access,
            fresh=fresh,
            bare=frozenset(name for (name,) in resources).difference(r for _, r in pairs.values()),
            aliases=aliases,
            unfit=unfit,
            places=self._read_places(database) if places else {},
            longest=self._longest,
        )

    def _read_places(self, database: Database) -> dict[str, Place]:
        """
        Read the places of the DAGs: 2 ms of CPU at 1,000 DAGs.
        """
        tags: dict[str, list[str]] = {}
        for dag_id, tag in database.rows(f"SELECT dag_id, name FROM {database.table('dag_tag')}"):
            tags.setdefault(dag_id, []).append(tag)
        root = "NULL" if self._has_versions else "processor_subdir"
        sql = f"SELECT dag_id, {self._path_column}, owners, {root} FROM {database.table('dag')}"
        return {
            dag_id: Place(
                self._below(path or "", root or ""),
                frozenset(owner.strip() for owner in (owners or "").split(",")),
                frozenset(tags.get(dag_id, ())),
            )
            for dag_id, path, owners, root in database.rows(sql)
        }

    def _below(self, path: str, folder: str) -> str:
        """
        Return a path relative to the folder in its row or the configuration; empty if outside.
        """
        if self._has_versions:
            return path
        roots = [f"{root.rstrip('/')}/" for root in (folder, self._dags_folder) if root]
        return next((path.removeprefix(r).lstrip("/") for r in roots if path.startswith(r)), "")

    def _read_dags(self, database: Database) -> tuple[dict[str, Access], frozenset[str]]:
        """
        Return the access control of each DAG, and the DAGs that changed since the last look.
        """
        table = database.table("serialized_dag")
        order, versions = "s.created_at" if self._has_versions else "s.last_updated", ""
        if self._has_numbers:
            order = "v.version_number"
            versions = f" JOIN {database.table('dag_version')} v ON v.id = s.dag_version_id"
        newest: dict[str, tuple[Any, str]] = {}
        for dag_id, digest, at in database.rows(
            f"SELECT s.dag_id, s.dag_hash, {order} FROM {table} s{versions}"
        ):
            if dag_id not in newest or newest[dag_id][0] < at:
                newest[dag_id] = (at, digest)
        before = self._known
        known = {dag_id: before[dag_id] for dag_id in newest if dag_id in before}
        changed = [
            (dag_id, digest)
            for dag_id, (_, digest) in newest.items()
            if dag_id not in known or known[dag_id][0] != digest
        ]
        self._known = known
        for start in range(0, len(changed), BATCH):
            known.update(_fetch(database, table, changed[start : start + BATCH]))
        fresh = frozenset(dag_id for dag_id, _ in changed) if before else frozenset[str]()
        return {dag_id: access for dag_id, (_, access) in known.items()}, fresh


def _fetch(
    database: Database, table: str, batch: list[tuple[str, str]]
) -> Iterator[tuple[str, tuple[str, Access]]]:
    """
    Read the access control of some DAGs; a DAG that changes meanwhile is left to the next look.
    """
    rows = database.rows(
        f"SELECT dag_id, dag_hash, {database.dialect.text.format('data')}, data_compressed"
        f" FROM {table} WHERE dag_id IN :ids AND dag_hash IN :hashes",
        ids=[dag_id for dag_id, _ in batch],
        hashes=[digest for _, digest in batch],
    )
    for dag_id, digest, data, blob in rows:
        if (dag_id, digest) not in batch:
            continue  # the hash of another DAG
        access: Access
        try:
            access = read_access_control(data, bytes(blob) if blob else None)
        except Unreadable as error:
            access = error
        yield dag_id, (digest, access)


def read_access_control(data: str | None, compressed: bytes | None) -> AccessControl | None:
    """
    Return the access control in a row of ``serialized_dag``; None if the DAG has none.

    Most DAGs have none, and are not parsed.

    Raises:
        Unreadable: The serialized form is unknown.
    """
    try:
        text = zlib.decompress(compressed).decode() if compressed else data or "{}"
        if 'access_control"' not in text:
            return None
        dag = json.loads(text)["dag"]
        found = next((dag[key] for key in _ACCESS_KEYS if dag.get(key) is not None), None)
        decoded = None if found is None else _decode(found)
    except Unreadable:
        raise
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        zlib.error,
    ) as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from None
    if decoded is not None and not isinstance(decoded, dict):
        raise Unreadable(f"a {type(decoded).__name__}")
    return decoded


def _decode(value: Any) -> Any:
    """
    Undo Airflow's encoding: a mapping or set is ``{"__type": …, "__var": …}``.
    """
    match value:
        case {"__type": "dict", "__var": dict(inner)}:
            return {key: _decode(item) for key, item in inner.items()}
        case {"__type": "set" | "frozenset", "__var": list(inner)}:
            return set(inner)
        case {"__type": "tuple", "__var": list(inner)}:
            return tuple(inner)
        case {"__type": kind}:
            raise Unreadable(f"a {kind}")
        case dict():
            return {key: _decode(item) for key, item in value.items()}
    return value


def _find_roles(database: Database, names: Iterable[str]) -> tuple[dict[str, str], frozenset[str]]:
    """
    Look up unknown role names as Airflow does, with the database's own comparison. Return the names
    that the database has for them, and those that it cannot store.

    Servers differ in the errors that a name can cause. So if the query fails for this name but not
    for an empty name, the name is unfit. A name that is returned changed is unfit too, because the
    connection cannot encode it.
    """
    said = database.dialect.text.format(":role")
    sql = f"SELECT {said}, name FROM (SELECT 1) AS one LEFT JOIN {database.table('ab_role')}"
    sql += " ON name = :role"
    aliases: dict[str, str] = {}
    unfit: set[str] = set()
    for role in names:
        try:
            (told, found), *_ = database.rows(sql, role=role)
        except SidecarError:
            database.rows(sql, role="")
            unfit.add(role)
            continue
        if told != role:
            unfit.add(role)
        elif found is not None:
            aliases[role] = found
    return aliases, frozenset(unfit)
