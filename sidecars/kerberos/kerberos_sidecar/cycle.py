"""
One cycle: for each principal, due? → keytab → child → verify → publish → note.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace

from kerberos_sidecar.account import Account, iso
from kerberos_sidecar.ccache import Ticket
from kerberos_sidecar.due import (
    CONTEST_SECONDS,
    RETRY_FLOOR_SECONDS,
    Acquired,
    Cause,
    Failed,
    retry_within,
    wait_after,
    window_wait,
)
from kerberos_sidecar.keytab import Keytab
from kerberos_sidecar.krb5_conf import check_config, check_enctypes
from kerberos_sidecar.metrics import KerberosMetrics
from kerberos_sidecar.principal import Principal
from kerberos_sidecar.publish import Refused, Staging
from kerberos_sidecar.reasons import failure, is_outage, is_refused_key
from kerberos_sidecar.request import Request, acquire, hung
from kerberos_sidecar.settings import Settings
from sidecar_runtime.errors import SidecarError, explain
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.logs import get_logger
from sidecar_runtime.loop import backoff_seconds

RETRY_LEAST_SECONDS = 0.2

log = get_logger("cycle")


class Cycle:
    """
    Acquires tickets one after the other; all that outlives a cycle is in the accounts.

    Args:
        refused: The keys that the KDC refused.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: KerberosMetrics,
        accounts: Sequence[Account],
        refused: Refused,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._accounts = accounts
        self._refused = refused
        self._began_at = 0.0

    def run(self, fence: Fence) -> Outcome:
        """
        Try each principal that is due, once.

        Raises:
            SidecarError: The first failure, an outage last. The remaining principals were tried
                too, and every published ccache stays.
            CycleAbandoned: The fence was revoked.
        """
        self._began_at = time.time()
        if fence.is_asked_for:
            self._ask(fence)
        acquired, tried = 0, list[Account]()
        while (due := self._next(tried, fence)) is not None:
            tried.append(due)
            acquired += self._try(due, fence)
        with fence:
            self._metrics.show(self._accounts)
        errors = [one.state.failed.error for one in self._accounts if one.state.failed]
        if errors and not self._is_kept(errors):
            first = min(errors, key=is_outage)  # an outage ends on its own
            more = f"; {len(errors) - 1} more failed" if len(errors) > 1 else ""
            raise self._in_time(
                SidecarError(first.reason, first.message + more, first.advice)
            ) from first
        counts = {"tickets_acquired": acquired}
        return Outcome("changed" if acquired else "unchanged", revision(self._accounts), counts)

    def _ask(self, fence: Fence) -> None:
        """
        Make all tickets due, because of SIGHUP.
        """
        for account in self._accounts:
            failed = account.state.failed
            failed = replace(failed, retry_at=0.0) if failed else None
            with fence:
                account.state = replace(account.state, is_asked_for=True, failed=failed)

    def _next(self, tried: Sequence[Account], fence: Fence) -> Account | None:
        """
        Return the next principal that is due; those of a silent realm come last, so that it never
        delays the others twice in a row.
        """
        due = []
        for account in self._accounts:
            account.look()
            if account.cause() is None:  # another process has published a good one
                with fence:
                    account.state = replace(account.state, failed=None)
            elif account not in tried and not account.is_waiting():
                due.append(account)
        failed = [one for one in self._accounts if one.state.failed and one.state.principal]
        silent = {
            one.state.principal.realm
            for one in failed
            if one.state.principal and one.state.failed and is_outage(one.state.failed.error)
        }
        return min(due, key=lambda one: _realm(one) in silent, default=None)

    def _try(self, account: Account, fence: Fence) -> bool:
        """
        Acquire and publish a ticket, or note why that failed; return whether it succeeded.
        """
        cause, stamp = account.cause(), account.stamp
        assert cause is not None
        try:
            self._acquire(account, cause, fence)
        except CycleAbandoned:
            raise
        except Exception as error:  # noqa: BLE001 - each failure of a principal is only its own
            with fence:
                self._note(account, explain(error), stamp)
            return False
        finally:
            fence.blame = None
            account.look()
        return True

    def _acquire(self, account: Account, cause: Cause, fence: Fence) -> None:
        """
        Raises:
            SidecarError: No ticket was published.
            CycleAbandoned: The fence was revoked.
        """
        entry, zero_at = account.entry, time.time() - time.monotonic()
        # First the volume: it may be full or read-only, which no KDC needs to hear about.
        with Staging(entry.ccache, entry.mode, fence) as staging:
            keytab, principal = self._read_keytab(account, staging.group, fence)
            check_config(self._settings)
            check_enctypes(self._settings, keytab, principal)
            self._check_refused(account, keytab, principal, fence)
            owner = self._check_contested(account, principal, cause)
            fence.blame = self._in_time(hung(principal))
            began, stamp = time.monotonic(), keytab.stamp_of(principal)
            request = Request(principal, keytab, self._settings, staging.scratch)
            try:
                content, ticket = acquire(request, fence)
            except SidecarError as error:
                if is_refused_key(error):
                    self._refused.note(stamp, time.time())
                raise
            seconds = time.monotonic() - began
            staging.publish(content)
        with fence:
            if owner:
                taken = {"ccache": entry.ccache, "owner": owner, "principal": str(principal)}
                log.warning("ccache_taken", **taken)
                account.state = replace(account.state, retaken_at=time.monotonic())
            self._refused.clear(principal)
            self._record(account, ticket, stamp, zero_at)
            self._metrics.record(account, seconds)
            self._tell(account, ticket, cause, seconds)

    def _read_keytab(self, account: Account, group: int, fence: Fence) -> tuple[Keytab, Principal]:
        """
        Read the keytab, and know from now on whose ccache is expected.
        """
        with fence:
            account.published.group = group
            account.state = replace(account.state, kvno=0)
        keytab = account.source.read()
        principal = keytab.select(account.entry.principal)
        known = account.state.principal if account.state.last else principal
        kvno = keytab.kvno_of(principal)
        with fence:
            account.state = replace(account.state, principal=known, keytab=keytab.path, kvno=kvno)
            self._metrics.show([account])
        account.look()  # an earlier process's ccache counts, whatever fails next
        return keytab, principal

    def _check_refused(
        self, account: Account, keytab: Keytab, principal: Principal, fence: Fence
    ) -> None:
        """
        Raises:
            SidecarError: The KDC has refused these keys, and more tries could lock the account.
        """
        refused_at = self._refused.at(keytab.stamp_of(principal))
        if refused_at is None or (fence.is_asked_for and refused_at < self._began_at):
            return
        window_seconds = self._settings.lockout_window_seconds
        if wait_seconds := window_wait(refused_at, time.time(), window_seconds):
            error = failure(
                "keytab_stale",
                f"the KDC has refused the key of {principal} (kvno {account.state.kvno}) in "
                f"{keytab.path}; it is not tried again before {iso(time.time() + wait_seconds)}",
            )
            error.retry_within_seconds = wait_seconds
            raise error

    @staticmethod
    def _check_contested(account: Account, principal: Principal, cause: Cause) -> str:
        """
        Return who took the ccache; empty if nobody did.

        Raises:
            SidecarError: Another process keeps taking it.
        """
        owner = account.found.taken_by(principal, cause, time.time())
        wait_seconds = account.state.retaken_at + CONTEST_SECONDS - time.monotonic()
        if owner and wait_seconds > 0:
            error = failure(
                "ccache_contested",
                f"{account.entry.ccache} belongs to {owner} again, after it was restored for "
                f"{principal}: another process publishes there",
            )
            error.retry_within_seconds = wait_seconds
            raise error
        return owner

    def _record(self, account: Account, ticket: Ticket, stamp: str, zero_at: float) -> None:
        """
        Note a published ticket, and when the next one is due.
        """
        wait_seconds, cause = wait_after(
            ticket, time.time(), self._settings.interval_seconds, random.random()
        )
        account.state = replace(
            account.state,
            principal=ticket.principal,
            last=Acquired(ticket, time.monotonic(), stamp, wait_seconds, cause, zero_at),
            failed=None,
            is_asked_for=False,
        )

    def _tell(self, account: Account, ticket: Ticket, cause: Cause, seconds: float) -> None:
        last = account.state.last
        assert last is not None
        log.info(
            "ticket_acquired",
            principal=account.name,
            ccache=account.entry.ccache,
            cause=cause,
            kvno=account.state.kvno,
            ends_at=iso(ticket.ends_at),
            lifetime_seconds=ticket.lifetime_seconds,
            next_ticket_in_seconds=round(last.wait_seconds, 1),
            duration_seconds=round(seconds, 3),
        )

    def _note(self, account: Account, error: SidecarError, stamp: str) -> None:
        """
        Note why a principal failed; with several principals, log each new reason once.
        """
        before = account.state.failed
        count = before.count + 1 if before else 1
        wait_seconds = error.retry_within_seconds
        if wait_seconds is None:
            wait_seconds = backoff_seconds(count, RETRY_FLOOR_SECONDS)
            wait_seconds = min(wait_seconds, retry_within(account.found.ticket, time.time()))
        retry_at = time.monotonic() + wait_seconds
        failed = Failed(error, count, stamp, account.is_lost, retry_at)
        account.state = replace(account.state, failed=failed)
        is_new = before is None or before.error.reason != error.reason
        if is_new and len(self._accounts) > 1:
            log.warning(
                "principal_failed",
                principal=account.name,
                ccache=account.entry.ccache,
                reason=error.reason,
                error=error.message,
                advice=error.advice,
            )

    def _in_time(self, error: SidecarError) -> SidecarError:
        """
        Return a failure with the time until the next principal is due.
        """
        soonest = min(account.next_at for account in self._accounts) - time.monotonic()
        error.retry_within_seconds = max(RETRY_LEAST_SECONDS, soonest)
        return error

    def _is_kept(self, errors: Sequence[SidecarError]) -> bool:
        """
        Whether a one-shot is done although no KDC answers, because all tickets are still valid.
        """
        is_valid = not any(account.problem() for account in self._accounts)
        if not self._settings.one_shot or not is_valid or not all(map(is_outage, errors)):
            return False
        for error in errors:
            log.warning(
                "ticket_kept", reason=error.reason, error=error.message, advice=error.advice
            )
        return True


def _realm(account: Account) -> str:
    return account.state.principal.realm if account.state.principal else ""


def revision(accounts: Sequence[Account]) -> str:
    """
    Return when the first published ticket expires, as the name of this state.
    """
    ends = [account.found.ticket.ends_at for account in accounts if account.found.ticket]
    return f"until {iso(min(ends))}" if ends else ""
