"""
The command line of ``kerberos-sidecar``, and the assembly of its parts.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import TYPE_CHECKING

from kerberos_sidecar.krb5.overlay import lay_over
from kerberos_sidecar.metrics import KerberosMetrics
from kerberos_sidecar.settings import CHART_NAMES, PREFIX, Settings, changed, load_settings
from kerberos_sidecar.sidecar import KerberosSidecar
from sidecar_runtime import __version__
from sidecar_runtime.app import begin_logs, make_parser, run_daemon
from sidecar_runtime.http.status import About

if TYPE_CHECKING:
    import argparse

# The time between cycles that run without a cause, as a heartbeat; each makes forty system calls.
LOOK_SECONDS = 40.0


def run() -> int:
    """
    Run the command that the arguments select; return the exit code.

    Raises:
        SidecarError: Settings are wrong, or the daemon gave up.
    """
    # The daemon starts without the commands, to take less memory.
    arguments = _read_arguments(words) if (words := sys.argv[1:]) else None
    settings, unknown = load_settings(os.environ)
    lay_over(settings)
    if arguments is not None and arguments.command == "check":
        from kerberos_sidecar import check  # noqa: PLC0415

        return check.run(settings, unknown, arguments.consumer)
    begin_logs(settings, unknown)
    revision = os.environ.get("SIDECAR_REVISION", "unknown")
    metrics = KerberosMetrics(__version__, revision)
    sidecar = KerberosSidecar(settings, metrics)
    # INTERVAL is the time between tickets. The sidecar's watch requests a cycle when one is due.
    looking = dataclasses.replace(settings, interval_seconds=LOOK_SECONDS)
    shown = changed(os.environ)
    about = About("kerberos", __version__, settings.source, settings.target, settings=shown)
    return run_daemon(sidecar, looking, about, metrics, watch=sidecar.watch)


def _read_arguments(words: list[str]) -> argparse.Namespace:
    from kerberos_sidecar import check  # noqa: PLC0415

    purpose = "Keep Kerberos tickets fresh from a keytab. Default: run as a daemon."
    example = "KERBEROS_KEYTAB=/keytab/airflow KERBEROS_CCACHE=/ccache/airflow kerberos-sidecar"
    chart = ", ".join(CHART_NAMES)
    also = f"Airflow's own variables, for settings that are unset: {chart}"
    parser = make_parser("kerberos-sidecar", purpose, Settings, PREFIX, example, also)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    text = "check krb5.conf, the keytabs, the KDC and the ccaches"
    check.add_arguments(commands.add_parser("check", help=text, description=text))
    return parser.parse_args(words)
