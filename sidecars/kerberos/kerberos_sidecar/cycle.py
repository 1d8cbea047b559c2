"""
The sidecar that the loop runs. One cycle: for each principal, due? → keytab → child →
verify → publish → note.
"""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from kerberos_sidecar import due
from kerberos_sidecar.account import Account, KerberosMetrics, State
from kerberos_sidecar.due import Acquired, Cause, Failed, iso
from kerberos_sidecar.lockout import check_refused
from kerberos_sidecar.publish import Staging
from kerberos_sidecar.reasons import failure, is_outage, together
from kerberos_sidecar.request import acquire, prepare
from kerberos_sidecar.settings import Settings
from sidecar_runtime.errors import SidecarError, explain
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.health import Outcome, Readiness
from sidecar_runtime.logs import get_logger
from sidecar_runtime.loop import backoff_seconds

# How often to look at keytabs and ccaches, and the shortest time between two looks.
LOOK_SECONDS = 5.0
PAUSE_SECONDS = 0.2

log = get_logger("cycle")


class KerberosSidecar:
    """
    The kerberos sidecar, for the whole process.

    Cycles decide and act, in one thread. Another thread looks at the volumes, keeps
    what `readiness` answers up to date, and wakes the loop when a cycle would have
    something to do: it may wait for a dead volume, or a cycle for a silent KDC, and
    HTTP and signals for neither.
    """

    def __init__(self, settings: Settings, metrics: KerberosMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._accounts = [Account(entry, settings) for entry in settings.entries]
        self._is_busy = False
        self._ended = threading.Event()
        # The realms of which no KDC answered in this cycle.
        self._silent: dict[str, SidecarError] = {}

    def begin(self) -> KerberosSidecar:
        return self

    def cycle(self, fence: Fence) -> Outcome:
        """
        Try each principal that is due, once.

        Raises:
            SidecarError: All failures of principals, an outage last, if one of them was
                tried in this cycle. Every published ccache stays.
            CycleAbandoned: The fence was revoked.
        """
        self._is_busy = True
        self._silent = {}
        try:
            return self._run(fence)
        finally:
            self._is_busy = False
            self._ended.set()

    def watch(self, wake: Callable[[], None]) -> None:
        """
        Start to look, with a function that requests a cycle; warn if readers of a
        ccache can also read its keytab.
        """
        for account in self._accounts:
            keytab, ccache = account.entry.keytab, account.entry.ccache
            folder = os.path.dirname(keytab) if keytab else self._settings.keytab_dir
            if os.path.realpath(os.path.dirname(ccache)) == os.path.realpath(folder):
                log.warning("keytab_exposed", folder=folder, ccache=ccache)
        threading.Thread(
            target=self._look, args=[wake], name="look", daemon=True
        ).start()

    def readiness(self) -> Readiness:
        """
        Return whether every ccache is valid now, no matter which process wrote it; from
        memory.
        """
        problems = [
            problem for account in self._accounts if (problem := account.problem())
        ]
        times = [account.found.published_at for account in self._accounts]
        said = "; ".join(problems)
        return Readiness(
            revision=revision(self._accounts),
            published_at=min((at for at in times if at is not None), default=None),
            problem=failure("ticket_missing", said) if said else None,
        )

    def details(self) -> dict[str, object]:
        """
        Return the facts about each ccache, by path.
        """
        return {account.entry.ccache: account.details() for account in self._accounts}

    def _run(self, fence: Fence) -> Outcome:
        # A refused key is tried again if SIGHUP says so, but once.
        counts_since = time.time() if fence.is_asked_for else -math.inf
        for account in self._accounts if fence.is_asked_for else ():
            with fence:
                account.ask()
        acquired, tried = 0, list[Account]()
        while (one := self._next(tried, fence)) is not None:
            tried.append(one)
            acquired += self._try(one, counts_since, fence)
        with fence:
            self._metrics.show(self._accounts)
        errors = [one.error for one in self._accounts if one.error]
        counts, name = {"tickets_acquired": acquired}, revision(self._accounts)
        if not errors or self._is_kept(errors):
            return Outcome("changed" if acquired else "unchanged", name, counts)
        told = together(errors)
        soonest = min(account.next_at for account in self._accounts) - time.monotonic()
        soonest = max(PAUSE_SECONDS, soonest)
        # An error that is only remembered is no further failure: it waits for its turn.
        if not any(one.error for one in tried):
            return Outcome(
                "waiting",
                name,
                counts if acquired else {},
                why=told,
                until=time.time() + soonest,
            )
        told.retry_within_seconds = told.retry_after_seconds = soonest
        raise told from min(errors, key=is_outage)

    def _next(self, tried: Sequence[Account], fence: Fence) -> Account | None:
        """
        Return the next principal that is due; those of a silent realm come last, so
        that it never delays the others twice in a row.
        """
        ready = []
        for account in self._accounts:
            account.look()
            if account.cause() is None:  # another process has published a good one
                with fence:
                    account.state = replace(account.state, failed=None)
            elif account not in tried and account.next_at <= time.monotonic():
                ready.append(account)
        silent = {
            one.realm for one in self._accounts if one.error and is_outage(one.error)
        }
        return min(ready, key=lambda one: one.realm in silent, default=None)

    def _try(self, account: Account, counts_since: float, fence: Fence) -> bool:
        """
        Acquire and publish a ticket, or note why that failed; return whether it
        succeeded.
        """
        cause, situation = account.cause() or "start", account.situation
        with fence:
            account.state = replace(account.state, tried_at=time.monotonic())
        try:
            self._acquire(account, cause, counts_since, fence)
        except CycleAbandoned:
            raise
        except Exception as error:  # noqa: BLE001 - the other principals are tried, whatever it is
            known = explain(error)
            # for the log
            known.__cause__ = known.__cause__ if known is error else error
            if is_outage(known):
                self._silent[account.realm] = known
            with fence:
                self._note(account, known, situation)
            return False
        finally:
            account.look()
        return True

    def _acquire(
        self, account: Account, cause: Cause, counts_since: float, fence: Fence
    ) -> None:
        """
        Raises:
            SidecarError: No ticket was published.
            CycleAbandoned: The fence was revoked.
        """
        entry, settings = account.entry, self._settings
        # First the volume: if it is full or read-only, no KDC is asked.
        has_published = account.state.last is not None
        with Staging(entry, fence, has_published=has_published) as staging:
            keytab = prepare(account, settings, staging)
            check_refused(keytab, settings, counts_since)
            owner = _check_contested(account)
            began, now = time.monotonic(), time.time()
            if silent := self._silent.get(account.realm):
                raise silent
            content, ticket = acquire(keytab, settings, staging)
            seconds = time.monotonic() - began
            staging.publish(content)
        wait_seconds, next_cause = due.wait_after(
            ticket, time.time(), settings.interval_seconds, random.random()
        )
        last = Acquired(
            ticket, time.monotonic(), str(keytab), wait_seconds, next_cause, now - began
        )
        with fence:
            account.state = State(last, tried_at=account.state.tried_at)
            self._metrics.record(keytab.principal, entry.ccache, seconds)
        facts = {"principal": str(keytab.principal), "ccache": entry.ccache}
        if owner:
            log.warning("ccache_taken", owner=owner, **facts)
        log.info(
            "ticket_acquired",
            cause=cause,
            kvno=account.kvno,
            ends_at=iso(ticket.ends_at),
            lifetime_seconds=ticket.lifetime_seconds,
            next_ticket_in_seconds=round(wait_seconds, 1),
            duration_seconds=round(seconds, 3),
            **facts,
        )

    def _note(self, account: Account, error: SidecarError, situation: str) -> None:
        """
        Note why a principal failed, and when it is tried again.
        """
        before = account.state.failed
        count = before.count + 1 if before else 1
        wait_seconds = error.retry_within_seconds
        if wait_seconds is None:
            wait_seconds = backoff_seconds(count, due.RETRY_FLOOR_SECONDS)
            wait_seconds = min(
                wait_seconds, due.retry_within(account.found.ticket, time.time())
            )
        retry_at = time.monotonic() + wait_seconds
        account.state = replace(
            account.state, failed=Failed(error, count, situation, retry_at)
        )

    def _is_kept(self, errors: Sequence[SidecarError]) -> bool:
        """
        Whether a one-shot is done although no KDC answers, because all tickets are
        still valid.
        """
        is_valid = not any(account.problem() for account in self._accounts)
        if (
            not self._settings.one_shot
            or not is_valid
            or not all(map(is_outage, errors))
        ):
            return False
        log.warning("ticket_kept", **errors[0].log_fields())
        return True

    def _look(self, wake: Callable[[], None]) -> None:
        while True:
            for account in self._accounts:
                account.look()
            self._metrics.show(self._accounts)
            wait_seconds = min(one.next_at for one in self._accounts) - time.monotonic()
            if not self._is_busy and wait_seconds <= 0:
                self._ended.clear()
                wake()
                wait_seconds = LOOK_SECONDS
            self._ended.wait(min(LOOK_SECONDS, max(PAUSE_SECONDS, wait_seconds)))
            self._ended.clear()


def _check_contested(account: Account) -> str:
    """
    Return who took the ccache, so that it is taken back; empty if nobody did.

    Raises:
        SidecarError: Another process took it less than a minute after we published.
    """
    owner = account.taken_by()
    last = account.state.last
    if owner and last:
        wait_seconds = last.at + due.CONTEST_SECONDS - time.monotonic()
        if wait_seconds > 0:
            text = (
                f"{account.entry.ccache} belongs to {owner}, right after it was "
                f"published for {account.principal}: another process publishes there"
            )
            raise failure("ccache_contested", text, wait_seconds=wait_seconds)
    return owner


def revision(accounts: Sequence[Account]) -> str:
    """
    Return when the first published ticket expires, as the name of this state.
    """
    ends = [ticket.ends_at for account in accounts if (ticket := account.found.ticket)]
    return f"until {iso(min(ends))}" if ends else ""
