"""
``sync-perm check``: tries everything the daemon needs, and reports whether Airflow
needs it. ``sync-perm diff``: prints the comparison, which is what the daemon would
write. Both write nothing.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import closing

from sidecar_runtime.checks import daemon, exit_code, fail, say, unknown
from sidecar_runtime.errors import (
    EXIT_DONE,
    EXIT_GAVE_UP,
    EXIT_SETTINGS,
    SidecarError,
    counted,
    printable,
)
from sidecar_runtime.fence import Fence
from sync_perm.airflow import COMMAND_SECONDS, PASS_SHARE, Airflow, Portion
from sync_perm.compare import DEFAULT_ROLES
from sync_perm.config import Address, Source
from sync_perm.database import Database
from sync_perm.settings import Settings
from sync_perm.tables import Look, Reader, try_write

EXIT_DIFFERS = 4
UNWRITTEN = "Airflow has not written its roles here yet, which the first pass does"


def run(
    settings: Settings,
    names: Iterable[str],
    reader: Reader,
    airflow: Airflow,
    source: Source,
) -> int:
    """
    Run all checks, print a line for each, and return the exit code.

    Args:
        names: Variables with our prefix that are not settings.
    """
    print("sync-perm check")
    unknown(names)
    _report_airflow(airflow)
    name = "connection"
    try:
        address = source.read()
        with closing(Database(address)) as database:
            say("ok", name, f"{address} from {source.setting}")
            name = "tables"
            reader.poll(database)
            try_write(database)
            say(
                "ok",
                "lock",
                "is free" if database.try_lock() else "is held by another sync-perm",
            )
        name = "roles"
        loads = airflow.installation.is_known
        seconds = min(COMMAND_SECONDS, settings.timeout_seconds * PASS_SHARE)
        look = _look_once(reader, address, airflow if loads else None, seconds)
        if loads:
            say(
                "ok",
                name,
                "Airflow tells what it defines" if look.is_written else UNWRITTEN,
            )
    except SidecarError as error:
        fail(name, error)
        return EXIT_GAVE_UP
    return exit_code(
        [_report_difference(reader, look, airflow), daemon(settings.http_bind)]
    )


def _look_once(
    reader: Reader,
    address: Address,
    airflow: Airflow | None,
    seconds: float = COMMAND_SECONDS,
) -> Look:
    """
    Compare the tables as the daemon does.

    Args:
        airflow: Tells what it defines; None if that is not needed.
        seconds: How long it may take.

    Raises:
        SidecarError: Airflow or the database failed.
    """
    load = Portion(load=True)
    defined = airflow.run(load, address, Fence(), seconds).defined if airflow else None
    if reader.file:
        reader.file.refresh()
    with closing(Database(address)) as database:
        return reader.look(database, defined)


def _report_airflow(airflow: Airflow) -> None:
    """
    Report the version, who applies ``access_control``, the security manager, and what
    runs.
    """
    found, config = airflow.installation, airflow.config
    say("ok", "airflow", f"{found.version}, FAB provider {found.fab}, {found.command}")
    told = (
        " (assumed: not set in the environment or airflow.cfg)"
        if found.auth_manager
        else ""
    )
    who = (
        "Airflow applies access_control" if found.restores_dags else "nobody else does"
    )
    say("ok", "auth manager", f"FAB{told}; at each parse, {who}")
    section = "fab" if found.release >= (3, 0) else "webserver"
    given = config.value(section, "config_file")
    paths = (given, f"{config.home}/webserver_config.py")
    file = next((path for path in paths if path and os.path.exists(path)), "")
    say("ok", "security", file or "Airflow's default: there is no webserver_config.py")
    if not found.is_known:
        say("??", "mode", "cli: our script was never tested with this version")


def _report_difference(reader: Reader, look: Look, airflow: Airflow) -> bool:
    """
    Report what the sidecar would do, and whether it is needed.
    """
    kinds = Counter(item.kind for item in look.difference.items)
    told = [f"{kind}: {number}" for kind, number in sorted(kinds.items())]
    say("ok", "differences", ", ".join(told) or "none")
    for dag_id, one in sorted(look.difference.failing.items()):
        say("??", f"DAG {dag_id}", f"{one.reason}: {one.text}")
    file = reader.file
    need = (
        "yes: Airflow does not apply the roles file" if file else _need(look, airflow)
    )
    say("??" if need.startswith("hardly") else "ok", "needed?", need)
    if file and file.problem:
        return fail("roles file", file.problem)
    if file and not look.is_written:
        say("??", "roles file", f"{file.path} is compared after the first pass")
    elif file:
        say(
            "ok",
            "roles file",
            f"{file.path}: {counted(len(file.document.roles), 'role')}",
        )
    return True


def _need(look: Look, airflow: Airflow) -> str:
    """
    Return whether, and why, this installation needs the sidecar.
    """
    asking = sum(1 for access in look.tables.dags.values() if access is not None)
    if asking and not airflow.installation.restores_dags:
        return (
            f"yes: {asking} DAGs have an access_control that Airflow does not restore"
        )
    custom = len(look.tables.grants.keys() - DEFAULT_ROLES)
    dags = (
        ""
        if airflow.installation.restores_dags
        else "no compared DAG has an access_control; "
    )
    roles = "can read the Website only after the next start of Airflow"
    return f"{'for roles only' if custom else 'hardly'}: {dags}{custom} custom roles, which {roles}"


def diff(reader: Reader, airflow: Airflow, source: Source) -> int:
    """
    Print the differences; return the exit code.
    """
    file = reader.file
    try:
        look = _look_once(reader, source.read(), airflow if file else None)
        if file and file.problem:
            raise file.problem
    except SidecarError as error:
        mistakes = file.mistakes if file and file.problem is error else []
        texts = [f"{file.path}:{one}" for one in mistakes if file] or [error.message]
        for text in filter(None, [*texts, error.advice]):
            sys.stderr.write(f"sync-perm diff: {printable(text)}\n")
        return EXIT_SETTINGS if mistakes else error.exit_code
    items, failing, _, notes = look.difference
    lines = [
        f"{'-' if i.kind == 'dag_revoke' else '+'} {i.kind}: {i}" for i in sorted(items)
    ]
    lines += [] if items or not look.is_written else ["nothing differs"]
    lines += [
        f"? DAG {dag_id}: {one.reason}: {one.text}"
        for dag_id, one in sorted(failing.items())
    ]
    lines += [
        f"? {note}" for note in (*notes, *([] if look.is_written else [UNWRITTEN]))
    ]
    sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))
    return EXIT_DIFFERS if items or not look.is_written else EXIT_DONE
