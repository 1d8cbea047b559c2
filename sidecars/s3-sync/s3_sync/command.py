"""
The command line of ``s3-sync``: wires the parts together.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

from s3_sync.metrics import SyncMetrics
from s3_sync.release import read_trusted_keys
from s3_sync.settings import load_settings
from s3_sync.sidecar import S3Sync
from sidecar_runtime import __version__
from sidecar_runtime.app import begin_logs, run_daemon
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.health import About


def run() -> int:
    """
    Run the command in the arguments, or the daemon; return the exit code.

    Raises:
        SidecarError: Settings are wrong, or the daemon gave up.
    """
    words = sys.argv[1:]
    if words:  # the daemon starts without importing the commands
        from s3_sync.publisher import cli  # noqa: PLC0415

        arguments = cli.read_arguments(words)
        if arguments.command in cli.COMMANDS:
            return cli.run(arguments, os.environ)
    # of the extra `daemon`, which publishing does not need
    if find_spec("httptools") is None:
        raise SidecarError(
            "package_missing", "it can only publish", "Install s3-sync[daemon]."
        )
    # another uid of the same group must be able to continue on this volume
    os.umask(0o002)
    settings, unknown = load_settings(os.environ)
    # a bad key fails the start; later it only fails a cycle
    read_trusted_keys(settings)
    if words:  # the only other command
        from s3_sync import check  # noqa: PLC0415

        return check.run(settings, unknown)
    begin_logs(settings, unknown)
    metrics = SyncMetrics(
        __version__,
        os.environ.get("SIDECAR_REVISION", "unknown"),
        is_read=not settings.one_shot,
    )
    about = About("s3-sync", __version__, settings.source, settings.dest_path)
    sidecar = S3Sync(settings, metrics)
    return run_daemon(sidecar, settings, about, metrics, watch=sidecar.watch)
