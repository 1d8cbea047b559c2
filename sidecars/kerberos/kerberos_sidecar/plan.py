"""
What is due, and why: pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kerberos_sidecar.formats.ccache import Ticket
from kerberos_sidecar.formats.principal import Principal
from kerberos_sidecar.source import Stamp

Cause = Literal[
    "start", "missing", "damaged", "taken", "keytab_changed", "asked", "half_life", "interval"
]

# A fleet whose tickets end together must not become a storm in their last seconds.
RETRY_FLOOR_SECONDS = 1.0

# Tries with the same refused keys before a pause, and how near the end of a ticket, as a share of
# the lockout window, one more is worth its risk.
TRIES = 2
LAST_TRY_SHARE = 1 / 6
# What a pause has beyond the window: a KDC goes by its own clock, by whole seconds, and MIT's still
# counts a failure that is exactly as old as its window.
PAUSE_MORE_SHARE, PAUSE_MORE_SECONDS = 1 / 30, 2.0

# After a ccache was retaken: the first pause before the next time, the longest, and how long each
# time counts.
CONTEST_PAUSE_SECONDS = 15.0
CONTEST_CAP_SECONDS = 600.0
CONTEST_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Found:
    """
    What is on the volume at the place of a ccache.

    Args:
        ticket: ``None`` where there is no ccache, or no good one.
        published_at: Unix time; ``None`` where there is no file.
        problem: What is wrong with it, or who cannot read it; empty where nothing is.
    """

    ticket: Ticket | None = None
    published_at: float | None = None
    problem: str = ""

    def problem_at(self, now: float, principal: Principal | None) -> str:
        """
        Return why consumers cannot use it at a Unix time; empty where they can.

        Args:
            principal: Whose it must be; ``None`` for anybody's.
        """
        if self.problem or self.ticket is None:
            return self.problem
        owner = self.ticket.principal
        if principal and not (owner.is_named(principal) or owner.resembles(principal)):
            return f"is of {owner}, not of {principal}"
        if self.ticket.ends_at <= now:
            return f"holds a ticket that ended {now - self.ticket.ends_at:.0f} s ago"
        return ""


@dataclass(frozen=True, slots=True)
class Acquired:
    """
    The last ticket that this process acquired for an entry.

    Args:
        at: Seconds of the monotonic clock.
        keytab: What the keytab was like then.
        wait_seconds: When it is due again, after that, and why.
    """

    ticket: Ticket
    at: float
    keytab: Stamp
    wait_seconds: float
    cause: Cause


def wait_after(
    ticket: Ticket, now: float, interval_seconds: float, jitter_seconds: float | None, draw: float
) -> tuple[float, Cause]:
    """
    Return after how many seconds a new ticket is due, and why then.

    Args:
        now: Unix time.
        jitter_seconds: How much earlier at most; ``None``: a tenth of the time.
        draw: A random number from 0 to 1.
    """
    half_seconds = (ticket.ends_at - now) / 2
    wait_seconds = min(interval_seconds, half_seconds)
    cause: Cause = "interval" if interval_seconds < half_seconds else "half_life"
    jitter = wait_seconds / 10 if jitter_seconds is None else jitter_seconds
    return wait_seconds - draw * min(jitter, wait_seconds / 2), cause


def cause_of(
    last: Acquired | None, found: Found, keytab: Stamp, *, is_asked_for: bool, at: float, now: float
) -> Cause | None:
    """
    Return why an entry is due; ``None`` where it is not.

    Args:
        last: What this process acquired for it last; ``None`` at first.
        keytab: What the keytab is like now.
        at: Seconds of the monotonic clock.
        now: Unix time.
    """
    if last is None:
        return "start"
    if found.published_at is None:
        return "missing"
    if found.problem or found.ticket is None:
        return "damaged"
    if found.ticket.principal != last.ticket.principal:
        return "taken"
    if is_asked_for:
        return "asked"
    if keytab != last.keytab:
        return "keytab_changed"
    if at - last.at >= last.wait_seconds:
        return last.cause
    # It came from elsewhere, with less life left; or our clock was set. Half of what was left when
    # it was published: a KDC that is behind gives tickets whose first half is over already.
    if now >= (found.published_at + found.ticket.ends_at) / 2:
        return "half_life"
    return None


@dataclass(frozen=True, slots=True)
class Failed:
    """
    The last failure of an entry.

    Args:
        keytab: What the keytab was like then.
        was_lost: Whether there was nothing of use on the volume.
        retry_at: Seconds of the monotonic clock.
    """

    keytab: Stamp
    was_lost: bool
    retry_at: float

    def holds(self, keytab: Stamp, *, is_lost: bool, at: float) -> bool:
        """
        Whether nothing has changed that makes it worth another try before its time.
        """
        return at < self.retry_at and keytab == self.keytab and (self.was_lost or not is_lost)


def lockout_wait(
    refused_at: Sequence[float], now: float, window_seconds: float, ends_at: float | None
) -> float:
    """
    Return after how many seconds keys that the KDC has refused may be tried again.

    A policy counts failures until none has come for its window, so tries spread over time add up:
    two come together, then none for a whole window and a little more. A third only when the ticket
    is about to end.

    Args:
        refused_at: Unix times, in order, none after `now`.
        ends_at: When the published ticket ends; ``None`` without one.
    """
    if not window_seconds:
        return 0.0
    pause_seconds = window_seconds + max(PAUSE_MORE_SECONDS, window_seconds * PAUSE_MORE_SHARE)
    counted = 0
    later = now
    for moment in reversed(refused_at):
        if later - moment >= pause_seconds:
            break
        counted, later = counted + 1, moment
    if counted < TRIES:
        return 0.0
    wait_seconds = refused_at[-1] + pause_seconds - now
    if counted == TRIES and ends_at is not None and ends_at > now:
        wait_seconds = min(wait_seconds, ends_at - window_seconds * LAST_TRY_SHARE - now)
    return max(0.0, wait_seconds)


def contest_wait(retaken_at: Sequence[float], at: float) -> float:
    """
    Return after how many seconds a ccache that another principal's sidecar took may be retaken.

    At once the first time: it was a ``kinit``. Two sidecars would take it from each other forever.

    Args:
        retaken_at: Moments of the monotonic clock, in order.
    """
    count = sum(at - moment < CONTEST_SECONDS for moment in retaken_at)
    if not count:
        return 0.0
    pause_seconds = min(CONTEST_PAUSE_SECONDS * float(2 ** (count - 1)), CONTEST_CAP_SECONDS)
    return max(0.0, retaken_at[-1] + pause_seconds - at)


def retry_within(ticket: Ticket | None, now: float) -> float:
    """
    Return after how many seconds a failure is tried again at the latest; infinite without a ticket.

    That is a quarter of what is left of it: a KDC that comes back before its end is found in time.

    Args:
        now: Unix time.
    """
    left_seconds = ticket.ends_at - now if ticket else 0.0
    return max(RETRY_FLOOR_SECONDS, left_seconds / 4) if left_seconds > 0 else math.inf
