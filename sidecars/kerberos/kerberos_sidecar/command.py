"""
The command line of ``kerberos-sidecar``, and the assembly of its parts.
"""

from __future__ import annotations

import dataclasses
import os

from kerberos_sidecar import check
from kerberos_sidecar.metrics import KerberosMetrics
from kerberos_sidecar.settings import CHART_NAMES, PREFIX, Settings, changed, load_settings
from kerberos_sidecar.sidecar import KerberosSidecar
from sidecar_runtime import __version__
from sidecar_runtime.app import begin_logs, make_parser, run_daemon
from sidecar_runtime.http.status import About

# The time between cycles that run without a cause, as a heartbeat.
HEARTBEAT_SECONDS = 40.0
# What a cycle has beyond the requests of all its principals: then its volume hangs.
VOLUME_SECONDS = 30.0


def run() -> int:
    """
    Run the command that the arguments select; return the exit code.

    Raises:
        SidecarError: Settings are wrong, or the daemon gave up.
    """
    purpose = "Keep Kerberos tickets fresh from a keytab. Default: run as a daemon."
    example = "KERBEROS_KEYTAB=/keytab/airflow KERBEROS_CCACHE=/ccache/airflow kerberos-sidecar"
    also = f"Airflow's own variables, for settings that are unset: {', '.join(CHART_NAMES)}"
    parser = make_parser("kerberos-sidecar", purpose, Settings, PREFIX, example, also)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    text = "check krb5.conf, the keytabs, the KDC and the ccaches"
    check.add_arguments(commands.add_parser("check", help=text, description=text))
    arguments = parser.parse_args()
    settings, unknown = load_settings(os.environ)
    if arguments.command == "check":
        return check.run(settings, unknown, arguments.consumer)
    begin_logs(settings, unknown)
    metrics = KerberosMetrics(__version__, os.environ.get("SIDECAR_REVISION", "unknown"))
    sidecar = KerberosSidecar(settings, metrics)
    # INTERVAL is the time between tickets, and TIMEOUT that of one request.
    seconds = settings.timeout_seconds * len(settings.entries) + VOLUME_SECONDS
    looping = dataclasses.replace(
        settings, interval_seconds=HEARTBEAT_SECONDS, timeout_seconds=seconds
    )
    shown = changed(os.environ)
    about = About("kerberos", __version__, settings.source, settings.target, settings=shown)
    return run_daemon(sidecar, looping, about, metrics, watch=sidecar.watch)
