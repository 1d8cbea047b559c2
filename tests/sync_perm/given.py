"""
Test data for sync-perm: Airflow installations, and tables.
"""

from collections.abc import Iterable, Mapping

from sync_perm.airflow import Installation
from sync_perm.compare import (
    DEFAULT_ROLES,
    RESOURCES,
    WEBSITE,
    Access,
    Grant,
    Permission,
    Tables,
)

AIRFLOW_2 = Installation(
    "/usr/bin/airflow", "/usr/bin/python3", "2.11.2", "1.5.4", False
)


def permissions_of(*dag_ids: str) -> set[Permission]:
    """Return the permissions that these DAGs must have."""
    return {
        (action, f"{kind.prefix}{dag_id}")
        for dag_id in dag_ids
        for kind in RESOURCES.values()
        for action in kind.actions
    }


def tables(
    dags: Mapping[str, Access] = {},
    *,
    roles: Iterable[str] = (),
    grants: Iterable[Grant] = (),
    permissions: Iterable[Permission] | None = None,
) -> Tables:
    """Return tables that are complete except for the given deviations."""
    held: dict[str, set[Permission]] = {
        role: set() for role in (*DEFAULT_ROLES, *roles)
    }
    for role in (*roles, "Admin"):
        held[role].add(WEBSITE)
    for role, action, resource in grants:
        held[role].add((action, resource))
    return Tables(
        permissions=frozenset(
            permissions_of(*dags) if permissions is None else permissions
        )
        | {WEBSITE},
        grants=held,
        broken=0,
        dags=dags,
        resources=frozenset(),
        aliases={},
        places={},
    )
