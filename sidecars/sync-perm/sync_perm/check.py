"""
``sync-perm check``: tries everything the daemon needs, and reports whether Airflow needs it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from contextlib import closing

from sidecar_runtime.checks import daemon, exit_code, fail, say, unknown
from sidecar_runtime.errors import EXIT_GAVE_UP, SidecarError, counted
from sync_perm.compare import DEFAULT_ROLES
from sync_perm.connection import Source
from sync_perm.cycle import Look, Scope
from sync_perm.database import Database
from sync_perm.installation import Installation
from sync_perm.passes import Passes
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
    _airflow(passes)
    name = "connection"
    try:
        address = source.read()
        with closing(Database(address)) as database:
            say("ok", name, f"{address} from {source.setting}")
            name = "tables"
            scope.poll(database)
            database.try_write()
            is_free = database.try_lock()
        say("ok", "lock", "is free" if is_free else "is held: another sync-perm runs a pass")
        name = "roles"
        look = scope._replace(include_dags=True).look_once(address, passes)
        say("ok", name, "Airflow tells what it defines")
    except SidecarError as error:
        fail(name, error)
        return EXIT_GAVE_UP
    results = [_difference(scope, look, passes.installation)]
    results.append(daemon("sync-perm", source.shown(), settings.http_bind))
    return exit_code(results)


def _airflow(passes: Passes) -> None:
    """
    Report the version, who applies ``access_control``, the security manager, and what runs.
    """
    found, config = passes.installation, passes.config
    fab = f", FAB provider {found.fab}" if found.fab else ""
    say("ok", "airflow", f"{found.version}{fab}, {found.command}")
    told = " (assumed: not set in the environment or airflow.cfg)" if found.auth_manager else ""
    who = "Airflow applies access_control" if found.restores_dags else "nobody else does"
    say("ok", "auth manager", f"FAB{told}; at each parse, {who}")
    given = (config.value(section, "config_file") for section in ("fab", "webserver"))
    paths = (*given, f"{config.home}/webserver_config.py")
    file = next((path for path in paths if path and os.path.exists(path)), "")
    say("ok", "security", file or "Airflow's default: there is no webserver_config.py")
    if passes.cli_because == "version":
        say("??", "mode", "cli: our script was never tested with this version")
    else:
        say("ok", "mode", "cli" if passes.cli_because else "targeted")


def _difference(scope: Scope, look: Look, airflow: Installation) -> bool:
    """
    Report what the sidecar would do, and whether it is needed.
    """
    grants = sum(map(len, look.tables.grants.values()))
    roles = counted(len(look.tables.roles), "role")
    say("ok", "tables", f"can be read: {roles}, {counted(grants, 'grant')}")
    kinds = Counter(i.kind for i in look.items if scope.include_dags or i.is_of_file)
    told = [f"{kind}: {number}" for kind, number in sorted(kinds.items())]
    say("ok", "differences", ", ".join(told) or "none")
    for dag_id, one in sorted(look.difference.failing.items()) if scope.include_dags else ():
        say("??", f"DAG {dag_id}", f"{one.reason}: {one.text}")
    file = scope.file
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
    roles = (
        f"{custom} custom roles, which can read the Website only after the next start of Airflow"
    )
    if airflow.restores_dags or not asking:
        dags = "Airflow restores DAG permissions at each parse" if asking else "no access_control"
        return f"{'for roles only' if custom else 'hardly'}: {dags}; {roles}"
    return f"yes: {asking} DAGs have an access_control that Airflow does not restore; {roles}"
