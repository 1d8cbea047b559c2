"""
The command line of ``kerberos-sidecar``: joins the parts.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import sys

from kerberos_sidecar import check
from kerberos_sidecar.krb5.overlay import lay_over
from kerberos_sidecar.metrics import KerberosMetrics
from kerberos_sidecar.settings import CHART_NAMES, PREFIX, Settings, load_settings
from kerberos_sidecar.sidecar import KerberosSidecar
from sidecar_runtime import __version__
from sidecar_runtime.command import make_parser
from sidecar_runtime.entry import end_on_signals
from sidecar_runtime.http.status import About
from sidecar_runtime.process import begin_logs, forbid_core_dumps, run_daemon

# How often a cycle runs that nobody asked for, as a heartbeat.
LOOK_SECONDS = 20.0


_PR_SET_DUMPABLE = 4


def hide_from_neighbors() -> None:
    """
    Close ``/proc/PID/root``, ``mem`` and ``environ`` to processes of the same uid, and ptrace.

    In a pod with ``shareProcessNamespace`` a consumer of our uid would read the keytab there.
    A kernel that refuses costs nothing but that.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def run() -> int:
    """
    Run the command that the arguments name; return the exit code.

    Raises:
        SidecarError: Settings are wrong, or the daemon gave up.
    """
    purpose = "Keeps Kerberos tickets fresh from a keytab; without a command, until stopped."
    example = "KERBEROS_KEYTAB=/keytab/airflow KERBEROS_CCACHE=/ccache/airflow kerberos-sidecar"
    chart = ", ".join(CHART_NAMES)
    also = f"of Airflow's, where ours are unset: {chart}"
    parser = make_parser("kerberos-sidecar", purpose, Settings, PREFIX, example, also)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    text = "try krb5.conf, keytabs, the KDC and the ccaches"
    check.add_arguments(commands.add_parser("check", help=text, description=text))
    arguments = parser.parse_args(sys.argv[1:])
    forbid_core_dumps()
    hide_from_neighbors()
    settings, unknown = load_settings(os.environ)
    lay_over(settings)
    if arguments.command == "check":
        end_on_signals()
        return check.run(settings, unknown, arguments.consumer)
    begin_logs(settings, unknown)
    revision = os.environ.get("SIDECAR_REVISION", "unknown")
    metrics = KerberosMetrics(__version__, revision, is_served=not settings.one_shot)
    sidecar = KerberosSidecar(settings, metrics)
    # INTERVAL is between two tickets; the sidecar's own watch asks for a cycle when one is due.
    looking = dataclasses.replace(settings, interval_seconds=LOOK_SECONDS, jitter_seconds=None)
    about = About("kerberos", __version__, settings.source, settings.target)
    return run_daemon(sidecar, looking, PREFIX, about, metrics, watch=sidecar.watch)
