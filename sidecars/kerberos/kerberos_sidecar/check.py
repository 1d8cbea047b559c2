"""
``kerberos-sidecar check``: tries everything the daemon needs, and reports what to fix and how.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from kerberos_sidecar.access import Consumer, consumer, obstacle
from kerberos_sidecar.entries import Entry
from kerberos_sidecar.formats.keytab import Key, Keytab, read_content, read_keytab
from kerberos_sidecar.formats.moment import iso
from kerberos_sidecar.formats.principal import Principal
from kerberos_sidecar.krb5.acquire import acquire_ticket
from kerberos_sidecar.krb5.kdcs import Kdcs
from kerberos_sidecar.krb5.overlay import SITE_CONFIG, check_config
from kerberos_sidecar.krb5.refusals import hung
from kerberos_sidecar.krb5.verify import verify
from kerberos_sidecar.published import Published
from kerberos_sidecar.refused import Refused, keys_of, refused_of
from kerberos_sidecar.settings import Settings
from kerberos_sidecar.source import Source
from kerberos_sidecar.staging import Staging
from sidecar_runtime.checks import daemon, exit_code, fail, say, unknown
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Add the arguments of this command.
    """
    parser.add_argument(
        "--consumer",
        type=consumer,
        default=Consumer(50000, 0),
        metavar="UID:GID",
        help="who must be able to read the ccaches (default: 50000:0, as in the chart)",
    )


def run(settings: Settings, names: Iterable[str], who: Consumer) -> int:
    """
    Run all checks, print a line for each, and return the exit code.

    Args:
        names: Variables with our prefix that are not settings.
    """
    print(f"kerberos-sidecar check: {settings.source} -> {settings.target}")
    unknown(names)
    results = [_config(settings)]
    ccaches = [entry.ccache for entry in settings.entries]
    refused: dict[str, Refused] = {}
    for entry in settings.entries:
        source = Source(entry, settings.keytab_dir, ccaches)
        results.append(_Checks(entry, source, who, settings, refused).run())
    results.append(daemon("kerberos", settings.source, settings.http_bind))
    return exit_code(results)


def _config(settings: Settings) -> bool:
    try:
        check_config(settings)
    except SidecarError as error:
        return fail("krb5.conf", error)
    site = settings.krb5_config or SITE_CONFIG
    there = any(map(os.path.exists, site.split(":")))
    say("ok" if there else "??", "krb5.conf", site if there else f"no {site}: DNS must name KDCs")
    return True


class _Checks:
    """
    The checks of one ccache.

    Args:
        refused: Refusals by account, because ccaches can share one.
    """

    def __init__(
        self,
        entry: Entry,
        source: Source,
        who: Consumer,
        settings: Settings,
        refused: dict[str, Refused],
    ) -> None:
        self._entry = entry
        self._source = source
        self._who = who
        self._settings = settings
        self._refused = refused
        self._kdcs = Kdcs()

    def run(self) -> bool:
        results = []
        with ExitStack() as stack:
            staging = Staging(self._entry.ccache, self._entry.mode, Fence())
            try:
                stack.enter_context(staging)
            except SidecarError as error:
                results.append(fail("ccache", error))
            else:
                self._say_writable(staging.group)
            results.append(self._ticket())
        results.append(self._consumer())
        return all(results)

    def _ticket(self) -> bool:
        """
        Acquire a ticket without publishing it: only a request proves that a keytab works.

        Refused keys count together with the daemon's tries, because people run `check` repeatedly.
        """
        try:
            keytab = read_keytab(self._source.find())
            principal = keytab.select(self._entry.principal)
            refused = refused_of(
                self._refused,
                principal,
                self._entry.ccache,
                self._settings.lockout_window_seconds,
            )
            refused.check(keytab, principal, None)
        except SidecarError as error:
            return fail("keytab", error)
        keys = [key for key in keytab.keys if key.principal == principal]
        kvno = keytab.kvno_of(principal)
        newest = [key for key in keys if key.kvno == kvno]
        types = ", ".join(key.enctype_name for key in newest)
        say("ok", "keytab", f"{keytab.path}: {principal}, kvno {kvno} ({types})")
        if len(newest) < len(keys):
            say("", "", f"and {len(keys) - len(newest)} older keys, which can be removed")
        if obstacle(keytab.path, self._who) == "":
            say("??", "", f"{self._who} could read it if it were mounted there")
        began = time.monotonic()
        try:
            content = self._acquire(principal, keytab)
            seconds = time.monotonic() - began
            ticket = verify(content, principal)
            offset = ticket.clock_offset_seconds
            text = f"issued a ticket in {seconds:.2f} s, valid until {iso(ticket.ends_at)}"
            say("ok", "KDC", f"{text}; its clock is {offset:+.0f} s off this node's")
        except SidecarError as error:
            if error.reason == "keytab_stale":
                refused.add(keys_of(keytab, principal), time.time())
            return fail("KDC", error)
        return self._keys(keytab, principal, newest)

    def _keys(self, keytab: Keytab, principal: Principal, newest: list[Key]) -> bool:
        """
        Try each key on its own, from a keytab in memory; return whether none is wrong.

        Stop at the first wrong key, because a policy may lock the account after a few failures.
        """
        content = read_content(keytab.path)
        for key in newest:
            fd = os.memfd_create("keytab")
            os.write(fd, content[:2] + content[key.start : key.end])
            alone = Keytab(f"/proc/self/fd/{fd}", (key,))
            try:
                self._acquire(principal, alone)
                say("ok", "key", f"{key.enctype_name}: the KDC accepts it")
            except SidecarError as error:
                if error.reason == "keytab_stale":
                    return fail("key", error)
                say("??", "key", f"{key.enctype_name}: {error.message}")
            finally:
                os.close(fd)
        return True

    def _acquire(self, principal: Principal, keytab: Keytab) -> bytes:
        """
        Acquire a ticket in a thread: in the main one, libkrb5 would block Ctrl-C for minutes.

        Raises:
            SidecarError: The acquisition failed, or took longer than the timeout.
        """
        settings, timeout_seconds = self._settings, self._settings.timeout_seconds
        asked = ThreadPoolExecutor(1).submit(
            acquire_ticket, principal, keytab, settings, self._kdcs
        )
        try:
            return asked.result(timeout_seconds)
        except TimeoutError:
            raise hung(principal, f" within {timeout_seconds:g} s") from None

    def _say_writable(self, group: int) -> None:
        path = self._entry.ccache
        free = shutil.disk_usage(os.path.dirname(path)).free >> 20
        say("ok", "ccache", f"{path} is writable as uid {os.getuid()}, {free} MiB free")
        published = Published(path, self._entry.mode)
        published.group = group
        found = published.look()
        if found.published_at is not None:
            problem = found.problem_at(time.time(), self._entry.principal)
            until = f"is valid until {iso(found.ticket.ends_at)}" if found.ticket else ""
            say("??" if problem else "ok", "", f"it {problem or until}")

    def _consumer(self) -> bool:
        """
        Check whether the consumer can read the ccache, given the same permissions in its mount.
        """
        path = self._entry.ccache
        try:
            group = os.stat(os.path.dirname(path)).st_gid
        except OSError:
            return False  # reported above
        found = obstacle(path, self._who, (self._entry.mode, os.getuid(), group))
        if not found:
            say("ok", "consumer", f"{self._who} can read it")
            return True
        say("FAIL", "consumer", f"{self._who} cannot read it: {found}")
        say("", "", "Set the pod's fsGroup or KERBEROS_CCACHE_MODE, or check another --consumer.")
        return False
