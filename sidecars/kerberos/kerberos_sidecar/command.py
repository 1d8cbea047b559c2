"""
The command line of ``kerberos-sidecar``, and the assembly of its parts.
"""

import dataclasses
import os

from kerberos_sidecar.check import consumer, run_checks
from kerberos_sidecar.cycle import KerberosSidecar
from kerberos_sidecar.metrics import KerberosMetrics
from kerberos_sidecar.settings import (
    CHART_NAMES,
    PREFIX,
    Settings,
    changed,
    load_settings,
)
from sidecar_runtime import __version__
from sidecar_runtime.app import begin_logs, run_daemon
from sidecar_runtime.health import About
from sidecar_runtime.usage import make_parser

# The time between cycles that run without a cause, as a heartbeat.
HEARTBEAT_SECONDS = 40.0
# What a cycle has beyond the requests of all its principals: then its volume hangs.
VOLUME_SECONDS = 10.0


def run() -> int:
    """
    Run the command that the arguments select; return the exit code.

    Raises:
        SidecarError: Settings are wrong, or the daemon gave up.
    """
    parser = make_parser(
        "kerberos-sidecar",
        "Keep Kerberos tickets fresh from a keytab. Default: run as a daemon.",
        Settings,
        PREFIX,
        example="KERBEROS_KEYTAB=/keytab/airflow KERBEROS_CCACHE=/ccache/airflow kerberos-sidecar",
        also=f"Airflow's own variables, for settings that are unset: {', '.join(CHART_NAMES)}",
    )
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", title="commands"
    )
    text = "check krb5.conf, the keytabs, the KDC and the ccaches"
    check = commands.add_parser("check", help=text, description=text)
    check.add_argument(
        "--consumer",
        type=consumer,
        default=(50000, 0),
        metavar="UID:GID",
        help="who must be able to read the ccaches (default: 50000:0, as in the chart)",
    )
    arguments = parser.parse_args()
    settings, names = load_settings(os.environ)
    if arguments.command == "check":
        return run_checks(settings, names, arguments.consumer)
    begin_logs(settings, names)
    metrics = KerberosMetrics(is_read=not settings.one_shot)
    sidecar = KerberosSidecar(settings, metrics)
    # INTERVAL is the time between tickets, and TIMEOUT that of one request.
    seconds = settings.timeout_seconds * len(settings.entries) + VOLUME_SECONDS
    looping = dataclasses.replace(
        settings, interval_seconds=HEARTBEAT_SECONDS, timeout_seconds=seconds
    )
    return run_daemon(
        sidecar,
        looping,
        About(
            "kerberos",
            __version__,
            settings.source,
            settings.target,
            settings=changed(os.environ),
        ),
        metrics,
        watch=sidecar.watch,
    )
