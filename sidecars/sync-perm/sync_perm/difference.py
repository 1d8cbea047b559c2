"""
Computes which rows a pass of Airflow would change, from the tables and Airflow's rules; pure.

The rules are from `FabAirflowSecurityManagerOverride` (FAB provider 1.5 to 3.10) and from
`airflow/www/security.py` (2.7): `sync_roles`, `create_dag_specific_permissions`,
`_sync_dag_view_permissions`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from sync_perm.database.access_control import AccessControl, Unreadable
from sync_perm.database.tables import Grant, Grants, Permission, Tables

FileKind = Literal["file_role", "file_grant", "file_dag_grant"]
"""Rows that the roles file asks for, and Airflow does not."""
FILE_KINDS: tuple[FileKind, ...] = get_args(FileKind)

Kind = Literal[
    "role",
    "resource",
    "permission",
    "role_grant",
    "broken",
    "dag_permission",
    "dag_grant",
    "dag_revoke",
    FileKind,
]
KINDS: tuple[Kind, ...] = get_args(Kind)

FailureReason = Literal["role_missing", "access_control_invalid", "name_reserved", "not_fixed"]
FAILURE_REASONS: tuple[FailureReason, ...] = get_args(FailureReason)

ADMIN = "Admin"
DEFAULT_ROLES = ("Admin", "Public", "Viewer", "User", "Op")
WEBSITE = ("can_read", "Website")


class Item(NamedTuple):
    """
    One row that is missing or superfluous; `dag_id` is empty if it belongs to no DAG.
    """

    kind: Kind
    dag_id: str
    row: tuple[str | int, ...]

    @property
    def is_of_file(self) -> bool:
        """
        Whether the roles file asks for the row.
        """
        return self.kind in FILE_KINDS


@dataclass(frozen=True, slots=True)
class Resource:
    """
    A kind of DAG permission, such as ``DAGs`` with the prefix ``DAG:``, and its actions.
    """

    prefix: str
    actions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Definition:
    """
    The rows that this Airflow defines for every database, except permissions on single DAGs.

    Args:
        roles: The default roles, those of the security manager, and those in `[fab] custom_roles`.
        permissions: The permissions on the views of Airflow and its plugins.
        grants: The grants that Airflow restores: of the default roles, and of those of the security
            manager.
        bare: The views of Airflow without permissions.
    """

    roles: frozenset[str]
    permissions: frozenset[Permission]
    grants: Grants
    bare: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Failure:
    """
    Why Airflow cannot sync a DAG.
    """

    reason: FailureReason
    text: str


@dataclass(frozen=True, slots=True)
class Difference:
    """
    Args:
        items: The rows that a pass would fix.
        failing: The DAGs that Airflow cannot sync.
    """

    items: frozenset[Item]
    failing: Mapping[str, Failure]


def compare(
    tables: Tables, kinds: Mapping[str, Resource], definition: Definition | None
) -> Difference:
    """
    Return how the tables differ from the state that Airflow would leave.

    Args:
        kinds: The kinds of DAG permissions of this Airflow.
        definition: None if it is not known.
    """
    items = set(_compare_roles(tables, kinds, definition))
    failing: dict[str, Failure] = {}
    ruled = [dag_id for dag_id, access in tables.dags.items() if access is not None]
    on_dags: dict[str, set[Grant]] = {
        f"{kind.prefix}{dag_id}": set() for kind in kinds.values() for dag_id in ruled
    }
    for role, permissions in tables.grants.items():
        for action, resource in permissions:
            if resource in on_dags:
                on_dags[resource].add((role, action, resource))
    for dag_id, access in tables.dags.items():
        if dag_id in kinds:
            text = "is Airflow's name for the permission on every DAG; rename the DAG"
            failing[dag_id] = Failure("name_reserved", text)
            continue
        resources = {name: f"{kind.prefix}{dag_id}" for name, kind in kinds.items()}
        for name, resource in resources.items():
            for action in kinds[name].actions:
                if (action, resource) not in tables.permissions:
                    items.add(Item("dag_permission", dag_id, (action, resource)))
        if isinstance(access, Unreadable):
            text = f"its serialized access_control has an unknown form: {access}"
            failing[dag_id] = Failure("access_control_invalid", text)
        elif access is not None:
            there = {grant for name in resources.values() for grant in on_dags[name]}
            try:
                wanted, failure = _wanted(access, tables, kinds, resources)
            except TypeError as error:  # actions that are not a collection of names
                wanted, failure = set(), Failure("access_control_invalid", str(error))
            kept = _kept(there, access, resources)
            items |= {Item("dag_grant", dag_id, grant) for grant in wanted - there}
            items |= {Item("dag_revoke", dag_id, grant) for grant in there - kept - wanted}
            if failure is not None:
                failing[dag_id] = failure
    return Difference(frozenset(items), failing)


def define(
    tables: Tables, kinds: Mapping[str, Resource], completed: Iterable[str] = DEFAULT_ROLES
) -> Definition:
    """
    Return the definition in tables that Airflow has just written.

    Args:
        completed: The roles whose grants there are those that Airflow restores.
    """
    prefixes = tuple(kind.prefix for kind in kinds.values())
    return Definition(
        roles=tables.roles,
        permissions=frozenset(p for p in tables.permissions if not p[1].startswith(prefixes)),
        grants={
            role: {p for p in tables.grants[role] if not p[1].startswith(prefixes)}
            for role in tables.roles.intersection(completed)
        },
        bare=frozenset(name for name in tables.bare if not name.startswith(prefixes)),
    )


def _compare_roles(
    tables: Tables, kinds: Mapping[str, Resource], definition: Definition | None
) -> Iterator[Item]:
    if tables.broken:
        yield Item("broken", "", (tables.broken,))
    roles = definition.roles if definition else DEFAULT_ROLES
    for role in set(map(tables.spelled, roles)) - tables.roles:
        yield Item("role", "", (role,))
    if definition:
        known = tables.bare.union(resource for _, resource in tables.permissions)
        for name in definition.bare - known:
            yield Item("resource", "", (name,))
        for permission in definition.permissions - tables.permissions:
            yield Item("permission", "", permission)
        for name, defined in definition.grants.items():
            role = tables.spelled(name)
            for permission in defined - tables.grants.get(role, defined):
                yield Item("role_grant", "", (role, *permission))
    for role in tables.roles.difference(DEFAULT_ROLES):
        if WEBSITE not in tables.grants[role]:
            yield Item("role_grant", "", (role, *WEBSITE))
    if ADMIN in tables.roles:
        prefixes = tuple(kind.prefix for kind in kinds.values())
        for permission in tables.permissions:
            if not permission[1].startswith(prefixes) and permission not in tables.grants[ADMIN]:
                yield Item("role_grant", "", (ADMIN, *permission))


def _kept(there: set[Grant], access: AccessControl, resources: Mapping[str, str]) -> set[Grant]:
    """
    Return the grants that Airflow does not revoke.

    A set of actions protects grants on every kind of resource, a mapping protects grants on the
    kinds it names, and any other type protects none.
    """
    kept = set()
    for grant in there:
        role, action, resource = grant
        asked = access.get(role)
        if isinstance(asked, dict) and len(resources) > 1:
            asked = next((asked.get(n) for n, r in resources.items() if r == resource), None)
            is_kept = isinstance(asked, Collection) and action in asked
        else:
            is_kept = isinstance(asked, set) and action in asked
        if role == ADMIN or is_kept:
            kept.add(grant)
    return kept


def _wanted(
    access: AccessControl,
    tables: Tables,
    kinds: Mapping[str, Resource],
    resources: Mapping[str, str],
) -> tuple[set[Grant], Failure | None]:
    """
    Return the grants that Airflow makes, in its order, up to the first one that it refuses.

    If DAGs are the only kind, mappings are not supported: Airflow takes their keys for actions.
    """
    wanted: set[Grant] = set()
    for role, asked in access.items():
        if tables.spelled(role) not in tables.grants:
            return wanted, Failure("role_missing", f"role {role!r} does not exist")
        by_kind = asked if isinstance(asked, dict) and len(kinds) > 1 else {"DAGs": asked}
        for name, actions in by_kind.items():
            if name not in kinds:
                known = ", ".join(sorted(kinds))
                text = f"role {role!r}: {name!r} is not one of {known}"
                return wanted, Failure("access_control_invalid", text)
            if wrong := sorted(set(actions) - kinds[name].actions):
                known = ", ".join(sorted(kinds[name].actions))
                text = f"role {role!r}: {wrong[0]!r} is not one of {known}"
                return wanted, Failure("access_control_invalid", text)
            wanted |= {(tables.spelled(role), action, resources[name]) for action in actions}
    return wanted, None
