"""
The one comparison: the rows of single DAGs that are wanted, minus those that are there;
pure.

Which rows a DAG must have is defined by its ``access_control``, as Airflow applies it:
see `sync_perm_for_dag` of `FabAirflowSecurityManagerOverride` (FAB provider 1.5 to
3.10). It only has to be right about *whether* a DAG differs: Airflow's own functions
write the rows.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

KINDS = ("dag_permission", "dag_grant", "dag_revoke", "file_role", "file_grant")
"""Of the rows that a pass writes."""

Permission = tuple[str, str]
"""An action and a resource."""
Grant = tuple[str, str, str]
"""A role, an action and a resource."""
Row = tuple[str, ...]
"""A row that belongs to no single DAG."""
Grants: TypeAlias = Mapping[str, Set[Permission]]
"""By role: 50,000 rows take 1.6 MiB this way, and 5 MiB as triples (2026-11)."""
AccessControl = Mapping[str, Any]
"""Role → actions, or role → kind of resource → actions. The type of the collection of actions
matters: Airflow keeps grants only for sets and mappings."""

ADMIN = "Admin"
DEFAULT_ROLES = (ADMIN, "Public", "Viewer", "User", "Op")
WEBSITE = ("can_read", "Website")


class Failure(NamedTuple):
    """
    Why a DAG cannot be synced; the reason is one of :mod:`sync_perm.reasons`.
    """

    reason: str
    text: str


Access: TypeAlias = AccessControl | Failure | None
"""Of a DAG; None without one, a failure if the DAG is left alone: see :func:`unfit_id`."""


class Item(NamedTuple):
    """
    One row that is missing, superfluous, or asked for by nobody; `dag_id` is empty if no
    DAG asks for it.

    Args:
        kind: One of :data:`KINDS`, or ``unasked``.
    """

    kind: str
    dag_id: str
    row: tuple[str, ...]

    def __str__(self) -> str:
        role = () if len(self.row) == 2 else self.row[:1]
        return ": ".join(
            (*role, " on ".join(self.row[len(role) :]) or "the role itself")
        )

    @property
    def name(self) -> str:
        """
        What reports call its DAG, or its role of the roles file.
        """
        return self.dag_id or f"role {self.row[0]}"


class Resource(NamedTuple):
    """
    A kind of DAG permission, such as ``DAGs`` with the prefix ``DAG:``, and its
    actions.
    """

    prefix: str
    actions: frozenset[str]


RESOURCES: Mapping[str, Resource] = {
    "DAGs": Resource("DAG:", frozenset({"can_delete", "can_edit", "can_read"})),
    "DAG Runs": Resource(
        "DAG Run:", frozenset({"can_create", "can_delete", "can_read", "menu_access"})
    ),
}
"""The kinds of DAG permissions, by the name that ``access_control`` uses."""
PREFIXES = tuple(kind.prefix for kind in RESOURCES.values())
# ab_view_menu.name, in every Airflow, has 250 characters for it and the prefix `DAG Run:`.
LONGEST_ID = 242


class Place(NamedTuple):
    """
    What a roles file may select a DAG by, besides its id.

    Args:
        path: Of its file, relative to the DAG folder or the bundle's root; empty
            outside of it.
    """

    path: str = ""
    owners: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Tables:
    """
    Airflow's tables, by name.

    Args:
        broken: The number of permissions without action or resource (AIRFLOW-5336).
        resources: Their names, also of those without any permission.
        dags: DAG → its access control.
        aliases: Another spelling of a role → the database's, whose collation equates
            them.
        places: The places of the DAGs; empty unless requested.
    """

    permissions: frozenset[Permission]
    grants: Grants
    broken: int
    dags: Mapping[str, Access]
    resources: frozenset[str]
    aliases: Mapping[str, str]
    places: Mapping[str, Place]

    def spelled(self, role: str) -> str:
        """
        Return a role's name as the database spells it.
        """
        return self.aliases.get(role, role)


def general(tables: Tables) -> frozenset[Row]:
    """
    Return the rows that belong to no single DAG: what Airflow's own sync of roles reads
    and writes.
    """

    def rows() -> Iterator[Row]:
        yield "broken", str(tables.broken)
        yield from (("resource", name) for name in tables.resources)
        yield from (("permission", *one) for one in tables.permissions)
        for role, held in tables.grants.items():
            yield "role", role, ""
            yield from (("grant", role, *one) for one in held)

    return frozenset(row for row in rows() if not row[-1].startswith(PREFIXES))


class Difference(NamedTuple):
    """
    Args:
        items: The rows that a pass would fix.
        failing: The DAGs that no pass can sync.
        wanted: How many rows there should be.
        notes: Selections of the roles file that have no effect, or not on each DAG.
        asked: The grants that the roles file asks for, also those that are there; None if
            that is not known.
        unasked: The grants and roles that nobody asks for any more; None if that is not
            known.
    """

    items: frozenset[Item]
    failing: Mapping[str, Failure]
    wanted: int
    notes: tuple[str, ...] = ()
    asked: Grants | None = None
    unasked: Collection[Item] | None = None

    def without(self, held: Mapping[Item, str]) -> "Difference":
        """
        Return it without the rows that passes did not fix: their DAGs and roles fail.
        """
        return self._replace(
            items=self.items - held.keys(),
            failing={
                **{one.name: Failure("not_fixed", held[one]) for one in held},
                **self.failing,
            },
        )


def compare(tables: Tables) -> Difference:
    """
    Return how the rows of single DAGs differ from those that Airflow would leave.
    """
    items: set[Item] = set()
    failing: dict[str, Failure] = {}
    wanted_count = 0
    there = _grants_by_resource(tables)
    for dag_id, access in tables.dags.items():
        if isinstance(access, Failure):
            failing[dag_id] = access
            continue
        resources = {name: f"{kind.prefix}{dag_id}" for name, kind in RESOURCES.items()}
        permissions = {
            (a, kind.prefix + dag_id)
            for kind in RESOURCES.values()
            for a in kind.actions
        }
        missing = permissions - tables.permissions
        wanted_count += len(permissions)
        items |= {Item("dag_permission", dag_id, permission) for permission in missing}
        if access is not None:
            held = {grant for name in resources.values() for grant in there[name]}
            wanted, failure = _wanted_grants(access, tables, resources)
            kept = _kept_grants(held, access, resources)
            wanted_count += len(wanted)
            items |= {Item("dag_grant", dag_id, grant) for grant in wanted - held}
            items |= {
                Item("dag_revoke", dag_id, grant) for grant in held - kept - wanted
            }
            if failure is not None:
                failing[dag_id] = failure
    return Difference(frozenset(items), failing, wanted_count)


def find_unasked(tables: Tables, asked: Grants, own: Collection[str]) -> Iterator[Item]:
    """
    Yield the grants that nobody asks for: an earlier ``access_control`` or roles file
    gave them, or a person, and nobody revokes them. On a single DAG, no
    ``access_control`` decides, or it is gone. A role that nobody asks for comes alone,
    too.

    Args:
        asked: What the roles file asks for.
        own: The roles of which only grants on single DAGs count: Airflow's own, and
            without a roles file all.
    """
    # Airflow grants Admin whatever it finds.
    for role in tables.grants.keys() - {ADMIN}:
        is_ruled = role in own
        if not is_ruled and role not in asked:
            yield Item("unasked", "", (role,))
        for action, resource in (
            tables.grants[role] - asked.get(role, frozenset()) - {WEBSITE}
        ):
            is_left = not is_ruled
            for prefix in filter(resource.startswith, PREFIXES):
                is_left = tables.dags.get(resource.removeprefix(prefix)) is None
            if is_left:
                yield Item("unasked", "", (role, action, resource))


def unfit_id(dag_id: str) -> Failure | None:
    """
    Return why a DAG is left alone because of its id; None if it is not.

    Each DAG must have resources of its own. Airflow 2.11 and older FAB providers take
    the id ``DAGs`` for the permission on all DAGs, and each takes an id with one of the
    prefixes for the resource of another DAG: see `resource_name` in
    `airflow/security/permissions.py` (2.11) and FAB's `www/security/permissions.py`.
    There, the ``access_control`` of one author would decide for others.
    """
    if dag_id in RESOURCES or dag_id.startswith(PREFIXES):
        return Failure(
            "name_reserved",
            f"Airflow uses {dag_id!r} for permissions on more than this DAG",
        )
    if len(dag_id) > LONGEST_ID:
        return Failure("id_too_long", f"its id has more than {LONGEST_ID} characters")
    return None


def without_dags(found: Difference) -> Difference:
    """
    Return a difference that leaves all DAGs alone if one has a reserved id, for an
    Airflow whose only known command syncs all DAGs or none.
    """
    if "name_reserved" not in {one.reason for one in found.failing.values()}:
        return found
    return found._replace(
        items=frozenset(),
        failing={
            **dict.fromkeys(
                (item.dag_id for item in found.items),
                Failure(
                    "name_reserved", "Airflow would sync a DAG with a reserved id, too"
                ),
            ),
            **found.failing,
        },
    )


def changed_grants(before: Grants, after: Grants) -> list[str]:
    """
    Return the grants that were added or removed, as ``+ team: can_read on DAG:a``.
    """
    lines = []
    for sign, these, those in (("+", after, before), ("-", before, after)):
        for role, held in these.items():
            rows = held - those.get(role, frozenset())
            lines += [f"{sign} {role}: {' on '.join(row)}" for row in rows]
    return sorted(lines)


def _grants_by_resource(tables: Tables) -> Mapping[str, Set[Grant]]:
    """
    Return the grants on each DAG that has an access control, by resource.
    """
    ruled = (dag_id for dag_id, access in tables.dags.items() if access is not None)
    found: dict[str, set[Grant]] = {
        one + dag_id: set() for dag_id in ruled for one in PREFIXES
    }
    for role, permissions in tables.grants.items():
        for action, resource in permissions:
            if resource in found:
                found[resource].add((role, action, resource))
    return found


def _kept_grants(
    there: Set[Grant], access: AccessControl, resources: Mapping[str, str]
) -> frozenset[Grant]:
    """
    Return the grants that Airflow does not revoke.

    A set of actions protects grants on every kind of resource, a mapping protects
    grants on the kinds it names, and any other type protects none.
    """
    names = {resource: name for name, resource in resources.items()}

    def is_kept(role: str, action: str, resource: str) -> bool:
        asked = access.get(role)
        if isinstance(asked, dict):
            asked = asked.get(names[resource])
            return isinstance(asked, Collection) and action in asked
        return isinstance(asked, set) and action in asked

    return frozenset(grant for grant in there if grant[0] == ADMIN or is_kept(*grant))


def _wanted_grants(
    access: AccessControl, tables: Tables, resources: Mapping[str, str]
) -> tuple[set[Grant], Failure | None]:
    """
    Return the grants that Airflow makes, in its order, up to the first one that it
    refuses.
    """
    wanted: set[Grant] = set()
    for role, asked in access.items():
        if tables.spelled(role) not in tables.grants:
            return wanted, Failure("role_missing", f"role {role!r} does not exist")
        for name, actions in (
            asked if isinstance(asked, dict) else {"DAGs": asked}
        ).items():
            if name not in RESOURCES:
                return wanted, _invalid(role, name, RESOURCES)
            try:
                wrong = sorted(set(actions) - RESOURCES[name].actions)
            except TypeError as error:  # actions that are not a collection of names
                return set(), Failure("access_control_invalid", str(error))
            if wrong:
                return wanted, _invalid(role, wrong[0], RESOURCES[name].actions)
            wanted |= {
                (tables.spelled(role), action, resources[name]) for action in actions
            }
    return wanted, None


def _invalid(role: str, value: str, known: Iterable[str]) -> Failure:
    return Failure(
        "access_control_invalid",
        f"role {role!r}: {value!r} is not one of {', '.join(sorted(known))}",
    )
