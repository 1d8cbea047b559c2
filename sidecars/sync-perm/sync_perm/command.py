"""
The command line of ``sync-perm``, and the assembly of its parts.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from sidecar_runtime import __version__, logs
from sidecar_runtime.app import begin_logs, run_daemon
from sidecar_runtime.child import PrivateFolder, parent_folder
from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.health import About
from sidecar_runtime.usage import make_parser
from sync_perm import check
from sync_perm.airflow import (
    COMMAND_SECONDS,
    Airflow,
    Installation,
    ask_python,
    find_installation,
    writing,
)
from sync_perm.airflow_config import AirflowConfig, Source, find_source
from sync_perm.cycle import SyncPerm
from sync_perm.readiness import PermMetrics, Status
from sync_perm.roles_file import RoleFile
from sync_perm.settings import PREFIX, Settings, load_settings
from sync_perm.tables import Reader

T = TypeVar("T")

log = logs.get_logger("command")


def run() -> int:
    """
    Run the command that the arguments select; return the exit code.

    Raises:
        SidecarError: Settings are wrong, or the daemon gave up.
    """
    parser = make_parser(
        "sync-perm",
        "Keep Airflow's roles and DAG permissions in sync. Default: run as a daemon.",
        Settings,
        PREFIX,
        example="AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=postgresql://… INTERVAL=30s sync-perm",
        also="Airflow's own, above all AIRFLOW__DATABASE__SQL_ALCHEMY_CONN, and its airflow.cfg",
    )
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", title="commands"
    )
    commands.add_parser(
        "check",
        help="check Airflow and the database; report whether you need sync-perm",
    )
    diff = commands.add_parser(
        "diff",
        help="show what would be written, and what nobody asks for; exit code 4: it differs",
    )
    diff.add_argument("--output", choices=("text", "json"), default="text")
    given = parser.parse_args(sys.argv[1:])
    os.umask(0o077)  # keeps the configuration that Airflow writes private
    parent = parent_folder()
    with writing(parent):
        folder = PrivateFolder("sync-perm-", parent)
    try:
        return _run(given, folder.path)
    finally:
        folder.remove()


def _run(given: argparse.Namespace, folder: str) -> int:
    command = given.command
    if not command:
        # It runs the user's code, which may wait, before the endpoint can say so.
        log.info("airflow_asked", limit_seconds=COMMAND_SECONDS)
    settings, unknown, config, source, found = read_all(os.environ, folder)
    if not command:
        begin_logs(settings, unknown)
    else:
        # the commands print their own findings
        logs.configure("error", sys.stderr, for_people=True)
    choice = settings.include_dags
    include_dags = not found.restores_dags if choice == "auto" else choice == "true"
    reader = Reader(
        include_dags=include_dags,
        file=RoleFile(settings.roles) if settings.roles else None,
        has_versions=found.release >= (3, 0),
        reads_dags=include_dags or bool(settings.roles) or command == "diff",
        is_targeted=not found.unfit,
    )
    airflow = Airflow(found, config, folder)
    if command == "check":
        return check.run(settings, unknown, reader, airflow, source)
    if command == "diff":
        return check.diff(reader, airflow, source, is_json=given.output == "json")
    return _serve(settings, source, reader, airflow)


def read_all(
    environ: Mapping[str, str], folder: str
) -> tuple[Settings, Sequence[str], AirflowConfig, Source, Installation]:
    """
    Read our settings, the variables with our prefix that are none, Airflow's
    configuration, and Airflow's version.

    Args:
        folder: For what Airflow writes.

    Raises:
        SettingsError: Something is wrong; it lists the problems of all parts.
        SidecarError: The folder cannot be written.
    """
    problems: list[Problem] = []

    def attempt(read: Callable[[], T]) -> T | None:
        try:
            return read()
        except SettingsError as error:
            problems.extend(error.problems)
            return None

    loaded = attempt(partial(load_settings, environ))
    config = attempt(partial(AirflowConfig, environ))
    airflow = attempt(partial(find_installation, config, folder)) if config else None
    source = None
    if config:
        python = airflow.python if airflow else ""
        local_settings = airflow.local_settings if airflow else ""
        connect = partial(ask_python, python, config, "connect", folder)
        source = attempt(partial(find_source, config, local_settings, connect))
    if loaded and loaded[0].roles and airflow and airflow.unfit:
        problems.append(
            Problem(
                "SYNC_PERM_ROLES",
                loaded[0].roles,
                f"{airflow.unfit}; use a newer sync-perm",
            )
        )
    if problems or not (loaded and config and source and airflow):
        raise SettingsError(problems)
    return *loaded, config, source, airflow


def _serve(settings: Settings, source: Source, reader: Reader, airflow: Airflow) -> int:
    found = airflow.installation
    where = str(source.address or source.setting)
    mode = "cli" if found.unfit else "targeted"
    log.info(
        "airflow_found",
        version=found.version,
        fab=found.fab,
        command=found.command,
        mode=mode,
        why=found.unfit,
    )
    metrics = PermMetrics(is_read=not settings.one_shot)
    about = About(
        "sync-perm",
        __version__,
        where,
        "roles and DAG permissions" if reader.include_dags else "roles",
    )
    status = Status(metrics, airflow=found.version, database=where, mode=mode)
    return run_daemon(
        SyncPerm(settings.timeout_seconds, source, airflow, reader, status),
        settings,
        about,
        metrics,
    )
