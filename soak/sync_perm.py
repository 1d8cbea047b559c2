"""
sync-perm: the database of a real Airflow, a spared process and one that is killed.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2

from soak.post import Post
from soak.readers import Reader
from soak.station import Missing, Station
from tests.support.airflow import permissions
from tests.support.airflow.databases import Postgres, missing_programs
from tests.support.airflow.installed import (
    AccessControl,
    Airflow,
    AirflowIsMissing,
    copy_postgres,
)
from tests.support.airflow.sync_perm import SyncPerm, descendants_of, signal_all

ROLES = ("team_a", "team_b", "Équipe d'été", "100%")
DEFAULT_ROLES = ("Viewer", "User", "Op")
ACTIONS = ("can_read", "can_edit", "can_delete")
DAGS = 20
CANARY = "canary"
"""A DAG whose grants are never changed: they must exist at all times."""
SETTINGS = {"INTERVAL": "1", "SYNC_PERM_LOG_LEVEL": "info", "SYNC_PERM_TIMEOUT": "60s"}


class SyncPermStation(Station):
    """
    PostgreSQL with some DAGs; the expected state is the result of Airflow's sync-perm on a copy.
    """

    name = "sync-perm"

    def set_up(self) -> None:
        """
        Start PostgreSQL and two supervisors.
        """
        if missing := missing_programs("postgres", "initdb", "psql", "pg_dump"):
            raise Missing(missing)
        try:
            self.airflow = Airflow.install("2.11")
        except AirflowIsMissing as error:
            raise Missing(str(error)) from error
        folder = tempfile.TemporaryDirectory(prefix="soak-airflow-")
        self.home = Path(self.stack.enter_context(folder))
        self.server = self.stack.enter_context(Postgres())
        self.database = self.airflow.new_postgres(self.server, self.home)
        self.dags: dict[str, AccessControl] = {}
        self.roles = 0
        for role in ROLES:
            permissions.add_role(self.database, role)
        self.airflow.write_dags(self.database, self.home, {CANARY: {"Viewer": ["can_edit"]}})
        self._write({f"dag_{number}": self._access_control() for number in range(DAGS)})
        for name in ("spared", "killed"):
            daemon = SyncPerm(self.airflow, self.database.url, self.home / name, SETTINGS)
            post = Post(name, daemon, is_spared=name == "spared", always_ready=False)
            self.posts.append(post)
        granted = json.dumps([["Viewer", "can_edit"]])
        reader = ("grants", self.database.url, f"DAG:{CANARY}", granted)
        self.readers.append(Reader(self.home / "lock", *reader, environment={"PATH": "/usr/bin"}))
        self.changes = {
            "grant revoked": self.revoke,
            "grant added": self.grant,
            "permission deleted": self.delete_permission,
            "rows of a race": self.null_rows,
            "Admin loses a permission": self.revoke_from_admin,
            "DAGs changed": self.change_dags,
            "role created": self.late_role,
        }
        self.faults = {
            "database is down": self.database_down,
            "database hangs": self.database_hangs,
            "connections cut": self.connections_cut,
            "database closed": self.database_closed,
            "tables locked": self.tables_locked,
            "Airflow killed": self.airflow_killed,
        }

    def engine(self) -> str:
        """
        Return the Airflow version and the database.
        """
        return "Airflow 2.11 on PostgreSQL"

    def _access_control(self) -> dict[str, list[str]]:
        roles = self.chance.sample((*ROLES, *DEFAULT_ROLES), self.chance.randint(1, 3))
        return {role: self.chance.sample(ACTIONS, self.chance.randint(1, 3)) for role in roles}

    def _write(self, dags: dict[str, AccessControl]) -> None:
        """
        Write DAGs, and let Airflow compute the expected state.
        """
        self.airflow.write_dags(self.database, self.home, dags)
        self.dags |= dags
        self._ask_airflow()

    def _ask_airflow(self) -> None:
        copy = copy_postgres(self.server, self.database, self.home)
        self.airflow.full_sync(copy, self.home)
        self.wanted = permissions.contents(copy)
        self.server.drop(copy)

    def behind(self) -> list[str]:
        """
        Compare the tables with the state that Airflow computes.
        """
        shown = permissions.contents(self.database)
        if differences := permissions.difference(shown, self.wanted):
            return differences[:5]
        return [error for post in self.posts if (error := post.last_error())]

    def leftovers(self) -> list[str]:
        """
        Return entries of the temporary folders, except the one that each supervisor keeps.
        """
        found = []
        for post in self.posts:
            names = os.listdir(post.daemon.environment["TMPDIR"])
            if len(names) > 1:
                found.append(f"{post.name}: {', '.join(names)}")
        return found

    def _some_grant(self) -> tuple[str, str, str]:
        """
        Return a grant that a DAG declares: role, action, resource.
        """
        dag_id = self.chance.choice(sorted(self.dags))
        control: Any = self.dags[dag_id]
        role = self.chance.choice(sorted(control))
        return role, self.chance.choice(sorted(control[role])), f"DAG:{dag_id}"

    def revoke(self) -> None:
        """
        Revoke grants that DAGs declare.
        """
        for _ in range(3):
            permissions.revoke(self.database, *self._some_grant())

    def grant(self) -> None:
        """
        Add a grant that no DAG declares.
        """
        _, _, resource = self._some_grant()
        role = self.chance.choice((*ROLES, *DEFAULT_ROLES))
        permissions.grant(self.database, role, "can_read", resource)

    def delete_permission(self) -> None:
        """
        Delete a permission with all its grants.
        """
        _, action, resource = self._some_grant()
        permissions.delete_permission(self.database, action, resource)

    def null_rows(self) -> None:
        """
        Add the NULL rows that two concurrent runs of Airflow leave.
        """
        for _ in range(3):
            permissions.add_null_row(self.database)

    def revoke_from_admin(self) -> None:
        """
        Revoke a permission of the role Admin.
        """
        permissions.revoke(self.database, "Admin", "can_read", "DAGs")

    def change_dags(self) -> None:
        """
        Change the access_control of some DAGs, and add a DAG.
        """
        chosen = [*self.chance.sample(sorted(self.dags), 3), f"dag_{len(self.dags)}"]
        self._write({dag_id: self._access_control() for dag_id in chosen})

    def late_role(self) -> None:
        """
        Write a DAG whose role is created only afterwards.
        """
        self.roles += 1
        role, dag_id = f"late_{self.roles}", f"waits_{self.roles}"
        self.airflow.write_dags(self.database, self.home, {dag_id: {role: ["can_read"]}})
        permissions.add_role(self.database, role)
        self.dags[dag_id] = {role: ["can_read"]}
        self._ask_airflow()

    @contextmanager
    def database_down(self) -> Iterator[None]:
        """
        Stop PostgreSQL immediately.
        """
        self.server.stop()
        try:
            yield
        finally:
            self.server.start()

    @contextmanager
    def database_hangs(self) -> Iterator[None]:
        """
        Let PostgreSQL accept connections without answering, on open connections, too.
        """
        backends = [pid for (pid,) in self._others("pid")]
        self.server.send_signal(signal.SIGSTOP)
        signal_all(backends, signal.SIGSTOP)
        try:
            yield
        finally:
            signal_all(backends, signal.SIGCONT)
            self.server.send_signal(signal.SIGCONT)

    @contextmanager
    def connections_cut(self) -> Iterator[None]:
        """
        Cut connections repeatedly, as a firewall or an administrator might.
        """
        for _ in range(5):
            self._others("pg_terminate_backend(pid)")
            self.hold(0, 1)
        yield

    @contextmanager
    def database_closed(self) -> Iterator[None]:
        """
        Refuse all connections to the database for a while.
        """
        self._allow(connections=False)
        self._others("pg_terminate_backend(pid)")
        try:
            yield
        finally:
            self._allow(connections=True)

    @contextmanager
    def tables_locked(self) -> Iterator[None]:
        """
        Lock the tables, as a migration or a backup might.
        """
        connection = psycopg2.connect(self.database.url)
        try:
            connection.cursor().execute(
                "LOCK TABLE ab_permission_view, ab_permission_view_role IN ACCESS EXCLUSIVE MODE"
            )
            yield
        finally:
            connection.close()

    @contextmanager
    def airflow_killed(self) -> Iterator[None]:
        """
        Send SIGKILL to all processes that the supervisors started, during a pass.
        """
        for _ in range(20):
            for post in self.posts:
                signal_all(descendants_of(post.daemon.pid), signal.SIGKILL)
            self.ended.wait(0.1)
        yield

    def _others(self, what: str) -> list[tuple[Any, ...]]:
        maintenance = type(self.database)(self.server, "postgres")
        return maintenance.query(
            f"SELECT {what} FROM pg_stat_activity WHERE datname = %s", (self.database.name,)
        )

    def _allow(self, *, connections: bool) -> None:
        maintenance = type(self.database)(self.server, "postgres")
        maintenance.query(
            f"ALTER DATABASE {self.database.name} ALLOW_CONNECTIONS {str(connections).lower()}"
        )
