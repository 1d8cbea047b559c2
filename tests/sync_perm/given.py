"""
Test data for sync-perm: Airflow installations, and tables.
"""

from collections.abc import Iterable, Mapping

from sync_perm.compare import (
    DEFAULT_ROLES,
    WEBSITE,
    AccessControl,
    Grant,
    Permission,
    Resource,
    Tables,
    Unreadable,
)
from sync_perm.installation import Installation

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
    held: dict[str, set[Permission]] = {role: set() for role in (*DEFAULT_ROLES, *roles)}
    for role in (*roles, "Admin"):
        held[role].add(WEBSITE)
    for role, action, resource in grants:
        held[role].add((action, resource))
    return Tables(
        permissions=frozenset(permissions_of(*dags) if permissions is None else permissions)
        | {WEBSITE},
        grants=held,
        broken=broken,
        dags=dags,
    )
