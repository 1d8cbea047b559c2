"""
Reads a ccache back through gssapi, as consumers do, before it is published.
"""

from __future__ import annotations

import os
import time

import gssapi
from gssapi.exceptions import ExpiredCredentialsError, GSSError

from kerberos_sidecar.formats.ccache import Ticket, read_ticket
from kerberos_sidecar.formats.principal import Principal
from sidecar_runtime.errors import SidecarError

# libkrb5's default limit for the clock skew (`clockskew` in krb5.conf).
SKEW_SECONDS = 300

# The allowed difference in remaining life, for rounding to seconds and for scheduling delays.
TOLERANCE_SECONDS = 5


def verify(content: bytes, principal: Principal) -> Ticket:
    """
    Return the ticket in a newly acquired ccache.

    Raises:
        SidecarError: The ticket is not the one that was requested, or consumers cannot use it.
    """
    refusal: SidecarError | None = None
    try:
        ticket = read_ticket(content)
        name, left_seconds = _read_as_consumer(content)
    except ExpiredCredentialsError:
        refusal = _ended(ticket)
    except (ValueError, GSSError) as error:
        said = f"is refused by gssapi ({error})" if isinstance(error, GSSError) else str(error)
        refusal = SidecarError(
            "ticket_unusable",
            f"the KDC's reply for {principal} {said}",
            "Run kinit -kt with the same krb5.conf, and check the ticket with klist.",
        )
    # Raised in the except clause, it would keep the gssapi error and its credentials alive, and
    # freeing those raises another error once krb5.conf is broken.
    if refusal is not None:
        raise refusal
    if name.casefold() != str(principal).casefold():  # Active Directory answers in its own case
        raise SidecarError(
            "ticket_unusable",
            f"the KDC issued a ticket for {name} instead of {principal}",
            "Check canonicalize in krb5.conf, and the principal's aliases.",
        )
    expected_seconds = ticket.ends_at - time.time()
    if abs(left_seconds - expected_seconds) > TOLERANCE_SECONDS:
        raise SidecarError(
            "ticket_unusable",
            f"consumers would see {left_seconds} s of life left in the ticket for {principal} "
            f"instead of {expected_seconds:.0f} s",
            "Run kinit -kt with the same krb5.conf, and check the ticket with klist.",
        )
    return ticket


def _read_as_consumer(content: bytes) -> tuple[str, int]:
    """
    Return the principal's name and the remaining life in seconds.

    Reads a copy in memory. Shortly before a ticket expires, gssapi writes a ``refresh_time`` into
    the ccache that it reads. On NFS, its lock would wait forever for ours, because a ``flock`` is
    the same kind of lock there.
    """
    with os.fdopen(os.memfd_create("ccache"), "wb", buffering=0) as file:
        file.write(content)
        credentials = gssapi.Credentials(
            usage="initiate",
            mechs=[gssapi.MechType.kerberos],
            # With a default client keytab, gssapi would ask a KDC.
            store={"ccache": f"FILE:/proc/self/fd/{file.fileno()}", "client_keytab": "MEMORY:"},
        )
        return str(credentials.name), credentials.lifetime


def _ended(ticket: Ticket) -> SidecarError:
    if abs(ticket.clock_offset_seconds) > SKEW_SECONDS:
        return SidecarError(
            "clock_skew",
            f"the KDC's clock is {ticket.clock_offset_seconds:+.0f} s off this node's, so the "
            f"ticket for {ticket.principal} expired before it started",
            "Fix the node's time synchronization.",
        )
    return SidecarError(
        "ticket_unusable",
        f"the KDC issued a ticket for {ticket.principal} that has already expired",
        "Check the maximum ticket life of the principal and of krbtgt.",
    )
