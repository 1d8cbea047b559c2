"""
The command line of ``sync-perm``: joins the parts.
"""

from __future__ import annotations

import argparse
import os
import sys

from sidecar_runtime import __version__, logs
from sidecar_runtime.process import run_daemon
from sidecar_runtime.settings import describe
from sidecar_runtime.status import About
from sync_perm import check
from sync_perm.airflow_config import AirflowConfig
from sync_perm.airflow_pass import AirflowPasses
from sync_perm.board import Board
from sync_perm.comparison import Comparison
from sync_perm.connection import find_source
from sync_perm.installation import find_installation
from sync_perm.metrics import PermMetrics
from sync_perm.settings import PREFIX, Settings, load_settings
from sync_perm.sidecar import SyncPerm
from sync_perm.surroundings import own_folder

log = logs.get_logger("command")


def run() -> int:
    """
    Run the command that the arguments name; return the exit code.

    Raises:
        SidecarError: Settings are wrong, or the daemon gave up.
    """
    parser = argparse.ArgumentParser(
        "sync-perm",
        description="Keeps Airflow's roles and DAG permissions in sync; without a command, for "
        "ever.",
        epilog=describe(Settings, PREFIX),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sync-perm {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="[check]", title="commands")
    commands.add_parser("check", help="try all that is needed, and say whether the sidecar is")
    arguments = parser.parse_args(sys.argv[1:])
    os.umask(0o077)  # what Airflow writes of its configuration is nobody else's business
    settings, unknown = load_settings(os.environ)
    config = AirflowConfig(os.environ)
    if arguments.command == "check":
        return check.run(settings, config)
    logs.configure(settings.log_level, settings.log_format)
    for name in unknown:
        logs.get_logger("settings").warning("setting_unknown", setting=name)
    return _serve(settings, config)


def _serve(settings: Settings, config: AirflowConfig) -> int:
    source = find_source(config)
    where = source.setting if source.is_command else str(source.read())
    airflow = find_installation(settings.airflow, config)
    include_dags = airflow.includes_dags(settings.include_dags)
    targeted = settings.targeted and airflow.is_known
    mode = "targeted" if targeted else "cli"
    log.info("airflow_found", version=airflow.version, fab=airflow.fab, command=airflow.command)
    if airflow.auth_manager:
        log.warning("auth_manager_assumed", auth_manager=airflow.auth_manager)
    if settings.targeted and not targeted:
        log.warning("targeted_unavailable", version=airflow.version, fab=airflow.fab)
    metrics = PermMetrics(__version__, os.environ.get("SIDECAR_REVISION", "unknown"))
    target = "roles and DAG permissions" if include_dags else "roles"
    about = About("sync-perm", __version__, where, target)
    with own_folder() as folder:
        sidecar = SyncPerm(
            settings,
            source,
            AirflowPasses(airflow, config, folder, targeted=targeted),
            Comparison(airflow, include_dags=include_dags, targeted=targeted),
            metrics,
            Board(metrics, airflow=airflow.version, mode=mode, database=where),
        )
        return run_daemon(sidecar, settings, PREFIX, about, metrics)
