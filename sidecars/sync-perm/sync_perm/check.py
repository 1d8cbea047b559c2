"""
``sync-perm check``: try what the daemon will need, and say whether this Airflow needs the daemon.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping

from sidecar_runtime import child
from sidecar_runtime.checks import daemon, exit_code, fail, say, unknown
from sidecar_runtime.errors import EXIT_GAVE_UP, SidecarError
from sidecar_runtime.fence import Fence
from sync_perm.airflow.installation import Installation
from sync_perm.airflow.passes import COMMAND_SECONDS, AirflowPasses
from sync_perm.airflow.redaction import Redaction
from sync_perm.airflow.surroundings import environment, own_folder
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
    names: Mapping[str, str],
    config: AirflowConfig,
    airflow: Installation,
    source: Source,
) -> int:
    """
    Print one line a check; return the exit code. Nothing is written.

    Args:
        names: Of variables that nobody reads, with what may be meant.
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
        Version, auth manager, and whether passes are targeted.
        """
        fab = f", FAB provider {found.fab}" if found.fab else ""
        say("ok", "airflow", f"{found.version}{fab}, {found.command}")
        told = ", which neither a variable nor airflow.cfg says" if found.auth_manager else ""
        say("ok", "auth manager", f"FAB{told}")
        if self._settings.targeted and not found.is_known:
            say("??", "mode", "the script for targeted passes does not know this version: cli")
        else:
            say("ok", "mode", "targeted" if self._settings.targeted else "cli")

    def connection(self, source: Source) -> Address | None:
        """
        Where the URL comes from, and whether the database answers.
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
        Ask Airflow whether the database has what this version needs.
        """
        said: deque[str] = deque(maxlen=1)
        redaction = Redaction(self._config, address)
        try:
            with own_folder() as folder:
                ended = child.run(
                    [airflow.command, "db", "check-migrations", "--migration-wait-timeout", "1"],
                    environment(airflow, self._config, address, folder),
                    folder,
                    fence=Fence(),
                    deadline_seconds=COMMAND_SECONDS,
                    out=lambda _: None,
                    err=lambda line: said.append(redaction.hide(line)),
                )
        except SidecarError as error:
            return fail("migrations", error)
        except (OSError, child.DeadlinePassed) as error:
            say("FAIL", "migrations", f"airflow db check-migrations: {type(error).__name__}")
            return False
        if ended.code == 0:
            say("ok", "migrations", "are those of this Airflow")
            return True
        say("FAIL", "migrations", f"differ from those of this Airflow: {''.join(said)}")
        say("", "", "Run airflow db migrate; the daemon waits until the tables are there.")
        return False

    def _define(self, comparison: Comparison, airflow: Installation, address: Address) -> None:
        """
        Read what this Airflow gives its roles, as the daemon does at its start.
        """
        try:
            with own_folder() as folder:
                passes = AirflowPasses(airflow, self._config, folder)
                empty = passes.write_empty(address, Fence(), COMMAND_SECONDS)
        except SidecarError as error:
            said = "what they must have cannot be read, so the daemon begins with a pass for roles"
            say("??", "roles", f"{said}: {error.message}")
        else:
            comparison.define(empty)
            say("ok", "roles", f"this Airflow gives them {empty.grant_count} grants")

    def permissions(self, airflow: Installation, address: Address) -> bool:
        """
        Read the tables, try the lock, and say what the sidecar would be for.
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
            database = Database(address)
            look = comparison.look(database)
            database.close()
            with PassLock(address) as lock:
                lock.try_write()
                is_free = lock.try_acquire()
        except SidecarError as error:
            return fail("tables", error)
        tables = look.tables
        say("ok", "tables", f"{len(tables.roles)} roles, {tables.grant_count} grants can be read")
        say("ok", "lock", "is free" if is_free else "is held: another sync-perm runs a pass")
        kinds = Counter(item.kind for item in look.items if include_dags or not item.dag_id)
        counted = ", ".join(f"{kind}: {number}" for kind, number in sorted(kinds.items()))
        say("ok", "differences", counted or "none")
        for dag_id, failure in sorted(look.failing.items()) if include_dags else ():
            say("??", f"DAG {dag_id}", f"{failure.reason}: {failure.text}")
        say("ok", "needed?", _need(airflow, look))
        if file and file.problem:
            return fail("roles file", file.problem)
        if file and file.document:
            say("ok", "roles file", f"{file.path}: {len(file.document.roles)} roles")
        return True


def _need(airflow: Installation, look: Look) -> str:
    """
    Say whether anything is missing without the sidecar.
    """
    asking = sum(1 for access in look.tables.dags.values() if access is not None)
    custom = len(look.tables.roles.difference(DEFAULT_ROLES))
    roles = (
        f"{custom} custom roles: new ones get can_read on Website only when the "
        f"{'webserver' if airflow.release[0] < 3 else 'API server'} starts"
    )
    if airflow.release[0] >= 3:
        dags = "DAG permissions heal at each parse"
        return f"{'for roles only' if custom else 'hardly'}: {dags}; {roles}"
    if asking:
        return (
            f"yes: {asking} of {len(look.tables.dags)} DAGs have access_control, and Airflow "
            f"{airflow.version} grants nothing to a role that comes after its DAG; {roles}"
        )
    return f"{'for roles only' if custom else 'hardly'}: no DAG has access_control; {roles}"
