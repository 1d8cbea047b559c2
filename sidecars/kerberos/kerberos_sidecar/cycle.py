"""
The sidecar that the loop runs, and the story of a cycle: which principals are due →
volume → keytab → child → verify → publish → note.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from kerberos_sidecar import plan
from kerberos_sidecar.account import Account
from kerberos_sidecar.metrics import KerberosMetrics
from kerberos_sidecar.plan import Acquired, Cause, Clock, Done, Failed, State, Work, iso
from kerberos_sidecar.publish import Staging
from kerberos_sidecar.reasons import failure, is_outage, together
from kerberos_sidecar.request import acquire, prepare
from kerberos_sidecar.settings import Settings
from sidecar_runtime.errors import SidecarError, explain
from sidecar_runtime.fence import CycleAbandoned, Fence, waits_for
from sidecar_runtime.health import Outcome, Readiness, Result
from sidecar_runtime.logs import get_logger
from sidecar_runtime.loop import backoff_seconds

# How often to look at keytabs and ccaches.
LOOK_SECONDS = 5.0

# The shortest time between two cycles that SIGHUP did not ask for: other processes may
# damage a ccache in a loop.
FLOOR_SECONDS = 1.0

log = get_logger("cycle")


@dataclass
class Turn:
    """
    What one cycle has done so far.

    Args:
        untried: Each principal is tried once.
        silent: Why, by realm, no KDC of it answered.
    """

    fence: Fence
    untried: list[Account]
    silent: dict[str, SidecarError] = field(default_factory=dict)
    acquired: int = 0
    has_failed: bool = False


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

    def begin(self) -> "KerberosSidecar":
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
        try:
            turn = Turn(fence, [*self._accounts])
            for account in self._accounts:
                self._see(account, turn)
            # One after the other: each has its own deadline, and a KDC gets no burst.
            while due := self._next(turn):
                turn.untried.remove(due)
                self._try(due, turn)
            with fence:
                self._metrics.show(self._accounts)
            return self._conclude(turn)
        finally:
            self._is_busy = False

    def watch(self, wake: Callable[[], None]) -> None:
        """
        Start to look, with a function that requests a cycle; warn if readers of a
        ccache can also read its keytab.
        """
        for entry in self._settings.entries:
            folder = os.path.dirname(entry.keytab or f"{self._settings.keytab_dir}/")
            target = os.path.dirname(entry.ccache)
            if os.path.realpath(target) == os.path.realpath(folder):
                log.warning("keytab_exposed", folder=folder, ccache=entry.ccache)
        threading.Thread(
            target=self._look, args=[wake], name="look", daemon=True
        ).start()

    def readiness(self) -> Readiness:
        """
        Return whether every ccache is valid now, no matter which process wrote it; from
        memory.
        """
        said = "; ".join(filter(None, (one.problem() for one in self._accounts)))
        found = [one.found for one in self._accounts]
        times = [each.published_at or 0.0 for each in found if each.ticket]
        return Readiness(
            revision=revision(self._accounts),
            published_at=min(times, default=None),
            problem=failure("ticket_missing", said) if said else None,
        )

    def details(self) -> dict[str, object]:
        """
        Return the facts about each ccache, by path.
        """
        return {account.entry.ccache: account.details() for account in self._accounts}

    # --- one cycle

    def _see(self, account: Account, turn: Turn) -> None:
        _name_volumes(turn.fence, account)
        account.look()
        with turn.fence:
            if turn.fence.is_asked_for:
                account.ask()
            # Another process has published a good one: the failure is over.
            if isinstance(account.plan(), Done):
                account.state = replace(account.state, failed=None)

    def _next(self, turn: Turn) -> Account | None:
        """
        Return the next principal that is due; those of a silent realm come last, so
        that it delays the others by one try at most.
        """
        silent = {
            one.realm for one in self._accounts if one.error and is_outage(one.error)
        }
        last = None
        for account in turn.untried:
            if isinstance(account.plan(), Work):
                if account.realm not in silent:
                    return account
                last = last or account
        return last

    def _try(self, account: Account, turn: Turn) -> None:
        """
        Acquire and publish a ticket, or note why that failed.
        """
        _name_volumes(turn.fence, account)
        tried = plan.Tried(str(account.keytab), account.found.problem)
        try:
            self._acquire(account, turn)
        except CycleAbandoned:
            raise
        except Exception as error:  # noqa: BLE001 - the other principals are tried, whatever it is
            self._note(account, error, tried, turn)
        finally:
            account.look()

    def _acquire(self, account: Account, turn: Turn) -> None:
        """
        Raises:
            SidecarError: No ticket was published.
            CycleAbandoned: The fence was revoked.
        """
        settings = self._settings
        # First the volume: if it is full or read-only, no KDC is asked.
        with Staging(
            account.entry,
            turn.fence,
            has_published=account.state.last is not None,
        ) as staging:
            account.group = staging.made.st_gid
            keytab = prepare(account, settings)
            now_due = account.plan()
            if not isinstance(now_due, Work):  # another process was faster
                return
            owner = _check_contested(account, now_due.cause)
            # A principal of the same realm has just waited for it in vain.
            silent = turn.silent.get(account.realm)
            if silent:
                raise silent
            asked = Clock.read()
            content, ticket = acquire(keytab, settings, staging)
            seconds = time.monotonic() - asked.at
            staging.publish(content)
        wait_seconds, next_cause = plan.wait_after(
            ticket, time.time(), settings.interval_seconds, random.random()
        )
        last = Acquired(
            ticket=ticket,
            at=time.monotonic(),
            keytab=str(keytab),
            wait_seconds=wait_seconds,
            cause=next_cause,
            zero_at=asked.now - asked.at,
        )
        with turn.fence:
            account.state = State(last)
            self._metrics.record(account, seconds)
        turn.acquired += 1
        facts = {"principal": str(keytab.principal), "ccache": account.entry.ccache}
        if owner:
            log.warning("ccache_taken", owner=owner, **facts)
        log.info(
            "ticket_acquired",
            cause=now_due.cause,
            kvno=keytab.kvno,
            ends_at=iso(ticket.ends_at),
            lifetime_seconds=ticket.lifetime_seconds,
            next_ticket_in_seconds=round(wait_seconds, 1),
            duration_seconds=round(seconds, 3),
            **facts,
        )

    def _note(
        self, account: Account, error: Exception, tried: plan.Tried, turn: Turn
    ) -> None:
        """
        Note why a principal failed, and when it is tried again.
        """
        known = explain(error)
        if known is not error:
            known.__cause__ = error  # for the log
        turn.has_failed = True
        if is_outage(known):
            turn.silent[account.realm] = known
        before = account.state.failed
        count = before.count + 1 if before else 1
        wait_seconds = known.retry_within_seconds
        if wait_seconds is None:
            wait_seconds = min(
                backoff_seconds(count, plan.RETRY_FLOOR_SECONDS),
                plan.retry_within(account.found.ticket, time.time()),
            )
        failed = Failed(known, count, tried, time.monotonic() + wait_seconds)
        with turn.fence:
            account.state = replace(account.state, failed=failed)

    def _conclude(self, turn: Turn) -> Outcome:
        """
        Return how the cycle ends.

        Raises:
            SidecarError: As :meth:`cycle`.
        """
        errors = [one.error for one in self._accounts if one.error]
        name = revision(self._accounts)
        counts = {"tickets_acquired": turn.acquired}
        result: Result = "changed" if turn.acquired else "unchanged"
        done = Outcome(result, name, counts)
        if not errors:
            return done
        told = together(errors)
        # An init container must not block its pod because no KDC answers, while its
        # tickets are good.
        is_kept = all(map(is_outage, errors)) and self.readiness().ready
        if self._settings.one_shot and is_kept:
            log.warning("ticket_kept", **told.log_fields())
            return done
        wait_seconds = max(
            FLOOR_SECONDS, min(one.wait_seconds() for one in self._accounts)
        )
        # An error that is only remembered is no further failure: it waits for its turn.
        if not turn.has_failed:
            return Outcome(
                "waiting", name, counts, why=told, until=time.time() + wait_seconds
            )
        # Exactly then: each principal has had its own backoff.
        told.retry_within_seconds = wait_seconds
        told.retry_after_seconds = wait_seconds
        raise told from min(errors, key=is_outage)

    # --- between cycles

    def _look(self, wake: Callable[[], None]) -> None:
        while True:
            for account in self._accounts:
                account.look()
            self._metrics.show(self._accounts)
            wait_seconds = min(one.wait_seconds() for one in self._accounts)
            if wait_seconds <= 0 and not self._is_busy:
                wake()
            time.sleep(min(LOOK_SECONDS, max(FLOOR_SECONDS, wait_seconds)))


def _name_volumes(fence: Fence, account: Account) -> None:
    """
    Note what a cycle waits for, except while libkrb5 runs, in case that it hangs.
    """
    fence.step = waits_for(f"{account.entry.ccache}, {account.source} or krb5.conf")


def _check_contested(account: Account, cause: Cause) -> str:
    """
    Return who took the ccache, so that it is taken back; empty if nobody did.

    Raises:
        SidecarError: Another process took it less than a minute after we published.
    """
    owner = plan.owner_of(cause, account.found, account.principal)
    last = account.state.last
    if owner and last:
        wait_seconds = last.at + plan.CONTEST_SECONDS - time.monotonic()
        if wait_seconds > 0:
            raise failure(
                "ccache_contested",
                f"{account.entry.ccache} belongs to {owner}, right after it was "
                f"published for {account.principal}: another process publishes there",
                wait_seconds=wait_seconds,
            )
    return owner


def revision(accounts: Sequence[Account]) -> str:
    """
    Return when the first published ticket expires, as the name of this state.
    """
    ends = [ticket.ends_at for account in accounts if (ticket := account.found.ticket)]
    return f"until {iso(min(ends))}" if ends else ""
