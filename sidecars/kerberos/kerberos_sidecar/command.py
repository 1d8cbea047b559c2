"""
The command line of ``kerberos-sidecar``, the assembly of its parts, and the command
``check``.

``check`` tries everything the daemon needs, and reports what to fix and how.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import stat
import time
from collections.abc import Iterable

from kerberos_sidecar.account import Account, KerberosMetrics
from kerberos_sidecar.cycle import KerberosSidecar
from kerberos_sidecar.due import iso
from kerberos_sidecar.lockout import check_refused
from kerberos_sidecar.publish import Staging, look
from kerberos_sidecar.request import acquire, prepare
from kerberos_sidecar.settings import (
    CHART_NAMES,
    PREFIX,
    Settings,
    changed,
    load_settings,
)
from sidecar_runtime import __version__
from sidecar_runtime.app import begin_logs, run_daemon
from sidecar_runtime.checks import daemon, exit_code, fail, say, unknown
from sidecar_runtime.errors import SidecarError, explain
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import About
from sidecar_runtime.usage import make_parser

# The time between cycles that run without a cause, as a heartbeat.
HEARTBEAT_SECONDS = 40.0
# What a cycle has beyond the requests of all its principals: then its volume hangs.
VOLUME_SECONDS = 10.0


def consumer(text: str) -> tuple[int, int]:
    """
    Parse the uid and the group of a consumer.

    Raises:
        argparse.ArgumentTypeError: They are not two numbers.
    """
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not UID:GID such as 50000:0")
    return int(found[1]), int(found[2])


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
    metrics = KerberosMetrics(
        __version__,
        os.environ.get("SIDECAR_REVISION", "unknown"),
        is_read=not settings.one_shot,
    )
    sidecar = KerberosSidecar(settings, metrics)
    # INTERVAL is the time between tickets, and TIMEOUT that of one request.
    seconds = settings.timeout_seconds * len(settings.entries) + VOLUME_SECONDS
    looping = dataclasses.replace(
        settings, interval_seconds=HEARTBEAT_SECONDS, timeout_seconds=seconds
    )
    shown = changed(os.environ)
    about = About(
        "kerberos", __version__, settings.source, settings.target, settings=shown
    )
    return run_daemon(sidecar, looping, about, metrics, watch=sidecar.watch)


def run_checks(settings: Settings, names: Iterable[str], who: tuple[int, int]) -> int:
    """
    Run all checks, print a line for each, and return the exit code.

    Args:
        names: Variables with our prefix that are not settings.
        who: The uid and the group of a consumer.
    """
    print(f"kerberos-sidecar check: {settings.source} -> {settings.target}")
    unknown(names)
    results = []
    for entry in settings.entries:
        account = Account(entry, settings)
        results += [_check(settings, account), _is_readable(account, who)]
    results.append(daemon(settings.http_bind))
    return exit_code(results)


def _check(settings: Settings, account: Account) -> bool:
    """
    Acquire a ticket without publishing it: only a request proves that a keytab works.

    Refused keys count together with the daemon's tries, because people run `check`
    repeatedly.
    """
    try:
        with Staging(account.entry, Fence()) as staging:
            say(
                "ok",
                "ccache",
                f"{account.entry.ccache} is writable as uid {os.getuid()}",
            )
            found = look(account.entry, staging.group)
            if found.published_at is not None:
                problem = found.problem_at(time.time(), account.entry.principal)
                until = (
                    f"is valid until {iso(found.ticket.ends_at)}"
                    if found.ticket
                    else ""
                )
                say("??" if problem else "ok", "", f"it {problem or until}")
            keytab = prepare(account, settings, staging)
            text = (
                f"{keytab.path}: {keytab.principal}, kvno {keytab.kvno} ({keytab.held})"
            )
            say("ok", "keytab", text)
            check_refused(keytab, settings)
            _, ticket = acquire(keytab, settings, staging)
    except (SidecarError, OSError) as error:
        known = explain(error)
        return fail(known.reason.partition("_")[0], known)
    offset = f"its clock is {ticket.clock_offset_seconds:+.0f} s off this node's"
    say("ok", "KDC", f"issued a ticket, valid until {iso(ticket.ends_at)}; {offset}")
    return True


def _is_readable(account: Account, who: tuple[int, int]) -> bool:
    """
    Check whether a consumer may enter the ccache's folder and read the ccache, by their
    modes.
    """
    entry = account.entry
    folder = os.path.dirname(entry.ccache)
    if account.group is None:
        return False  # reported above
    found, (uid, gid), name = os.stat(folder), who, f"uid {who[0]} with group {who[1]}"
    there = (
        folder,
        stat.S_IMODE(found.st_mode),
        found.st_uid,
        found.st_gid,
        stat.S_IXOTH,
    )
    # The system may refuse the folder's group.
    file = (entry.ccache, entry.mode, os.getuid(), account.group, stat.S_IROTH)
    for path, mode, owner, group, bit in (there, file):
        shift = 6 if uid == owner else 3 if gid == group else 0
        if uid and not mode >> shift & bit:
            text = f"{path} has mode {mode:04o}, uid {owner}, group {group}"
            say("FAIL", "consumer", f"{name} cannot read it: {text}")
            say(
                "",
                "",
                "Set the pod's fsGroup or KERBEROS_CCACHE_MODE, or another --consumer.",
            )
            return False
    say("ok", "consumer", f"{name} can read it")
    return True
