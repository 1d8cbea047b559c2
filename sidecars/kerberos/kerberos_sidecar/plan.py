"""
Decides what is to be done for one principal now; if nothing, until when, and why. Pure.
"""

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from kerberos_sidecar.formats import Principal, Ticket
from kerberos_sidecar.reasons import COUNTED
from sidecar_runtime.errors import SidecarError

Cause = Literal[
    "start",
    "missing",
    "damaged",
    "taken",
    "asked",
    "keytab_changed",
    "clock_set",
    "half_life",
    "interval",
]

# How far the clock may be set without a new ticket: services tolerate five minutes in
# total.
CLOCK_STEP_SECONDS = 60.0

# Keeps a fleet whose tickets expire together from flooding the KDCs in the last
# seconds.
RETRY_FLOOR_SECONDS = 1.0

# A ccache that another process has taken is not taken back sooner after our last one.
CONTEST_SECONDS = 60.0


# --- what is known


class Clock(NamedTuple):
    """
    One moment: seconds of the monotonic clock, and Unix time.
    """

    at: float
    now: float

    @classmethod
    def read(cls) -> "Clock":
        return cls(time.monotonic(), time.time())


@dataclass(frozen=True, slots=True)
class Found:
    """
    The state of a ccache on the volume.

    Args:
        ticket: ``None`` if the ccache is missing or unusable.
        published_at: Unix time; ``None`` if the file cannot be found.
        problem: Why the file is invalid or unreadable for consumers; empty if it is
            neither.
        holder: The uid and group of a file that only its mode or group makes
            unreadable.
    """

    ticket: Ticket | None = None
    published_at: float | None = None
    problem: str = ""
    holder: str = ""

    def why_unusable_at(self, now: float, principal: Principal | None) -> str:
        """
        Return why consumers cannot use the ccache at a Unix time; empty if they can.

        Args:
            principal: The owner that it must have; ``None`` accepts any.
        """
        if self.problem or self.ticket is None:
            return self.problem
        owner = self.ticket.principal
        if principal and not (owner.is_named(principal) or owner.resembles(principal)):
            return f"belongs to {owner}, not to {principal}"
        if self.ticket.ends_at <= now:
            return (
                f"contains a ticket that expired {now - self.ticket.ends_at:.0f} s ago"
            )
        return ""


@dataclass(frozen=True, slots=True)
class Acquired:
    """
    The last ticket that this process acquired for an entry.

    Args:
        at: Seconds of the monotonic clock.
        keytab: The stamp of the keytab then.
        wait_seconds: The time from `at` until a new ticket is due; `cause` is why.
        zero_at: The Unix time at which the monotonic clock was 0, by the clock at the
            request.
    """

    ticket: Ticket
    at: float
    keytab: str
    wait_seconds: float
    cause: Cause
    zero_at: float


class Tried(NamedTuple):
    """
    What the success of a try depends on, as far as it is seen.

    Args:
        keytab: Its stamp.
        problem: What was wrong with the ccache.
    """

    keytab: str
    problem: str


@dataclass(frozen=True, slots=True)
class Failed:
    """
    The last failure of an entry.

    Args:
        count: How many in a row.
        tried: Once that changes, the next try need not wait.
        retry_at: Seconds of the monotonic clock.
    """

    error: SidecarError
    count: int
    tried: Tried
    retry_at: float


@dataclass(frozen=True, slots=True)
class State:
    """
    What cycles leave to the next one; replaced as a whole.

    Args:
        is_asked_for: Whether SIGHUP requested a new ticket that has not been published
            yet.
    """

    last: Acquired | None = None
    failed: Failed | None = None
    is_asked_for: bool = False


# --- what is decided


class Work(NamedTuple):
    """
    Acquire a ticket now.
    """

    cause: Cause


class Wait(NamedTuple):
    """
    A ticket is due, but the last try failed: the next one is at `until`, in monotonic
    seconds.
    """

    until: float


