"""
The command line of ``s3-sync``: joins the parts.
"""

from __future__ import annotations

import argparse
import os
import sys

from s3_sync import check
from s3_sync.metrics import SyncMetrics
from s3_sync.publisher import cli
from s3_sync.settings import PREFIX, Settings, load_settings
from s3_sync.sidecar import S3Sync
from sidecar_runtime import __version__, logs
from sidecar_runtime.process import run_daemon
from sidecar_runtime.settings import describe
from sidecar_runtime.status import About


def run() -> int:
    """
    Run the command that the arguments name; return the exit code.

    Raises:
        SidecarError: Settings are wrong, or the daemon gave up.
    """
    parser = argparse.ArgumentParser(
        "s3-sync",
        description="Keeps a folder equal to an S3 prefix; without a command, for ever.",
        epilog=describe(Settings, PREFIX),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"s3-sync {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    commands.add_parser("check", help="try settings, credentials, permissions and the target")
    cli.add_commands(commands)
    arguments = parser.parse_args(sys.argv[1:])
    if arguments.command in cli.COMMANDS:
        return cli.run(arguments, os.environ)
    os.umask(0o002)  # another uid of our group must be able to go on where we stopped
    settings, unknown = load_settings(os.environ)
    if arguments.command == "check":
        return check.run(settings)
    logs.configure(settings.log_level, settings.log_format)
    for name in unknown:
        logs.get_logger("settings").warning("setting_unknown", setting=name)
    metrics = SyncMetrics(__version__, os.environ.get("SIDECAR_REVISION", "unknown"))
    about = About("s3-sync", __version__, settings.source, settings.dest_path)
    sidecar = S3Sync(settings, metrics)
    return run_daemon(sidecar, settings, PREFIX, about, metrics, glances=sidecar.glances)
