"""
The command line of ``sync-perm``, and the assembly of its parts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from sidecar_runtime import __version__, logs
from sidecar_runtime.app import begin_logs, make_parser, run_daemon
from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.health import About
from sync_perm import check
from sync_perm.airflow import Airflow, Installation, find_installation, own_folder
from sync_perm.config import AirflowConfig, Source, find_source
from sync_perm.cycle import SyncPerm
from sync_perm.roles import RoleFile
from sync_perm.settings import PREFIX, Settings, load_settings
from sync_perm.status import PermMetrics, Status
from sync_perm.tables import Reader

T = TypeVar("T")

log = logs.get_logger("command")


class Given(NamedTuple):
    """
    The complete, valid configuration from the environment.

    Args:
        unknown: Variables with our prefix that are not settings.
    """

    settings: Settings
    unknown: Sequence[str]
    config: AirflowConfig
    source: Source
    airflow: Installation


def run() -> int:
    """
    Run the command that the arguments select; return the exit code.

    Raises:
        SidecarError: Settings are wrong, or the daemon gave up.
    """
    purpose = "Keep Airflow's roles and DAG permissions in sync. Default: run as a daemon."
    example = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=postgresql://… INTERVAL=30s sync-perm"
    also = (
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN (required; or with _CMD, or in airflow.cfg), and the "
        "rest of Airflow's configuration"
    )
    parser = make_parser("sync-perm", purpose, Settings, PREFIX, example, also)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, text in (
        ("check", "check Airflow and the database; report whether you need sync-perm"),
        ("diff", "show what would be written; exit code 4: it differs"),
    ):
        commands.add_parser(name, help=text, description=text)
    command = parser.parse_args(sys.argv[1:]).command
    os.umask(0o077)  # keeps the configuration that Airflow writes private
    given = read_all(os.environ)
    if not command:
        begin_logs(given.settings, given.unknown)
    else:
        logs.configure("error", "console", sys.stderr)  # the commands print their own findings
    installation, path = given.airflow, given.settings.roles
    choice = given.settings.include_dags
    include_dags = not installation.restores_dags if choice == "auto" else choice == "true"
    file, has_versions = RoleFile(path) if path else None, installation.release >= (3, 0)
    reader = Reader(include_dags=include_dags, file=file, has_versions=has_versions)
    with own_folder() as folder:
        airflow = Airflow(installation, given.config, folder)
        if command == "check":
            return check.run(given.settings, given.unknown, reader, airflow, given.source)
        if command == "diff":
            return check.diff(reader, airflow, given.source)
        return _serve(given, reader, airflow)


def read_all(environ: Mapping[str, str]) -> Given:
    """
    Read our settings, Airflow's configuration, and Airflow's version.

    Raises:
        SettingsError: Something is wrong; it lists the problems of all parts.
    """
    problems: list[Problem] = []

    def attempt(read: Callable[[], T]) -> T | None:
        try:
            return read()
        except SettingsError as error:
            problems.extend(error.problems)
            return None

    loaded = attempt(lambda: load_settings(environ))
    config = attempt(lambda: AirflowConfig(environ))
    source = attempt(lambda: find_source(config)) if config else None
    shown = attempt(source.shown) if source else None
    airflow = attempt(lambda: find_installation(config)) if config else None
    if loaded and loaded[0].roles and airflow and not airflow.is_known:
        problem = f"was never tested with Airflow {airflow.version}; use a newer sync-perm"
        problems.append(Problem("SYNC_PERM_ROLES", loaded[0].roles, problem))
    if problems or not (loaded and config and source and shown and airflow):
        raise SettingsError(problems)
    source = replace(source, arguments=airflow.arguments)
    return Given(*loaded, config, source, airflow)


def _serve(given: Given, reader: Reader, airflow: Airflow) -> int:
    found, where = airflow.installation, given.source.shown()
    log.info("airflow_found", version=found.version, fab=found.fab, command=found.command)
    if found.auth_manager:
        log.warning("auth_manager_assumed", auth_manager=found.auth_manager)
    if not found.is_known:
        log.warning("targeted_unavailable", version=found.version, fab=found.fab)
    metrics = PermMetrics(__version__, os.environ.get("SIDECAR_REVISION", "unknown"))
    target = "roles and DAG permissions" if reader.include_dags else "roles"
    about = About("sync-perm", __version__, where, target)
    mode = "targeted" if found.is_known else "cli"
    status = Status(metrics, airflow=found.version, database=where, mode=mode)
    sidecar = SyncPerm(given.settings.timeout_seconds, given.source, airflow, reader, status)
    return run_daemon(sidecar, given.settings, about, metrics)
