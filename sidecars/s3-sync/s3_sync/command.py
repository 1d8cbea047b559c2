"""
The command line of ``s3-sync``: wires the parts together.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

from s3_sync.metrics import SyncMetrics
from s3_sync.settings import PREFIX, load_settings, read_trusted_keys
from s3_sync.sidecar import S3Sync
from sidecar_runtime import __version__, proxies
from sidecar_runtime.app import begin_logs, run_daemon
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.gate.gate import unused_by_gate
from sidecar_runtime.http.status import About

# Compiled packages that publishing releases does not need: the extra `daemon`.
OF_DAEMON = ("anycrc", "httptools")


def run() -> int:
    """
    Run the command in the arguments, or the daemon; return the exit code.

    Raises:
        SidecarError: Settings are wrong, or the daemon gave up.
    """
    is_check = False
    if words := sys.argv[1:]:  # the daemon starts without importing the commands
        from s3_sync.publisher import cli  # noqa: PLC0415

        arguments = cli.read_arguments(words)
        if arguments.command in cli.COMMANDS:
            return cli.run(arguments, os.environ)
        is_check = arguments.command == "check"
    if missing := [name for name in OF_DAEMON if find_spec(name) is None]:
        raise SidecarError(
            "package_missing",
            f"this s3-sync can only publish: it has no {' and no '.join(missing)}",
            "Install s3-sync[daemon].",
        )
    os.umask(0o002)  # another uid of the same group must be able to continue on this volume
    settings, unknown = load_settings(os.environ)
    read_trusted_keys(settings)  # a bad key fails the start; later it only fails a cycle
    if is_check:
        from s3_sync import check  # noqa: PLC0415

        return check.run(settings, unknown)
    unused = unused_by_gate(settings, PREFIX) | proxies.ignored(os.environ)
    begin_logs(settings, unknown, unused)
    revision = os.environ.get("SIDECAR_REVISION", "unknown")
    metrics = SyncMetrics(__version__, revision)
    about = About("s3-sync", __version__, settings.source, settings.dest_path)
    sidecar = S3Sync(settings, metrics)
    return run_daemon(sidecar, settings, about, metrics, watch=sidecar.watch)
