"""
``kerberos-sidecar check``: tries everything the daemon needs, and reports what to fix and how.
"""

from __future__ import annotations

import argparse
import os
import re
import stat
import time
from collections.abc import Iterable

from kerberos_sidecar.account import Account, iso
from kerberos_sidecar.due import window_wait
from kerberos_sidecar.keytab import Keytab, Source
from kerberos_sidecar.krb5_conf import check_config, check_enctypes, site_paths
from kerberos_sidecar.principal import Principal
from kerberos_sidecar.publish import Refused, Staging
from kerberos_sidecar.reasons import failure, is_refused_key
from kerberos_sidecar.request import Request, acquire
from kerberos_sidecar.settings import Entry, Settings
from sidecar_runtime.checks import daemon, exit_code, fail, say, unknown
from sidecar_runtime.errors import SidecarError, explain
from sidecar_runtime.fence import Fence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Add the arguments of this command.
    """
    parser.add_argument(
        "--consumer",
        type=consumer,
        default=(50000, 0),
        metavar="UID:GID",
        help="who must be able to read the ccaches (default: 50000:0, as in the chart)",
    )


def consumer(text: str) -> tuple[int, int]:
    """
    Parse ``UID:GID``.

    Raises:
        ValueError: The text has another form.
    """
    match = re.fullmatch(r"(\d{1,10}):(\d{1,10})", text)
    if match is None:
        raise ValueError("is not UID:GID")
    return int(match[1]), int(match[2])


def run(settings: Settings, names: Iterable[str], who: tuple[int, int]) -> int:
    """
    Run all checks, print a line for each, and return the exit code.

    Args:
        names: Variables with our prefix that are not settings.
        who: The uid and the group of a consumer.
    """
    print(f"kerberos-sidecar check: {settings.source} -> {settings.target}")
    unknown(names)
    try:
        check_config(settings)
        there = [path for path in site_paths(settings) if os.path.exists(path)]
        say("ok" if there else "??", "krb5.conf", ":".join(there) or "none: DNS must name KDCs")
        results = [True]
    except SidecarError as error:
        results = [fail("krb5.conf", error)]
    ccaches = [entry.ccache for entry in settings.entries]
    refused = Refused(ccaches)
    for entry in settings.entries:
        source = Source(entry.keytab, settings.keytab_dir, ccaches)
        results.append(_check(settings, Account(entry, source), refused))
        results.append(_is_readable(entry, who))
    results.append(daemon("kerberos", settings.source, settings.http_bind))
    return exit_code(results)


def _check(settings: Settings, account: Account, refused: Refused) -> bool:
    """
    Acquire a ticket without publishing it: only a request proves that a keytab works.

    Refused keys count together with the daemon's tries, because people run `check` repeatedly.
    """
    entry, name = account.entry, "ccache"
    try:
        with Staging(entry.ccache, entry.mode, Fence()) as staging:
            say("ok", name, f"{entry.ccache} is writable as uid {os.getuid()}")
            account.published.group = staging.group
            _say_published(account)
            name = "keytab"
            keytab = account.source.read()
            principal = keytab.select(entry.principal)
            check_enctypes(settings, keytab, principal)
            _say_keys(keytab, principal)
            name = "KDC"
            _check_refused(settings, refused, keytab.stamp_of(principal), principal)
            try:
                request = Request(principal, keytab, settings, staging.scratch)
                _, ticket = acquire(request, Fence())
            except SidecarError as error:
                if is_refused_key(error):
                    refused.note(keytab.stamp_of(principal), time.time())
                raise
    except (SidecarError, OSError) as error:
        return fail(name, explain(error))
    offset = f"its clock is {ticket.clock_offset_seconds:+.0f} s off this node's"
    say("ok", name, f"issued a ticket, valid until {iso(ticket.ends_at)}; {offset}")
    return True


def _say_published(account: Account) -> None:
    account.look()
    found = account.found
    if found.published_at is not None:
        problem = found.problem_at(time.time(), account.entry.principal)
        until = f"is valid until {iso(found.ticket.ends_at)}" if found.ticket else ""
        say("??" if problem else "ok", "", f"it {problem or until}")


def _say_keys(keytab: Keytab, principal: Principal) -> None:
    newest = keytab.newest_of(principal)
    types = ", ".join(key.enctype_name for key in newest)
    say("ok", "keytab", f"{keytab.path}: {principal}, kvno {newest[0].kvno} ({types})")


def _check_refused(settings: Settings, refused: Refused, keys: str, principal: Principal) -> None:
    refused_at = refused.at(keys)
    if refused_at is None:
        return
    if seconds := window_wait(refused_at, time.time(), settings.lockout_window_seconds):
        text = f"the KDC has refused the key of {principal}; it is not tried again before "
        raise failure("keytab_stale", text + iso(time.time() + seconds))


def _is_readable(entry: Entry, who: tuple[int, int]) -> bool:
    """
    Check whether a consumer may enter the ccache's folder and read the ccache, by their modes.
    """
    folder = os.path.dirname(entry.ccache)
    try:
        found = os.stat(folder)
    except OSError:
        return False  # reported above
    file = (entry.mode, os.getuid(), found.st_gid)
    for path, (mode, uid, gid), bit in (
        (folder, (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid), 1),
        (entry.ccache, file, 4),
    ):
        shift = 6 if uid == who[0] else 3 if gid == who[1] else 0
        if who[0] and not mode >> shift & bit:
            say("FAIL", "consumer", f"uid {who[0]} with group {who[1]} cannot read it: {path} has "
                f"mode {mode:04o}, uid {uid}, group {gid}")  # fmt: skip
            say("", "", "Set the pod's fsGroup or KERBEROS_CCACHE_MODE, or another --consumer.")
            return False
    say("ok", "consumer", f"uid {who[0]} with group {who[1]} can read it")
    return True
