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

from sqlalchemy import BigInteger, String, bindparam, cast, func, null, select

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
        self._sums: dict[tuple[bool, frozenset[str]], str] = {}
        # DAG → hash, and the access control with that hash. The mapping is replaced, never shrunk,
        # because an abandoned cycle may still be reading it.
        self._known: dict[str, tuple[str, Access]] = {}

    def fingerprint(
        self, database: Database, *, dags: bool, selected_by: frozenset[str], file: str
    ) -> str:
        """
        Return a digest of all that passes read: one query, 1 ms at 1,000 DAGs on PostgreSQL.

        It covers counts, greatest ids and sums of ids, and sums over the names.
        Sums detect changes that counts and greatest ids miss. Sums of products detect two rows that
        exchange their values.

        Args:
            selected_by: By what else than its id the roles file selects a DAG: Airflow writes tags,
                owners and paths without serializing the DAG again.
            file: The revision of the roles file.

        Raises:
            SidecarError: The database failed, or is not migrated.
        """
        if (dags, selected_by) not in self._sums:
            query = self._sum(database, dags, selected_by)
            self._sums = {(dags, selected_by): database.compiled(query)}
        rows = [*database.rows(self._sums[dags, selected_by]), (file,)]
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    def _sum(self, database: Database, dags: bool, selected_by: frozenset[str]) -> Any:
        """
        Return the query of the fingerprint.
        """

        def pairs(first: Any, second: Any) -> list[Any]:
            product = func.sum(cast(first, BigInteger) * second)
            return [func.max(first.table.c.id), func.sum(first), func.sum(second), product]

        def hashed(*columns: Any, by: Any = None) -> list[Any]:
            key = database.hash(columns[0].table.c.dag_id) if by is None else by
            return [func.sum(database.hash(column) * key) for column in columns]

        of = database.columns
        grant = of("ab_permission_view_role", "id", "permission_view_id", "role_id")
        permission = of("ab_permission_view", "id", "permission_id", "view_menu_id")
        names = [of(name, "id", "name") for name in ("ab_role", "ab_permission", "ab_view_menu")]
        sums = [
            pairs(permission.permission_id, permission.view_menu_id),
            pairs(grant.permission_view_id, grant.role_id),
            *(hashed(one.name, by=one.id) for one in names),
        ]
        if dags:
            # last_updated changes exactly when a DAG is serialized again. The newest value alone
            # would miss a DAG whose parser's clock is slow.
            serialized = of("serialized_dag", "dag_id", "last_updated")
            sums.append([func.sum(database.hash(cast(serialized.last_updated, String)))])
        if "tag" in selected_by:
            sums.append(hashed(of("dag_tag", "dag_id", "name").name))
        if not selected_by.isdisjoint(("folder", "owner")):
            dag = of("dag", "dag_id", "owners", self._path)
            sums.append(hashed(dag[self._path], dag.owners))
        return select(*(select(func.count(), *one).subquery() for one in sums))

    @property
    def _path(self) -> str:
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
        access, fresh = self._read_dags(database) if dags else ({}, frozenset[str]())
        of = database.columns
        role, action, resource = (
            of(name, "id", "name") for name in ("ab_role", "ab_permission", "ab_view_menu")
        )
        permission = of("ab_permission_view", "id", "permission_id", "view_menu_id")
        grant = of("ab_permission_view_role", "permission_view_id", "role_id")
        roles: dict[int, str] = dict(database.rows(select(role.id, role.name)))
        rows = database.rows(
            select(permission.id, action.name, resource.name)
            .outerjoin_from(
                permission.id.table, action.id.table, action.id == permission.permission_id
            )
            .outerjoin(resource.id.table, resource.id == permission.view_menu_id)
        )
        pairs = {n: (intern(a), intern(r)) for n, a, r in rows if None not in (a, r)}
        resources = database.rows(select(resource.name))
        grants: dict[str, set[Permission]] = {role: set() for role in roles.values()}
        for number, holder in database.rows(select(grant.permission_view_id, grant.role_id)):
            if number in pairs and holder in roles:
                grants[roles[holder]].add(pairs[number])
        named = {name for one in access.values() if isinstance(one, dict) for name in one}
        unknown = named.union(names).difference(grants)
        aliases, unfit = _find_roles(database, sorted(unknown))
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
        )

    def _read_places(self, database: Database) -> dict[str, Place]:
        """
        Read the places of the DAGs: 2 ms of CPU at 1,000 DAGs.
        """
        tags: dict[str, list[str]] = {}
        tag = database.columns("dag_tag", "dag_id", "name")
        for dag_id, name in database.rows(select(tag.dag_id, tag.name)):
            tags.setdefault(dag_id, []).append(name)
        dag = database.columns("dag", "dag_id", "owners", "processor_subdir", self._path)
        root = null() if self._has_versions else dag.processor_subdir
        return {
            dag_id: Place(
                self._below(path or "", folder or ""),
                frozenset(owner.strip() for owner in (owners or "").split(",")),
                frozenset(tags.get(dag_id, ())),
            )
            for dag_id, path, owners, folder in database.rows(
                select(dag.dag_id, dag[self._path], dag.owners, root)
            )
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
        dag = database.columns(
            "serialized_dag", "dag_id", "dag_hash", "dag_version_id", "created_at", "last_updated"
        )
        query = select(
            dag.dag_id, dag.dag_hash, dag.created_at if self._has_versions else dag.last_updated
        )
        if self._has_numbers:
            version = database.columns("dag_version", "id", "version_number")
            query = select(dag.dag_id, dag.dag_hash, version.version_number)
            query = query.where(version.id == dag.dag_version_id)
        newest: dict[str, tuple[Any, str]] = {}
        for dag_id, digest, at in database.rows(query):
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
            known.update(_fetch(database, changed[start : start + BATCH]))
        fresh = frozenset(dag_id for dag_id, _ in changed) if before else frozenset[str]()
        return {dag_id: access for dag_id, (_, access) in known.items()}, fresh


def _fetch(
    database: Database, batch: list[tuple[str, str]]
) -> Iterator[tuple[str, tuple[str, Access]]]:
    """
    Read the access control of some DAGs; a DAG that changes meanwhile is left to the next look.
    """
    dag = database.columns("serialized_dag", "dag_id", "dag_hash", "data", "data_compressed")
    ids, digests = zip(*batch, strict=True)
    rows = database.rows(
        select(dag.dag_id, dag.dag_hash, cast(dag.data, String), dag.data_compressed).where(
            dag.dag_id.in_(ids), dag.dag_hash.in_(digests)
        )
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
    name, said = database.columns("ab_role", "name").name, cast(bindparam("role"), String)
    query = select(said, select(func.min(name)).where(name == bindparam("role")).scalar_subquery())
    aliases: dict[str, str] = {}
    unfit: set[str] = set()
    for role in names:
        try:
            ((told, found),) = database.rows(query, role=role)
        except SidecarError:
            database.rows(query, role="")
            unfit.add(role)
            continue
        if told != role:
            unfit.add(role)
        elif found is not None:
            aliases[role] = found
    return aliases, frozenset(unfit)