class Done(NamedTuple):
    """
    The ccache is good, whoever published it: nothing is to be done until then, in
    monotonic seconds.
    """

    until: float


Plan = Work | Wait | Done


def decide(state: State, found: Found, keytab: str, clock: Clock) -> Plan:
    """
    Return what is to be done for an entry.

    Args:
        found: Its ccache at the last look.
        keytab: The stamp of its keytab at the last look.
    """
    last = state.last
    cause: Cause = "start"
    if last:
        due = cause_of(last, found, keytab, clock, state.is_asked_for)
        if due is None:
            # After a failure, another process has published it: a cycle notes that.
            return Done(clock.at if state.failed else last.at + last.wait_seconds)
        cause = due
    failed = state.failed
    if failed and clock.at < failed.retry_at:
        # A changed keytab or ccache may be what the last try lacked; no ccache makes a
        # KDC accept a key that it has refused, and consumers may change it.
        problem = found.problem
        if failed.error.reason in COUNTED:
            problem = failed.tried.problem
        if failed.tried == (keytab, problem):
            return Wait(failed.retry_at)
    return Work(cause)


def cause_of(
    last: Acquired, found: Found, keytab: str, clock: Clock, is_asked_for: bool
) -> Cause | None:
    """
    Return why a ticket is due after the last one; ``None`` if none is.
    """
    if found.published_at is None:
        return "missing"
    if found.problem or found.ticket is None:
        return "damaged"
    if not found.ticket.principal.resembles(last.ticket.principal):
        return "taken"
    if is_asked_for:
        return "asked"
    if keytab != last.keytab:
        return "keytab_changed"
    # Consumers add the offset in the ccache to our clock, but it was measured before
    # the clock was set. A suspended machine looks the same, because its monotonic clock
    # stops.
    if abs(clock.now - clock.at - last.zero_at) > CLOCK_STEP_SECONDS:
        return "clock_set"
    if clock.at - last.at >= last.wait_seconds:
        return last.cause
    # Another process published a shorter ticket. Halve the life that was left at its
    # publication: with a slow KDC clock, half of a ticket's full life may already be
    # over. A file server's clock decides when that was, so the rule does not apply to
    # our own ticket.
    half_at = (found.published_at + found.ticket.ends_at) / 2
    if found.ticket != last.ticket and clock.now >= half_at:
        return "half_life"
    return None


def owner_of(cause: Cause, found: Found, ours: Principal | None) -> str:
    """
    Return who took the ccache: another principal, or after us a uid whose file
    consumers cannot read; empty if nobody did.
    """
    if cause == "damaged":
        return found.holder
    ticket = found.ticket
    if cause not in ("start", "taken") or ticket is None or ours is None:
        return ""
    return "" if ticket.principal.resembles(ours) else str(ticket.principal)


# --- when again


def wait_after(
    ticket: Ticket, now: float, interval_seconds: float, draw: float
) -> tuple[float, Cause]:
    """
    Return the seconds until a new ticket is due, up to a tenth earlier at random, and
    the cause.

    Args:
        now: Unix time.
        draw: A random number from 0 to 1.
    """
    half_seconds = (ticket.ends_at - now) / 2
    wait_seconds = min(interval_seconds, half_seconds)
    cause: Cause = "interval" if interval_seconds < half_seconds else "half_life"
    return wait_seconds - draw * wait_seconds / 10, cause


def retry_within(ticket: Ticket | None, now: float) -> float:
    """
    Return the longest wait before a retry, in seconds; infinite without a valid ticket.

    It is a quarter of the ticket's remaining life, to notice in time that a KDC has
    recovered.

    Args:
        now: Unix time.
    """
    left_seconds = ticket.ends_at - now if ticket else 0.0
    return max(RETRY_FLOOR_SECONDS, left_seconds / 4) if left_seconds > 0 else math.inf


def iso(moment: float) -> str:
    """
    Return a Unix time as ISO 8601 text, in UTC.
    """
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
