"""
Reads back what will be published, through gssapi: as consumers see it.
"""

from __future__ import annotations

import os
import time

import gssapi
from gssapi.exceptions import ExpiredCredentialsError, GSSError

from kerberos_sidecar.formats.ccache import Ticket, read_ticket
from kerberos_sidecar.formats.principal import Principal
from sidecar_runtime.errors import SidecarError

# libkrb5 refuses more, by default (`clockskew` in krb5.conf).
SKEW_SECONDS = 300

# By how much the life that is left may differ: whole seconds, and a process that had to wait.
TOLERANCE_SECONDS = 5


def verify(content: bytes, principal: Principal) -> Ticket:
    """
    Return the ticket of a ccache that was just acquired.

    Raises:
        SidecarError: It is not what was asked for, or of no use to consumers.
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
            f"what the KDC gave for {principal} {said}",
            "Try kinit -kt with the same krb5.conf, and look at its klist.",
        )
    # Raised above, it would keep the error of gssapi, and that the credentials, whose end is an
    # error of its own once krb5.conf is broken.
    if refusal is not None:
        raise refusal
    if name.casefold() != str(principal).casefold():  # Active Directory answers in its own case
        raise SidecarError(
            "ticket_unusable",
            f"the KDC gave a ticket of {name} for {principal}",
            "Look at canonicalize in krb5.conf, and at aliases of the principal.",
        )
    expected_seconds = ticket.ends_at - time.time()
    if abs(left_seconds - expected_seconds) > TOLERANCE_SECONDS:
        raise SidecarError(
            "ticket_unusable",
            f"consumers would see {left_seconds} s of life in the ticket of {principal}, which has "
            f"{expected_seconds:.0f} s",
            "Try kinit -kt with the same krb5.conf, and look at its klist.",
        )
    return ticket


def _read_as_consumer(content: bytes) -> tuple[str, int]:
    """
    Return the name and the seconds that are left.

    From a copy in memory: shortly before the end of a ticket gssapi writes a ``refresh_time`` into
    the ccache that it reads, and its lock would wait forever for ours on NFS, where a ``flock`` is
    one of the same kind.
    """
    with os.fdopen(os.memfd_create("ccache"), "wb", buffering=0) as file:
        file.write(content)
        credentials = gssapi.Credentials(
            usage="initiate",
            mechs=[gssapi.MechType.kerberos],
            # A default keytab, where there is one, would have it ask a KDC.
            store={"ccache": f"FILE:/proc/self/fd/{file.fileno()}", "client_keytab": "MEMORY:"},
        )
        return str(credentials.name), credentials.lifetime


def _ended(ticket: Ticket) -> SidecarError:
    if abs(ticket.clock_offset_seconds) > SKEW_SECONDS:
        return SidecarError(
            "clock_skew",
            f"the KDC's clock is {ticket.clock_offset_seconds:+.0f} s from ours, so the ticket "
            f"of {ticket.principal} has ended before it began",
            "Fix the time synchronization of the node.",
        )
    return SidecarError(
        "ticket_unusable",
        f"the KDC gave a ticket of {ticket.principal} that has ended already",
        "Look at the maximum life of the principal and of krbtgt.",
    )
