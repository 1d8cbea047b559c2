"""Random DAGs, roles and damage to permission tables, for the differential test."""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.support.airflow import permissions
from tests.support.airflow.databases import Database
from tests.support.airflow.installed import AccessControl, Version

DAG_IDS = (
    "sales_daily",
    "sales.daily",
    "Sales_Daily",
    "sales_daily.sub",
    "übersicht_東京",
    "a" * 200,
    "DAG",
    "x-1",
    "0",
    "can_read",
    "per_cent_s",
    "Admin",
)
CUSTOM_ROLES = ("team_a", "team_b", "Équipe d'été", "100%", "team_a ", "admin")
# Role names that MySQL and MariaDB treat as equal: as in the database → as in DAGs.
MIXED_ROLES = {
    "Team_A": "team_a",
    "DATA-eng": "Data-Eng",
    "Équipe d'été": "equipe D'ETE",
}
# If the two names are equal, `DAG:Sales_Daily` is also the permission of `sales_daily`.
MIXED_DAG_IDS = tuple(dag_id for dag_id in DAG_IDS if dag_id != "Sales_Daily")
DEFAULT_ROLES = ("Viewer", "User", "Op", "Public")
ACTIONS = ("can_read", "can_edit", "can_delete")


@dataclass
class World:
    """The test's record of its database: the roles, and the DAGs as last written."""

    version: Version
    random: random.Random
    roles: Mapping[str, str] = field(
        default_factory=lambda: {role: role for role in CUSTOM_ROLES}
    )
    """The spelling of each role in the database → its spelling in DAGs."""
    dag_ids: Sequence[str] = DAG_IDS
    dags: dict[str, AccessControl] = field(default_factory=dict)

    def new_dags(self, count: int) -> dict[str, AccessControl]:
        """Return some new or changed DAGs; the roles that they name all exist."""
        ids = self.random.sample(self.dag_ids, min(count, len(self.dag_ids)))
        ids += [f"dag_{self.random.randrange(40)}" for _ in range(count - len(ids))]
        made = {dag_id: self._access_control() for dag_id in ids}
        self.dags |= made
        return made

    def _access_control(self) -> AccessControl:
        kind = self.random.random()
        if kind < 0.3:
            return None
        if kind < 0.4:
            return {}
        roles = self.random.sample(
            (*self.roles.values(), *DEFAULT_ROLES, "Admin"), self._up_to(3)
        )
        return {role: self._wanted() for role in roles}

    def _wanted(self) -> Any:
        on_dag = self.random.sample(ACTIONS, self._up_to(3))
        if self.random.random() < 0.5:
            return on_dag
        on_runs = self.random.sample(
            ("can_create", "can_read", "can_delete", "menu_access"), 2
        )
        wanted: dict[str, list[str]] = {"DAGs": on_dag, "DAG Runs": on_runs}
        return {
            name: wanted[name]
            for name in self.random.sample(list(wanted), self._up_to(2))
        }

    def _up_to(self, most: int) -> int:
        return self.random.randint(0 if self.random.random() < 0.1 else 1, most)


def add_all_roles(database: Database, world: World) -> None:
    """Create the roles that DAGs can name."""
    for role in world.roles:
        permissions.add_role(database, role)


def damage(database: Database, world: World, times: int) -> list[str]:
    """
    Change rows as people, restores and races do; return a description for failure
    messages.
    """
    done = []
    for _ in range(times):
        name, deed = world.random.choice(DEEDS)
        done.append(f"{name}: {deed(database, world)}")
    return done


def _some_permission(
    database: Database, world: World, *, of_dags: bool
) -> tuple[str, str]:
    rows = permissions.contents(database)["permissions"]
    of_dag: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
    for action, resource in rows:
        if action and resource:
            of_dag[resource.startswith(("DAG:", "DAG Run:"))].append((action, resource))
    return world.random.choice(of_dag[of_dags] or of_dag[False])


def grant(database: Database, world: World, *, of_dags: bool) -> tuple[str, ...]:
    action, resource = _some_permission(database, world, of_dags=of_dags)
    role = world.random.choice((*world.roles, *DEFAULT_ROLES))
    permissions.grant(database, role, action, resource)
    return role, action, resource


def revoke(database: Database, world: World, *, roles: Collection[str] = ()) -> Any:
    roles = roles or world.roles
    rows = permissions.contents(database)["grants"]
    rows = [row for row in rows if row[0] in roles and None not in row]
    if not rows:
        return "nothing"
    row = world.random.choice(rows)
    permissions.revoke(database, *row)
    return row


def delete_permission(
    database: Database, world: World, *, of_dags: bool
) -> tuple[str, str]:
    action, resource = _some_permission(database, world, of_dags=of_dags)
    permissions.delete_permission(database, action, resource)
    return action, resource


def forget_a_dag(database: Database, world: World) -> str:
    if not world.dags:
        return "nothing"
    dag_id = world.random.choice(sorted(world.dags))
    del world.dags[dag_id]
    database.query("DELETE FROM serialized_dag WHERE dag_id = %s", (dag_id,))
    return dag_id


def leave_a_null_row(database: Database, world: World) -> str:
    """A permission without a resource, as two concurrent runs of Airflow 2 leave it."""
    if not world.version.startswith("2."):
        return "nothing: its columns refuse NULL"
    database.query(
        "INSERT INTO ab_permission_view (id, permission_id, view_menu_id)"
        " VALUES (%s, (SELECT id FROM ab_permission WHERE name = 'can_read'), NULL)",
        (permissions.new_id(database, "ab_permission_view"),),
    )
    return ""


def add_a_role(database: Database, world: World) -> str:
    name = f"role {world.random.randrange(10**6)}"
    permissions.add_role(database, name)
    return name


Deed = Callable[[Database, World], Any]
DEEDS: tuple[tuple[str, Deed], ...] = (
    *[("grant on a DAG", partial(grant, of_dags=True))] * 2,
    ("grant on a view", partial(grant, of_dags=False)),
    *[("revoke from a custom role", revoke)] * 2,
    ("revoke from a default role", partial(revoke, roles=DEFAULT_ROLES)),
    ("revoke from Admin", partial(revoke, roles=("Admin",))),
    ("delete a permission of a DAG", partial(delete_permission, of_dags=True)),
    ("delete a permission of a view", partial(delete_permission, of_dags=False)),
    ("forget a DAG", forget_a_dag),
    ("leave a null row", leave_a_null_row),
    ("add a role", add_a_role),
)
