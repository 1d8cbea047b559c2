"""
Reads the tables: roles, permissions, grants, and the access control of DAGs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from sidecar_runtime.errors import SidecarError
from sync_perm.database.access_control import AccessControl, Unreadable, read_access_control
from sync_perm.database.database import Database

# The number of serialized DAGs to fetch at a time: 50 DAGs of 4.4 MB each take 82 MB of memory, but
# 175 MB with 25 at a time (2026-11).
BATCH = 5

Access: TypeAlias = AccessControl | Unreadable | None
"""The access control of a DAG; None without one, Unreadable if its form is unknown."""
Permission = tuple[str, str]
"""An action and a resource."""
Grant = tuple[str, str, str]
"""A role, an action and a resource."""
Grants: TypeAlias = Mapping[str, Set[Permission]]
"""By role: 50,000 rows take 1.6 MiB this way, and 5 MiB as triples (2026-11)."""


class Place(NamedTuple):
    """
    The path of a DAG's file, and the DAG's tags.

    Args:
        path: Relative to the DAG folder or the bundle's root; empty for a file outside of it.
    """

    path: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tables:
    """
    Args:
        broken: The number of permissions without action or resource (AIRFLOW-5336).
        aliases: Another spelling of a role → the database's, whose collation equates them.
        bare: Resources without any permission; Airflow has some.
        unfit: Role names that the database cannot store.
        dags: DAG → its access control.
        fresh: The DAGs that were serialized again since the last look.
        places: The places of the DAGs; empty unless requested.
    """

    permissions: frozenset[Permission]
    grants: Grants
    broken: int
    dags: Mapping[str, Access]
    fresh: frozenset[str]
    aliases: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)
    bare: frozenset[str] = frozenset()
    unfit: frozenset[str] = frozenset()

    @property
    def roles(self) -> frozenset[str]:
        """
        The names of the roles.
        """
        return frozenset(self.grants)

    def spelled(self, role: str) -> str:
        """
        Return a role's name as the database spells it.
        """
        return self.aliases.get(role, role)

    @property
    def grant_count(self) -> int:
        """
        The number of grants.
        """
        return sum(map(len, self.grants.values()))


class Reader:
    """
    Reads the tables, and caches the access control of unchanged DAGs.

    Args:
        release: Of Airflow. From 3.0 on a DAG may have several rows, the newest of which counts.
        dags_folder: The folder of Airflow 2's DAGs, for DAGs whose row does not name one.

    Attributes:
        path_column: The column of the DAG table with the path of the file.
    """

    def __init__(self, *, release: tuple[int, int], dags_folder: str) -> None:
        self._has_versions = release >= (3, 0)
        # Before 3.3 the newest one is the latest, even if the clock of its parser was fast.
        self._has_numbers = release >= (3, 3)
        self._dags_folder = dags_folder
        self.path_column = "relative_fileloc" if self._has_versions else "fileloc"
        # DAG → hash, and the access control with that hash. The mapping is replaced, never shrunk,
        # because an abandoned cycle may still be reading it.
        self._known: dict[str, tuple[str, Access]] = {}

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
        access, fresh = self._read_dags(database) if dags else ({}, frozenset())
        roles = _names(database, "ab_role")
        pairs, bare, broken = _permissions(database)
        sql = f"SELECT permission_view_id, role_id FROM {database.table('ab_permission_view_role')}"
        grants = by_role(
            roles.values(),
            (
                (roles[role], pairs[number])
                for number, role in database.each(sql)
                if number in pairs and role in roles
            ),
        )
        named = {role for one in access.values() if isinstance(one, dict) for role in one}
        unknown = named.union(names).difference(roles.values())
        aliases, unfit = _find_roles(database, sorted(unknown))
        return Tables(
            permissions=frozenset(pairs.values()),
            grants=grants,
            broken=broken,
            dags=access,
            fresh=fresh,
            aliases=aliases,
            places=self.read_places(database) if places else {},
            bare=bare,
            unfit=unfit,
        )

    def read_places(self, database: Database) -> dict[str, Place]:
        """
        Read the places of the DAGs: 2 ms of CPU at 1,000 DAGs.

        Raises:
            SidecarError: The database failed.
        """
        table = database.table
        tags: dict[str, list[str]] = {}
        for dag_id, tag in database.rows(f"SELECT dag_id, name FROM {table('dag_tag')}"):
            tags.setdefault(dag_id, []).append(tag)
        root = "NULL" if self._has_versions else "processor_subdir"
        rows = database.rows(f"SELECT dag_id, {self.path_column}, {root} FROM {table('dag')}")
        return {
            dag_id: Place(self._below(path or "", root or ""), tuple(sorted(tags.get(dag_id, []))))
            for dag_id, path, root in rows
        }

    def _below(self, path: str, folder: str) -> str:
        """
        Return a path relative to the folder in its row or the configuration; empty if outside.
        """
        if self._has_versions:
            return path
        for root in (folder, self._dags_folder):
            if root and path.startswith(f"{root.rstrip('/')}/"):
                return path.removeprefix(f"{root.rstrip('/')}/").lstrip("/")
        return ""

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
        fresh = frozenset(dag_id for dag_id, _ in changed) if before else frozenset()
        self._known = known
        for start in range(0, len(changed), BATCH):
            known.update(_fetch(database, table, changed[start : start + BATCH]))
        return {dag_id: access for dag_id, (_, access) in known.items()}, fresh


def by_role(roles: Iterable[str], grants: Iterable[tuple[str, Permission]]) -> Grants:
    """
    Return the grants of each of these roles, including roles without grants.
    """
    found: dict[str, set[Permission]] = {role: set() for role in roles}
    for role, permission in grants:
        found[role].add(permission)
    return found


def _fetch(
    database: Database, table: str, batch: list[tuple[str, str]]
) -> Iterator[tuple[str, tuple[str, Access]]]:
    """
    Read the access control of some DAGs; a DAG that changes meanwhile is left to the next look.
    """
    marks = ", ".join(["{}"] * len(batch))
    text = database.driver.TEXT.replace("{}", "data")
    rows = database.rows(
        f"SELECT dag_id, dag_hash, {text}, data_compressed FROM {table}"
        f" WHERE dag_id IN ({marks}) AND dag_hash IN ({marks})",
        [dag_id for dag_id, _ in batch] + [digest for _, digest in batch],
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


def _find_roles(database: Database, names: Iterable[str]) -> tuple[dict[str, str], frozenset[str]]:
    """
    Look up unknown role names as Airflow does, with the database's own comparison. Return the names
    that the database has for them, and those that it cannot store.

    Servers differ in the errors that a name can cause. So if the query fails for this name but not
    for an empty name, the name is unfit. A name that is returned changed is unfit too, because the
    connection cannot encode it.
    """
    table, text = database.table("ab_role"), database.driver.TEXT
    sql = f"SELECT {text}, name FROM (SELECT 1) AS one LEFT JOIN {table} ON name = {{}}"
    aliases: dict[str, str] = {}
    unfit: set[str] = set()
    for role in names:
        try:
            (said, found), *_ = database.rows(sql, [role, role])
        except SidecarError:
            database.rows(sql, ["", ""])
            unfit.add(role)
            continue
        if said != role:
            unfit.add(role)
        elif found is not None:
            aliases[role] = found
    return aliases, frozenset(unfit)


def _permissions(database: Database) -> tuple[dict[int, Permission], frozenset[str], int]:
    """
    Return permissions by id, the resources without any, and the number of permissions without
    action or resource.

    Names are read in separate queries instead of a join, to keep each name in memory only once.
    They are read after the rows that refer to them, so that a row created meanwhile is not broken.
    """
    table = database.table("ab_permission_view")
    rows = database.rows(f"SELECT id, permission_id, view_menu_id FROM {table}")
    actions, resources = _names(database, "ab_permission"), _names(database, "ab_view_menu")
    pairs: dict[int, Permission] = {}
    for number, action_id, resource_id in rows:
        if action_id in actions and resource_id in resources:
            pairs[number] = (actions[action_id], resources[resource_id])
    bare = frozenset(resources.values()).difference(resource for _, resource in pairs.values())
    return pairs, bare, len(rows) - len(pairs)


def _names(database: Database, table: str) -> dict[int, str]:
    return dict(database.rows(f"SELECT id, name FROM {database.table(table)}"))
