"""
``sync-perm check``: tries everything the daemon needs, and reports whether Airflow
needs it. ``sync-perm diff``: prints the comparison, which is what the daemon would
write. Both write nothing.
"""

import sys
from collections.abc import Iterable
from contextlib import closing

from sidecar_runtime.checks import Checks
from sidecar_runtime.errors import (
    EXIT_DONE,
    EXIT_SETTINGS,
    SidecarError,
    counted,
    json_text,
    printable,
)
from sidecar_runtime.fence import Fence
from sync_perm.airflow import Airflow, Report, Work
from sync_perm.airflow_config import Address, Source
from sync_perm.compare import DEFAULT_ROLES
from sync_perm.database import Database
from sync_perm.settings import Settings
from sync_perm.tables import Look, Reader, try_write

EXIT_DIFFERS = 4
UNASKED = "from a person, or an earlier access_control or roles file"
TOLD = "Airflow tells what it defines"
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
    checks = Checks(names)
    _report_airflow(checks, airflow)
    name = "connection"
    try:
        address = source.read(Fence())
        with closing(Database(address)) as database:
            checks.ok(name, f"{address} from {source.setting}")
            name = "tables"
            reader.fingerprint(database)
            try_write(database)
            holder = database.take_lock()
            if holder:
                checks.say("??", "lock", f"{holder} holds it")
            else:
                checks.ok("lock", "is free")
        name = "roles"
        is_cli = airflow.installation.unfit
        look = _look_once(reader, address, None if is_cli else airflow)
        if not is_cli:
            checks.ok(name, TOLD if look.is_written else UNWRITTEN)
    except SidecarError as error:
        checks.fail(name, error)
    else:
        _report_difference(checks, reader, look, airflow)
    checks.daemon(settings.http_bind)
    return checks.exit_code


def _look_once(reader: Reader, address: Address, airflow: Airflow | None) -> Look:
    """
    Compare the tables as the daemon does.

    Args:
        airflow: Tells what it defines; None if that is not needed.

    Raises:
        SidecarError: Airflow or the database failed.
    """
    report = airflow.run(Work(load=True), address, Fence()) if airflow else Report()
    if report.error:
        raise report.error
    if reader.file:
        reader.file.refresh()
    with closing(Database(address)) as database:
        return reader.look(database, report.defined)


def _report_airflow(checks: Checks, airflow: Airflow) -> None:
    """
    Report the version, who applies ``access_control``, and what runs.
    """
    found = airflow.installation
    checks.ok("airflow", f"{found.version}, FAB provider {found.fab}, {found.command}")
    manager = airflow.config.value("core", "auth_manager") or "FAB, as none is set"
    who = (
        "Airflow applies access_control" if found.restores_dags else "nobody else does"
    )
    checks.ok("auth manager", f"{manager}; at each parse, {who}")
    if found.unfit:
        checks.say("??", "mode", f"cli: our script {found.unfit}")


def _report_difference(
    checks: Checks, reader: Reader, look: Look, airflow: Airflow
) -> None:
    """
    Report what the sidecar would do, and whether it is needed.
    """
    checks.ok(
        "differences",
        f"{counted(len(look.difference.items), 'row')}: see `sync-perm diff`",
    )
    for dag_id, one in sorted(look.difference.failing.items()):
        checks.say("??", f"DAG {dag_id}", f"{one.reason}: {one.text}")
    file = reader.file
    need = (
        "yes: Airflow does not apply the roles file" if file else _need(look, airflow)
    )
    checks.say("??" if need.startswith("hardly") else "ok", "needed?", need)
    if file and file.problem:
        checks.fail("roles file", file.problem)
    elif file:
        checks.ok(
            "roles file", f"{file.path}: {counted(len(file.document.roles), 'role')}"
        )


def _need(look: Look, airflow: Airflow) -> str:
    """
    Return whether, and why, this installation needs the sidecar.
    """
    asking = sum(1 for access in look.tables.dags.values() if access is not None)
    if asking and not airflow.installation.restores_dags:
        return (
            f"yes: {asking} DAGs have an access_control that Airflow does not restore"
        )
    if airflow.config.value("fab", "update_fab_perms").lower() in ("false", "f", "0"):
        return "yes: update_fab_perms is False, so Airflow does not sync its roles"
    custom = len(look.tables.grants.keys() - DEFAULT_ROLES)
    return (
        f"{'for roles only' if custom else 'hardly'}: {custom} custom roles, which can "
        "read the Website only after the next start of Airflow"
    )


def diff(reader: Reader, airflow: Airflow, source: Source, *, is_json: bool) -> int:
    """
    Print the differences, and what nobody asks for; return the exit code.
    """
    file = reader.file
    try:
        look = _look_once(reader, source.read(Fence()), airflow if file else None)
        if file and file.problem:
            raise file.problem
    except SidecarError as error:
        mistakes = file.mistakes if file and file.problem is error else []
        texts = [f"{file.path}:{one}" for one in mistakes if file] or [error.message]
        for text in (*texts, error.advice):
            sys.stderr.write(f"sync-perm diff: {printable(text)}\n")
        return EXIT_SETTINGS if mistakes else error.exit_code
    found = look.difference
    notes = found.notes if look.is_written else [UNWRITTEN]
    items = sorted(found.items)
    failing = sorted(found.failing.items())
    differs = bool(items) or not look.is_written
    unasked = sorted(found.unasked or ())
    if is_json:
        told = {
            "differences": [item._asdict() for item in items],
            "failing": [{"dag_id": one, **why._asdict()} for one, why in failing],
            "unasked": [item._asdict() for item in unasked],
            "notes": notes,
        }
        print(json_text(told, indent=2))
    else:
        lines = [
            f"{'-' if i.kind == 'dag_revoke' else '+'} {i.kind}: {i}" for i in items
        ]
        lines += [] if differs else ["nothing differs"]
        lines += [f"? DAG {one}: {why.reason}: {why.text}" for one, why in failing]
        lines += [f"~ {item}: {UNASKED}" for item in unasked]
        lines += [f"? {note}" for note in notes]
        print(*map(printable, lines), sep="\n")
    return EXIT_DIFFERS if differs else EXIT_DONE
