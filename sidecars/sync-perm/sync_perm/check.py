"""
``sync-perm check``: tries everything the daemon needs, and reports whether Airflow needs it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from sidecar_runtime.checks import daemon, exit_code, fail, say, unknown
from sidecar_runtime.errors import EXIT_GAVE_UP, SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.printable import counted
from sync_perm.airflow_config import AirflowConfig
from sync_perm.compare import DEFAULT_ROLES
from sync_perm.connection import Address, Source
from sync_perm.cycle import Look, Scope
from sync_perm.database import Database
from sync_perm.installation import Installation
from sync_perm.passes import COMMAND_SECONDS, Means, Passes, Portion
from sync_perm.roles import Defined
from sync_perm.settings import Settings


def run(
    settings: Settings, names: Iterable[str], scope: Scope, passes: Passes, source: Source
) -> int:
    """
    Run all checks, print a line for each, and return the exit code; write nothing.

    Args:
        names: Variables with our prefix that are not settings.
    """
    print("sync-perm check")
    unknown(names)
    found = passes.installation
    _airflow(passes)
    address = _connect(source)
    if address is None:
        return EXIT_GAVE_UP
    is_migrated, defined = _load(passes, address)
    results = [is_migrated, defined is not None, _tables(scope, found, address, defined)]
    results.append(daemon("sync-perm", source.shown(), settings.http_bind))
    return exit_code(results)


def web_config(config: AirflowConfig) -> str:
    """
    Return what is known of webserver_config.py, which may name a security manager.
    """
    given = (config.value(section, "config_file") for section in ("fab", "webserver"))
    paths = (*given, f"{config.home}/webserver_config.py")
    found = next((path for path in paths if path and os.path.exists(path)), "")
    return found or "Airflow's default: there is no webserver_config.py"


def _airflow(passes: Passes) -> None:
    """
    Report the version, the auth manager, and what runs.
    """
    found = passes.installation
    fab = f", FAB provider {found.fab}" if found.fab else ""
    say("ok", "airflow", f"{found.version}{fab}, {found.command}")
    told = " (assumed: not set in the environment or airflow.cfg)" if found.auth_manager else ""
    who = "Airflow" if found.restores_dags else "not by Airflow"
    say("ok", "auth manager", f"FAB{told}; access_control is applied at each parse: {who}")
    say("ok", "security", web_config(passes.config))
    if passes.cli_because == "version":
        say("??", "mode", "cli: our script was never tested with this version")
    else:
        say("ok", "mode", "cli" if passes.cli_because else "targeted")


def _connect(source: Source) -> Address | None:
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


def _load(passes: Passes, address: Address) -> tuple[bool, Defined | None]:
    """
    Report whether the database has this Airflow's migrations, and whether Airflow loads its roles,
    as each pass does; return what it defines for them.
    """
    try:
        if problem := passes.check_migrations(address):
            say("FAIL", "migrations", problem)
            say("", "", "Run airflow db migrate, if Airflow asks for it.")
            return False, None
        say("ok", "migrations", "match this Airflow")
        defined = passes.run(Portion(load=True), Means(address, Fence(), COMMAND_SECONDS)).defined
    except SidecarError as error:
        return fail("roles", error), None
    say("ok", "roles", f"Airflow's security manager defines {counted(len(defined or ()), 'role')}")
    return True, defined


def _tables(scope: Scope, airflow: Installation, address: Address, defined: Defined | None) -> bool:
    """
    Read the tables, try the lock, and report what the sidecar would do.
    """
    file = scope.file
    try:
        if file:
            file.refresh()
        with Database(address) as database:
            look = scope._replace(include_dags=True).look(database, defined)
        with Database(address) as lock:
            lock.try_write()
            is_free = lock.try_lock()
    except SidecarError as error:
        return fail("tables", error)
    roles = counted(len(look.tables.roles), "role")
    grants = counted(sum(map(len, look.tables.grants.values())), "grant")
    say("ok", "tables", f"can be read: {roles}, {grants}")
    say("ok", "lock", "is free" if is_free else "is held: another sync-perm runs a pass")
    kinds = look.difference.kinds
    told = [
        f"{kind}: {number}"
        for kind, number in sorted(kinds.items())
        if scope.include_dags or kind.startswith("file_")
    ]
    say("ok", "differences", ", ".join(told) or "none")
    for dag_id, one in sorted(look.difference.failing.items()) if scope.include_dags else ():
        say("??", f"DAG {dag_id}", f"{one.reason}: {one.text}")
    need = "yes: Airflow does not apply the roles file" if file else _need(airflow, look)
    say("??" if need.startswith("hardly") else "ok", "needed?", need)
    if file and file.problem:
        return fail("roles file", file.problem)
    if file:
        say("ok", "roles file", f"{file.path}: {counted(len(file.document.roles), 'role')}")
    return True


def _need(airflow: Installation, look: Look) -> str:
    """
    Return whether, and why, this installation needs the sidecar.
    """
    asking = sum(1 for access in look.tables.dags.values() if access is not None)
    custom = len(look.tables.roles - set(DEFAULT_ROLES))
    server = "webserver" if airflow.release[0] < 3 else "API server"
    roles = f"{custom} custom roles: new ones get can_read on Website only when the {server} starts"
    if airflow.restores_dags or not asking:
        dags = "Airflow restores DAG permissions at each parse"
        dags = dags if airflow.restores_dags else "no DAG has access_control"
        return f"{'for roles only' if custom else 'hardly'}: {dags}; {roles}"
    if airflow.release < (3, 0):
        ignores = "grants nothing to a role created after its DAG"
    elif airflow.release < (3, 4):
        ignores = "applies it only for auth managers with FabAuthManager in their names"
    else:
        ignores = "applies it only with a FAB provider from 3.10.2 on"
    return (
        f"yes: {asking} of {len(look.tables.dags)} DAGs have access_control, and Airflow "
        f"{airflow.version} {ignores}; {roles}"
    )
