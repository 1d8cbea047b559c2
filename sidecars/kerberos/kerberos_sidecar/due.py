"""
Decides what is due, and why; pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from kerberos_sidecar.formats import Principal, Ticket
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

# The shortest time between two requests that SIGHUP did not ask for: other processes
# may damage a ccache in a loop.
FLOOR_SECONDS = 1.0

# How far the clock may be set without a new ticket: services tolerate five minutes in
# total.
CLOCK_STEP_SECONDS = 60.0

# Keeps a fleet whose tickets expire together from flooding the KDCs in the last
# seconds.
RETRY_FLOOR_SECONDS = 1.0

# A ccache that another process has taken is not taken back sooner after our last one.
CONTEST_SECONDS = 60.0


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

    def problem_at(self, now: float, principal: Principal | None) -> str:
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


def cause_of(
    last: Acquired | None,
    found: Found,
    keytab: str,
    *,
    is_asked_for: bool,
    at: float,
    now: float,
) -> Cause | None:
    """
    Return why an entry is due; ``None`` if it is not.

    Args:
        last: The last ticket that this process acquired for the entry; ``None`` at
            first.
        keytab: The current stamp of the keytab.
        at: Seconds of the monotonic clock.
        now: Unix time.
    """
    if last is None:
        return "start"
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
    if abs(now - at - last.zero_at) > CLOCK_STEP_SECONDS:
        return "clock_set"
    if at - last.at >= last.wait_seconds:
        return last.cause
    # Another process published a shorter ticket. Halve the life that was left at its
    # publication: with a slow KDC clock, half of a ticket's full life may already be
    # over. A file server's clock decides when that was, so the rule does not apply to
    # our own ticket.
    if (
        found.ticket != last.ticket
        and now >= (found.published_at + found.ticket.ends_at) / 2
    ):
        return "half_life"
    return None


@dataclass(frozen=True, slots=True)
class Failed:
    """
    The last failure of an entry.

    Args:
        count: How many in a row.
        situation: What it was tried with; once that changes, the next try need not
            wait.
        retry_at: Seconds of the monotonic clock.
    """

    error: SidecarError
    count: int
    situation: str
    retry_at: float


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
