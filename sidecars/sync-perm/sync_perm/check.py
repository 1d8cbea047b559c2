"""
``sync-perm check``: tries everything the daemon needs, and reports whether Airflow needs it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import closing

from sidecar_runtime import child
from sidecar_runtime.checks import daemon, exit_code, fail, say, unknown
from sidecar_runtime.errors import EXIT_GAVE_UP, SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.printable import counted
from sync_perm.airflow.installation import Installation
from sync_perm.airflow.passes import COMMAND_SECONDS, AirflowPasses
from sync_perm.airflow.redaction import Redaction
from sync_perm.airflow.surroundings import environment, own_folder, web_config
from sync_perm.airflow_config import AirflowConfig
from sync_perm.comparison import Comparison, Look
from sync_perm.database.connection import Address, Source
from sync_perm.database.database import Database
from sync_perm.database.lock import PassLock
from sync_perm.difference import DEFAULT_ROLES
from sync_perm.role_file.file import RoleFile
from sync_perm.settings import Settings


def run(
    settings: Settings,
    names: Iterable[str],
    config: AirflowConfig,
    airflow: Installation,
    source: Source,
) -> int:
    """
    Run all checks, print a line for each, and return the exit code; write nothing.

    Args:
        names: Variables with our prefix that are not settings.
    """
    print("sync-perm check")
    unknown(names)
    checks = _Checks(settings, config)
    checks.airflow(airflow)
    address = checks.connection(source)
    if address is None:
        return EXIT_GAVE_UP
    results = [checks.migrations(airflow, address), checks.permissions(airflow, address)]
    results.append(daemon("sync-perm", source.shown(), settings.http_bind))
    return exit_code(results)


class _Checks:
    def __init__(self, settings: Settings, config: AirflowConfig) -> None:
        self._settings = settings
        self._config = config

    def airflow(self, found: Installation) -> None:
        """
        Report the version, the auth manager, and whether passes are targeted.
        """
        fab = f", FAB provider {found.fab}" if found.fab else ""
        say("ok", "airflow", f"{found.version}{fab}, {found.command}")
        told = " (assumed: not set in the environment or airflow.cfg)" if found.auth_manager else ""
        say("ok", "auth manager", f"FAB{told}")
        default = "Airflow's default: there is no webserver_config.py"
        say("ok", "security", web_config(self._config) or default)
        if self._settings.targeted and not found.is_known:
            say("??", "mode", "cli: targeted passes were never tested with this version")
        else:
            say("ok", "mode", "targeted" if self._settings.targeted else "cli")

    def connection(self, source: Source) -> Address | None:
        """
        Report where the URL comes from; return its address if the database answers.
        """
        try:
            address = source.read()
            say("ok", "connection", f"{address} from {source.setting}")
            Database(address).close()
        except SidecarError as error:
            fail("connection", error)
            return None
        return address

    def migrations(self, airflow: Installation, address: Address) -> bool:
        """
        Ask Airflow whether the database has this version's migrations.
        """
        said = child.Kept()
        redaction = Redaction(self._config, address)
        try:
            with own_folder() as folder:
                command = child.Command(
                    [airflow.command, "db", "check-migrations", "--migration-wait-timeout", "1"],
                    environment(airflow, self._config, address, folder),
                    folder,
                )
                code = child.run(command, Fence(), COMMAND_SECONDS, child.Kept(), said)
        except SidecarError as error:
            return fail("migrations", error)
        except (OSError, child.DeadlinePassed) as error:
            say("FAIL", "migrations", f"airflow db check-migrations: {type(error).__name__}")
            return False
        if code == 0:
            say("ok", "migrations", "match this Airflow")
            return True
        last = redaction.hide(str(said).rpartition("\n")[2])
        say("FAIL", "migrations", f"do not match this Airflow: {last}")
        say("", "", "Run airflow db migrate; the daemon waits until the tables exist.")
        return False

    def _define(self, comparison: Comparison, airflow: Installation, address: Address) -> None:
        """
        Read the grants that this Airflow defines, as the daemon does at its start.
        """
        try:
            with own_folder() as folder:
                passes = AirflowPasses(airflow, self._config, folder)
                empty = passes.write_empty(address, Fence(), COMMAND_SECONDS)
        except SidecarError as error:
            said = "their definition cannot be read, so the daemon starts with a pass for roles"
            say("??", "roles", f"{said}: {error.message}")
        else:
            comparison.define(empty)
            say("ok", "roles", f"this Airflow defines {counted(empty.grant_count, 'grant')}")
            for plugin in passes.unimported:
                say("??", "plugin", f"{plugin}: it cannot be imported, so no view is compared")

    def permissions(self, airflow: Installation, address: Address) -> bool:
        """
        Read the tables, try the lock, and report what the sidecar would do.
        """
        include_dags = airflow.includes_dags(self._settings.include_dags)
        path = self._settings.roles
        file = RoleFile(path, airflow.resources) if path else None
        dags_folder = self._config.dags_folder
        comparison = Comparison(airflow, include_dags=True, file=file, dags_folder=dags_folder)
        self._define(comparison, airflow, address)
        try:
            if file:
                file.refresh()
            with closing(Database(address)) as database:
                look = comparison.look(database)
            with PassLock(address) as lock:
                lock.try_write()
                is_free = lock.try_acquire()
        except SidecarError as error:
            return fail("tables", error)
        tables = look.tables
        roles, grants = counted(len(tables.roles), "role"), counted(tables.grant_count, "grant")
        say("ok", "tables", f"can be read: {roles}, {grants}")
        say("ok", "lock", "is free" if is_free else "is held: another sync-perm runs a pass")
        kinds = Counter(
            item.kind for item in look.items if include_dags or item.is_of_file or not item.dag_id
        )
        differences = ", ".join(f"{kind}: {number}" for kind, number in sorted(kinds.items()))
        say("ok", "differences", differences or "none")
        for dag_id, failure in sorted(look.failing.items()) if include_dags else ():
            say("??", f"DAG {dag_id}", f"{failure.reason}: {failure.text}")
        need = "yes: Airflow does not apply the roles file" if file else _need(airflow, look)
        say("??" if need.startswith("hardly") else "ok", "needed?", need)
        if file and file.problem:
            return fail("roles file", file.problem)
        if file and file.document:
            say("ok", "roles file", f"{file.path}: {counted(len(file.document.roles), 'role')}")
        return True


def _need(airflow: Installation, look: Look) -> str:
    """
    Return whether, and why, this installation needs the sidecar.
    """
    asking = sum(1 for access in look.tables.dags.values() if access is not None)
    custom = len(look.tables.roles.difference(DEFAULT_ROLES))
    roles = (
        f"{custom} custom roles: new ones get can_read on Website only when the "
        f"{'webserver' if airflow.release[0] < 3 else 'API server'} starts"
    )
    if airflow.restores_dags:
        dags = "Airflow restores DAG permissions at each parse"
        return f"{'for roles only' if custom else 'hardly'}: {dags}; {roles}"
    if asking:
        ignores = (
            "grants nothing to a role created after its DAG"
            if airflow.release[0] < 3
            else "applies it only for auth managers with FabAuthManager in their names"
        )
        return (
            f"yes: {asking} of {len(look.tables.dags)} DAGs have access_control, and Airflow "
            f"{airflow.version} {ignores}; {roles}"
        )
    return f"{'for roles only' if custom else 'hardly'}: no DAG has access_control; {roles}"
