"""
The command ``check``: tries everything the daemon needs, and reports what to fix and
how.
"""

import argparse
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from kerberos_sidecar.account import Account
from kerberos_sidecar.plan import iso
from kerberos_sidecar.publish import Staging
from kerberos_sidecar.request import acquire, prepare
from kerberos_sidecar.settings import Entry, Settings
from sidecar_runtime.checks import Checks
from sidecar_runtime.errors import SidecarError, explain
from sidecar_runtime.fence import Fence


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


def run_checks(settings: Settings, names: Iterable[str], who: tuple[int, int]) -> int:
    """
    Run all checks, print a line for each, and return the exit code.

    Args:
        names: Variables with our prefix that are not settings.
        who: The uid and the group of a consumer.
    """
    print(f"kerberos-sidecar check: {settings.source} -> {settings.target}")
    checks = Checks(names)
    for entry in settings.entries:
        _check(checks, settings, entry, who)
    checks.daemon(settings.http_bind)
    return checks.exit_code


def _check(
    checks: Checks, settings: Settings, entry: Entry, who: tuple[int, int]
) -> None:
    """
    Acquire a ticket without publishing it: only a request proves that a keytab works.
    After a fault, all is tried that does not need what is at fault.

    Refused keys count together with the daemon's tries, because people run `check`
    repeatedly; so without the folder that remembers them, no KDC is asked.
    """
    account = Account(entry, settings)
    keytab = None
    with _going_on(checks):
        keytab = prepare(account, settings)
        checks.ok(
            "keytab",
            f"{keytab.path}: {keytab.principal}, kvno {keytab.kvno} ({keytab.held})",
        )
    with _going_on(checks), Staging(entry, Fence()) as staging:
        checks.ok("ccache", f"{entry.ccache} is writable as uid {os.getuid()}")
        _check_reader(checks, entry.ccache, staging.made, who)
        account.group = staging.made.st_gid
        account.look()
        problem = account.problem()
        if problem:
            checks.say("??", "ticket", problem)
        else:
            checks.ok(
                "ticket",
                f"{entry.ccache} is valid until {account.details()['ends_at']}",
            )
        if keytab is not None:
            with _going_on(checks, "KDC"):
                _, ticket = acquire(keytab, settings, staging)
                checks.ok(
                    "KDC",
                    f"issued a ticket, valid until {iso(ticket.ends_at)}; its clock is "
                    f"{ticket.clock_offset_seconds:+.0f} s off this node's",
                )


@contextmanager
def _going_on(checks: Checks, step: str = "") -> Iterator[None]:
    """
    Report a failure, and go on.

    Args:
        step: What failed; empty: as the reason begins.
    """
    try:
        yield
    except (SidecarError, OSError) as error:
        known = explain(error)
        checks.fail(step or known.reason.partition("_")[0], known)


def _check_reader(
    checks: Checks, ccache: str, made: os.stat_result, who: tuple[int, int]
) -> None:
    """
    Check whether a consumer may enter the ccache's folder and read the ccache, by their
    modes.

    Args:
        made: A new ccache, as the system made it.
    """
    name = f"uid {who[0]} with group {who[1]}"
    folder = os.path.dirname(ccache)
    wrong = _refusal(folder, os.stat(folder), who, stat.S_IXOTH) or _refusal(
        ccache, made, who, stat.S_IROTH
    )
    if not wrong:
        checks.ok("consumer", f"{name} can read it")
        return
    checks.say("FAIL", "consumer", f"{name} cannot read it: {wrong}")
    checks.add("Set the pod's fsGroup or KERBEROS_CCACHE_MODE, or another --consumer.")


def _refusal(path: str, found: os.stat_result, who: tuple[int, int], bit: int) -> str:
    """
    Return why the system refuses a consumer; empty if it does not.

    Args:
        bit: What it wants, as the mode's bit for others.
    """
    shift = 0
    if who[0] == found.st_uid:
        shift = 6
    elif who[1] == found.st_gid:
        shift = 3
    if who[0] == 0 or found.st_mode >> shift & bit:
        return ""
    mode = stat.S_IMODE(found.st_mode)
    return f"{path} has mode {mode:04o}, uid {found.st_uid}, group {found.st_gid}"
