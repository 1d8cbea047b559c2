"""
What the tables say: roles, permissions, grants, and what the DAGs ask for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from sidecar_runtime.errors import SidecarError
from sync_perm.database.access_control import AccessControl, Unreadable, read_access_control
from sync_perm.database.database import Database

# DAGs whose serialized form is fetched at a time: 50 of 4.4 MB each take 82 MB, and 175 by 25
# (2026-11).
BATCH = 5

Access: TypeAlias = AccessControl | Unreadable | None
"""Of a DAG; None without one, Unreadable where we cannot tell."""
Permission = tuple[str, str]
"""Action and resource."""
Grant = tuple[str, str, str]
"""Role, action and resource."""
Grants: TypeAlias = Mapping[str, Set[Permission]]
"""Of each role: 50,000 rows take 1.6 MiB, and 5 as triples (2026-11)."""


class Place(NamedTuple):
    """
    Where the file of a DAG is, and what its author calls it.

    Args:
        path: Below the DAG folder, or the root of its bundle; empty where it is not below.
    """

    path: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tables:
    """
    Args:
        broken: How many permissions lack action or resource (AIRFLOW-5336).
        aliases: Role as a DAG spells it → as the database does, whose collation takes both for one.
        bare: Resources without any permission; Airflow has some.
        unfit: Names of roles that the database cannot hold.
        dags: DAG → its access control.
        fresh: The DAGs that were serialized again since the last look.
        places: Of the DAGs; empty where nobody asks for them.
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
        Return their names.
        """
        return frozenset(self.grants)

    @property
    def grant_count(self) -> int:
        """
        Return how many grants there are.
        """
        return sum(map(len, self.grants.values()))


class Reader:
    """
    Reads the tables; remembers the access control of DAGs that did not change.

    Args:
        has_versions: Airflow 3 keeps several rows of a DAG, of which the newest counts.
        dags_folder: Where Airflow 2 finds its DAGs, unless their rows say it.

    Attributes:
        path_column: Where the table of DAGs has the path of the file.
    """

    def __init__(self, *, has_versions: bool, dags_folder: str) -> None:
        self._has_versions = has_versions
        self._dags_folder = dags_folder
        self._order = "created_at" if has_versions else "last_updated"
        self.path_column = "relative_fileloc" if has_versions else "fileloc"
        # DAG → hash, and what was read under it. It is replaced, never shortened, as a cycle that
        # was abandoned may still be reading.
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
            dags: What they ask for, too.
            places: Of the DAGs, too.
            names: Of roles, whatever the database takes them for.

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
        Read where the DAGs are: 2 ms of CPU at 1,000 DAGs.

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
        Return a path without the folder that its row names, or the configuration.
        """
        if self._has_versions:
            return path
        for root in (folder, self._dags_folder):
            if root and path.startswith(f"{root.rstrip('/')}/"):
                return path.removeprefix(f"{root.rstrip('/')}/").lstrip("/")
        return ""

    def _read_dags(self, database: Database) -> tuple[dict[str, Access], frozenset[str]]:
        """
        Return what the DAGs ask for, and those that changed since the last look.
        """
        table = database.table("serialized_dag")
        newest: dict[str, tuple[Any, str]] = {}
        for dag_id, digest, at in database.rows(
            f"SELECT dag_id, dag_hash, {self._order} FROM {table}"
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
    Return the grants of each of these roles, also of those without any.
    """
    found: dict[str, set[Permission]] = {role: set() for role in roles}
    for role, permission in grants:
        found[role].add(permission)
    return found


def _fetch(
    database: Database, table: str, batch: list[tuple[str, str]]
) -> Iterator[tuple[str, tuple[str, Access]]]:
    """
    Read the access control of some DAGs; one that changes meanwhile is left for the next look.
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
            continue  # another one's hash
        access: Access
        try:
            access = read_access_control(data, bytes(blob) if blob else None)
        except Unreadable as error:
            access = error
        yield dag_id, (digest, access)


def _find_roles(database: Database, names: Iterable[str]) -> tuple[dict[str, str], frozenset[str]]:
    """
    Ask for roles that we do not know, as Airflow asks: the database compares. Return its names for
    them, and those that it cannot hold.

    Which errors a name may cause is each server's own; so whatever fails for this name and not
    for another one is the name's fault. What comes back changed, the connection cannot say.
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
    Return permissions by id, the resources without any, and the number of permissions that lack
    action or resource.

    Names come by queries of their own, not by a join: each is in memory once, not once a row.
    They come after the rows that refer to them: a row that is made meanwhile is not broken.
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
