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
from sidecar_runtime.http.status import About
from sync_perm import check, diff
from sync_perm.airflow_config import AirflowConfig
from sync_perm.connection import Source, find_source
from sync_perm.cycle import Scope, SyncPerm
from sync_perm.installation import Installation, find_installation
from sync_perm.metrics import PermMetrics
from sync_perm.passes import CliCause, Passes, own_folder
from sync_perm.roles import RoleFile
from sync_perm.settings import PREFIX, Settings, load_settings
from sync_perm.status import Status
from sync_perm.tables import Reader

T = TypeVar("T")

log = logs.get_logger("command")


class Given(NamedTuple):
    """
    The complete, valid configuration from the environment.

    Args:
        where: The database without its password, or the setting whose command prints its URL.
        unknown: Variables with our prefix that are not settings.
    """

    settings: Settings
    unknown: Sequence[str]
    config: AirflowConfig
    source: Source
    where: str
    airflow: Installation

    def scope(self) -> Scope:
        """
        Return what is compared.
        """
        path, kinds = self.settings.roles, self.airflow.resources
        include_dags = self.airflow.includes_dags(self.settings.include_dags)
        reader = Reader(self.airflow.release, self.config.dags_folder)
        return Scope(kinds, include_dags, RoleFile(path, kinds) if path else None, reader)

    def passes(self, folder: str) -> Passes:
        """
        Return what runs Airflow.
        """
        because: CliCause | None = None if self.airflow.is_known else "version"
        because = because if self.settings.targeted else "setting"
        return Passes(self.airflow, self.config, folder, because)


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
    text = "check Airflow and the database; report whether you need sync-perm"
    commands.add_parser("check", help=text, description=text)
    text = "show what would be written; exit code 4: it differs"
    commands.add_parser("diff", help=text, description=text).add_argument(
        "--output", choices=("text", "json"), default="text", help="json: for programs"
    )
    arguments = parser.parse_args(sys.argv[1:])
    os.umask(0o077)  # keeps the configuration that Airflow writes private
    given = read_all(os.environ)
    if not arguments.command:
        begin_logs(given.settings, given.unknown)
        return _serve(given)
    logs.configure("error", "console", sys.stderr)  # the commands print their own findings
    with own_folder() as folder:
        scope, passes = given.scope(), given.passes(folder)
        if arguments.command == "check":
            return check.run(given.settings, given.unknown, scope, passes, given.source)
        return diff.run(scope, passes, given.source, is_json=arguments.output == "json")


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
    where = attempt(source.shown) if source else None
    command = loaded[0].airflow if loaded else environ.get("SYNC_PERM_AIRFLOW") or "airflow"
    airflow = attempt(lambda: find_installation(command, config)) if config else None
    if not (loaded and config and source and where and airflow):
        raise SettingsError(problems)
    source = replace(source, arguments=airflow.arguments)
    return Given(*loaded, config, source, where, airflow)


def _serve(given: Given) -> int:
    airflow, scope = given.airflow, given.scope()
    log.info("airflow_found", version=airflow.version, fab=airflow.fab, command=airflow.command)
    if airflow.auth_manager:
        log.warning("auth_manager_assumed", auth_manager=airflow.auth_manager)
    metrics = PermMetrics(__version__, os.environ.get("SIDECAR_REVISION", "unknown"))
    target = "roles and DAG permissions" if scope.include_dags else "roles"
    about = About("sync-perm", __version__, given.where, target)
    with own_folder() as folder:
        passes = given.passes(folder)
        if passes.cli_because == "version":
            log.warning("targeted_unavailable", version=airflow.version, fab=airflow.fab)
        status = Status(metrics, airflow=airflow.version, database=given.where)
        status.show_mode(passes.cli_because)
        sidecar = SyncPerm(given.settings.timeout_seconds, given.source, passes, scope, status)
        return run_daemon(sidecar, given.settings, about, metrics)
