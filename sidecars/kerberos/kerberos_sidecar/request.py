"""
Requests a ticket through a child process, and verifies it.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kerberos_sidecar import krb5_conf, reasons
from kerberos_sidecar.account import Account
from kerberos_sidecar.due import iso, window_wait
from kerberos_sidecar.formats import Principal, Ticket, read_ticket, reduce
from kerberos_sidecar.keytab import Keytab
from kerberos_sidecar.publish import Staging
from kerberos_sidecar.reasons import HUNG, NO_CONTACT, failure, meaning_of, together
from kerberos_sidecar.settings import Entry, Settings
from sidecar_runtime import child
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.files import read_file, write_file

# libkrb5 also says "cannot contact any KDC" of a name that DNS does not know and of a silent KDC.
# Refusals and unknown names fail within 0.3 s; silence takes 18 to 27 s (MIT 1.20.1, 2026-11).
SILENCE_SECONDS = 3.0

ANSWER_BYTES = 4 << 20

# Lines of libkrb5's trace.
_OFFERED = re.compile(r"Processing preauth types: (.*)")
_REFUSED = re.compile(r"Received error from KDC: (-\d+)/(.*)")

# What the child inherits: no setting, no secret of the pod, and nothing that is meant for
# consumers, such as KRB5CCNAME.
_INHERITED = re.compile(r"PATH|HOME|LANG|TZ|RES_OPTIONS|LOCALDOMAIN|(L[CD]_|FAKETIME).*")
_PROGRAM = (sys.executable, "-I", "-B", "-m", "kerberos_sidecar.acquire")


@dataclass(frozen=True, slots=True)
class Request:
    """
    What to ask for.

    Args:
        scratch: A path that does not exist, on the ccache's volume: whoever can read it there can
            read the published ticket, too.
    """

    keytab: Keytab
    settings: Settings
    entry: Entry
    scratch: str

    @property
    def memory(self) -> str:
        """
        The file that remembers which keys the KDC refused last, and when: a restart, and the
        command ``check``, count as much as the daemon. Consumers may be able to write it.
        """
        folder, name = os.path.split(self.entry.ccache)
        return os.path.join(folder, f".{name}.refused")


def prepare(account: Account, settings: Settings, staging: Staging) -> Request:
    """
    Look again, now that it is known which group our files have, and check what needs no KDC.

    Raises:
        SidecarError: A request would be in vain.
    """
    account.group = staging.group
    account.look()  # an earlier process's ccache counts, whatever fails next
    keytab, missing = account.keytab, krb5_conf.missing(settings)
    if missing or isinstance(keytab, SidecarError):
        raise together(one for one in (keytab, missing) if isinstance(one, SidecarError))
    krb5_conf.check_enctypes(settings, keytab)
    return Request(keytab, settings, account.entry, staging.scratch)


def acquire(request: Request, fence: Fence) -> tuple[bytes, Ticket]:
    """
    Return a new ccache and the ticket in it; note whether the KDC refuses the key.

    Blocks for KERBEROS_TIMEOUT at most.

    Raises:
        SidecarError: The ticket could not be acquired, or consumers could not use it.
        CycleAbandoned: The fence was revoked.
        OSError: No process can be started.
    """
    settings, principal = request.settings, request.keytab.principal
    asked = {
        "principal": str(principal),
        "client_keytab": request.keytab.path,
        "ccache": request.scratch,
        "overlay": krb5_conf.overlay(settings, principal.realm),
        "site": ":".join(krb5_conf.site_paths(settings)),
        "parent": os.getpid(),
    }
    environ = {name: text for name, text in os.environ.items() if _INHERITED.fullmatch(name)}
    command = child.Command(_PROGRAM, environ, "/", json.dumps(asked).encode())
    out, err = child.Kept(ANSWER_BYTES), child.Kept()
    began = time.monotonic()
    try:
        code = child.run(command, fence, settings.timeout_seconds, out, err)
        answer: dict[str, Any] = json.loads(out.data)
    except child.DeadlinePassed:
        answer = _refusal(str(err))
    except ValueError:
        said = "; ".join(line for line in str(err).splitlines() if not line.startswith("["))
        text = f"the process that asks for {principal} ended with {child.ending(code)}: {said}"
        raise failure("krb5_failed", text) from None
    if "code" in answer:
        offered = _OFFERED.findall(str(err))
        error = _explain(request, answer, offered, time.monotonic() - began)
        if reasons.REASONS[error.reason].is_counted:
            now, window_seconds = time.time(), settings.lockout_window_seconds
            error.retry_within_seconds = window_wait(now, now, window_seconds) or None
            with suppress(OSError):  # the volume turned full or read-only meanwhile
                content = f"{now} {request.keytab}".encode()
                write_file(request.memory, content, 0o600, fsync=False)
        raise error
    with suppress(OSError):
        os.unlink(request.memory)  # the KDC counts from 0
    return _verify(base64.b64decode(answer["ccache"]), principal)


def _refusal(trace: str) -> dict[str, Any]:
    """
    Return what a KDC said last, as the child would, if libkrb5 did not end in time: after a
    refusal, it also asks the primary KDC, which may be silent.
    """
    said = [one for one in _REFUSED.findall(trace) if int(one[0]) not in reasons.ROUTINE]
    code, text = said[-1] if said else (HUNG, "the deadline has passed")
    return {"code": int(code), "said": text}


def check_refused(request: Request, since: float = -math.inf) -> None:
    """
    Args:
        since: Refusals before this Unix time do not count.

    Raises:
        SidecarError: The KDC has refused these keys, and more tries could lock the account.
    """
    keytab, now, refused_at = request.keytab, time.time(), -math.inf
    with suppress(OSError, ValueError):
        at, _, refused = read_file(request.memory, 1 << 16).decode().partition(" ")
        refused_at = float(at) if refused == str(keytab) else refused_at
    wait_seconds = window_wait(refused_at, now, request.settings.lockout_window_seconds)
    if refused_at >= since and wait_seconds:
        error = failure(
            "keytab_stale",
            f"the KDC has refused the key of {keytab.principal} (kvno {keytab.kvno}) in "
            f"{keytab.path}; it is not tried again before {iso(now + wait_seconds)}",
        )
        error.retry_within_seconds = wait_seconds
        raise error


def _explain(
    request: Request, answer: dict[str, Any], offered: list[str], after_seconds: float
) -> SidecarError:
    """
    Return the error for libkrb5's code.

    Args:
        offered: The kinds of preauthentication that KDCs offered.
        after_seconds: How long the acquisition took to fail.
    """
    principal, code, said = request.keytab.principal, answer["code"], str(answer["said"])
    if code == NO_CONTACT and after_seconds > SILENCE_SECONDS:
        code = HUNG
    reason, text = meaning_of(code)
    if reason == "preauth_unsupported" and offered:
        said += f"; it offers {offered[-1]}"
    text = text.format(
        principal=principal,
        realm=principal.realm,
        keytab=request.keytab.path,
        kvno=request.keytab.kvno,
    )
    lines = krb5_conf.lines_about(request.settings, principal.realm, *reasons.LINES.get(code, ()))
    return failure(reason, "; ".join([f"{text} ({said})", *lines]))


def _verify(content: bytes, principal: Principal) -> tuple[bytes, Ticket]:
    """
    Return what to publish of a new ccache, and the ticket in it.

    Raises:
        SidecarError: It is not the one that was requested, or consumers cannot use it.
    """
    try:
        content = reduce(content)
        ticket = read_ticket(content)
    except ValueError as error:
        raise failure("ticket_unusable", f"the KDC's reply for {principal} {error}") from None
    left_seconds = ticket.ends_at - time.time()
    if ticket.principal.resembles(principal) and left_seconds > 0:
        return content, ticket
    offset = f"the KDC's clock is {ticket.clock_offset_seconds:+.0f} s off this node's"
    text = f"the KDC issued a ticket for {ticket.principal} that ends in {left_seconds:.0f} s"
    raise failure("ticket_unusable", f"{text} instead of one for {principal}; {offset}")
