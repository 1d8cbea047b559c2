"""
Requests a ticket through a child process, and verifies it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kerberos_sidecar.ccache import Ticket, read_ticket
from kerberos_sidecar.keytab import Keytab
from kerberos_sidecar.krb5_conf import find_fault, overlay, site_paths
from kerberos_sidecar.principal import Principal
from kerberos_sidecar.reasons import (
    NO_CONTACT,
    SILENCE_SECONDS,
    failure,
    is_outage,
    meaning_of,
)
from kerberos_sidecar.settings import Settings
from sidecar_runtime import child
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence

# libkrb5's default limit for the clock skew (`clockskew` in krb5.conf).
SKEW_SECONDS = 300

# The allowed difference in remaining life, for rounding to seconds and for scheduling delays.
TOLERANCE_SECONDS = 5

ANSWER_BYTES = 4 << 20

# What the child inherits: no setting, no secret of the pod, and nothing that is meant for
# consumers, such as KRB5CCNAME.
_INHERITED = re.compile(r"PATH|HOME|LANG|TZ|RES_OPTIONS|LOCALDOMAIN|(LC|LD|FAKETIME|KRB5_TRACE).*")
_PROGRAM = (sys.executable, "-I", "-B", "-m", "kerberos_sidecar.acquire")


@dataclass(frozen=True, slots=True)
class Request:
    """
    What to ask for.

    Args:
        scratch: A path that does not exist, on the ccache's volume: whoever can read it there can
            read the published ticket, too.
    """

    principal: Principal
    keytab: Keytab
    settings: Settings
    scratch: str


def acquire(
    request: Request, fence: Fence, watch: Callable[[], object] = lambda: None
) -> tuple[bytes, Ticket]:
    """
    Return a new ccache and the ticket in it.

    Blocks for KERBEROS_TIMEOUT at most.

    Args:
        watch: Called several times a second.

    Raises:
        SidecarError: The ticket could not be acquired, or consumers could not use it.
        CycleAbandoned: The fence was revoked.
        OSError: No process can be started.
    """
    settings, principal = request.settings, request.principal
    asked = {
        "principal": str(principal),
        "keytab": request.keytab.path,
        "ccache": request.scratch,
        "overlay": overlay(settings, principal.realm),
        "site": ":".join(site_paths(settings)),
        "parent": os.getpid(),
    }
    environ = {name: text for name, text in os.environ.items() if _INHERITED.fullmatch(name)}
    command = child.Command(_PROGRAM, environ, "/", json.dumps(asked).encode())
    out, err = child.Kept(ANSWER_BYTES), child.Kept()
    began = time.monotonic()
    try:
        code = child.run(command, fence, settings.timeout_seconds, out, err, watch)
    except child.DeadlinePassed:
        raise hung(principal, f" within {settings.timeout_seconds:g} s") from None
    try:
        answer: dict[str, Any] = json.loads(out.data)
    except ValueError:
        text = f"the process that asks for {principal} ended with {child.ending(code)}: {err}"
        raise failure("krb5_failed", text) from None
    if "code" in answer:
        raise _explain(request, answer, time.monotonic() - began)
    content = base64.b64decode(answer["ccache"])
    return content, _verify(content, principal, answer["name"], answer["lifetime_seconds"])


def hung(principal: Principal, after: str = "") -> SidecarError:
    """
    Return the error if no KDC answers.
    """
    return failure("kdc_hung", f"no KDC of {principal.realm} answered{after}")


def _explain(request: Request, answer: dict[str, Any], after_seconds: float) -> SidecarError:
    """
    Return the error for libkrb5's code.

    Args:
        after_seconds: How long the acquisition took to fail.
    """
    principal, said = request.principal, str(answer["said"])
    if answer["is_ticket"]:
        text = f"the KDC's reply for {principal} is refused by gssapi ({said})"
        return failure("ticket_unusable", text)
    if answer["code"] == NO_CONTACT and after_seconds > SILENCE_SECONDS:
        return hung(principal, f" within {after_seconds:.0f} s")
    reason, text = meaning_of(answer["code"])
    if reason == "preauth_unsupported" and answer["offered"]:
        said += f"; it offers {answer['offered']}"
    text = text.format(
        principal=principal,
        realm=principal.realm,
        keytab=request.keytab.path,
        kvno=request.keytab.kvno_of(principal),
    )
    error = failure(reason, f"{text} ({said})")
    is_local = reason in ("config_invalid", "krb5_failed", "realm_unknown") or is_outage(error)
    if is_local or reason == "keytab_enctypes_unusable":
        if fault := find_fault(request.settings, principal.realm):
            return failure("config_invalid", f"{fault} ({said})")
    return error


def _verify(content: bytes, principal: Principal, name: str, left_seconds: int) -> Ticket:
    """
    Return the ticket in a new ccache.

    Args:
        name, left_seconds: Whose ticket it is and how long it lasts in the eyes of a consumer.

    Raises:
        SidecarError: It is not the one that was requested, or consumers cannot use it.
    """
    try:
        ticket = read_ticket(content)
    except ValueError as error:
        raise failure("ticket_unusable", f"the KDC's reply for {principal} {error}") from None
    if name.casefold() != str(principal).casefold():  # Active Directory answers in its own case
        raise failure(
            "ticket_unusable", f"the KDC issued a ticket for {name} instead of {principal}"
        )
    expected_seconds = ticket.ends_at - time.time()
    if left_seconds <= 0 and abs(ticket.clock_offset_seconds) > SKEW_SECONDS:
        raise failure(
            "clock_skew",
            f"the KDC's clock is {ticket.clock_offset_seconds:+.0f} s off this node's, so the "
            f"ticket for {principal} expired before it started",
        )
    if left_seconds <= 0 or abs(left_seconds - expected_seconds) > TOLERANCE_SECONDS:
        raise failure(
            "ticket_unusable",
            f"consumers would see {left_seconds} s of life left in the ticket for {principal} "
            f"instead of {expected_seconds:.0f} s",
        )
    return ticket
