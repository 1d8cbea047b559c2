"""
Requests a ticket through a child process, and verifies it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from kerberos_sidecar import krb5_conf, lockout, reasons
from kerberos_sidecar.account import Account
from kerberos_sidecar.formats import Principal, Ticket, reduce
from kerberos_sidecar.keytab import Keytab
from kerberos_sidecar.publish import Staging
from kerberos_sidecar.reasons import (
    HUNG,
    NO_CONTACT,
    NO_KEY,
    failure,
    meaning_of,
    together,
)
from kerberos_sidecar.settings import Settings
from sidecar_runtime import child
from sidecar_runtime.errors import SidecarError

# libkrb5 also says "cannot contact any KDC" of a name that DNS does not know and of a
# silent KDC. Refusals and unknown names fail within 0.3 s; silence takes 18 to 27 s
# (MIT 1.20.1, 2026-11).
SILENCE_SECONDS = 3.0

ANSWER_BYTES = 4 << 20
LIMITS_ADVICE = (
    "Raise the limits: memory, open files, or processes (podPidsLimit, ulimit -u)."
)

# Lines of libkrb5's trace.
_OFFERED = re.compile(r"Processing preauth types: (.*)")
_RECEIVED = re.compile(r"Received error from KDC: (-\d+)/(.*)")

# What the child inherits: no setting, no secret of the pod, and nothing that is meant
# for consumers, such as KRB5CCNAME.
_INHERITED = re.compile(r"PATH|HOME|LANG|TZ|RES_OPTIONS|LOCALDOMAIN|L[CD]_.*")
_PROGRAM = (sys.executable, "-I", "-B", "-m", "kerberos_sidecar.acquire")


def prepare(account: Account, settings: Settings, staging: Staging) -> Keytab:
    """
    Look again, now that it is known which group our files have, and check what needs no
    KDC.

    Raises:
        SidecarError: A request would be in vain.
    """
    account.group = staging.group
    account.look()  # an earlier process's ccache counts, whatever fails next
    keytab, wrong = account.keytab, krb5_conf.wrong(settings)
    if wrong or isinstance(keytab, SidecarError):
        raise together(one for one in (keytab, wrong) if isinstance(one, SidecarError))
    return keytab


def acquire(
    keytab: Keytab, settings: Settings, staging: Staging
) -> tuple[bytes, Ticket]:
    """
    Return a new ccache and the ticket in it; note whether the KDC refuses the key.

    Blocks for KERBEROS_TIMEOUT at most.

    Raises:
        SidecarError: The ticket could not be acquired, or consumers could not use it.
        CycleAbandoned: The fence was revoked.
    """
    asked = {
        "principal": str(keytab.principal),
        "client_keytab": keytab.path,
        "ccache": staging.scratch,
        "overlay": krb5_conf.overlay(settings, keytab.principal.realm),
        "site": ":".join(krb5_conf.site_paths(settings)),
        "parent": os.getpid(),
    }
    environ = {
        name: text for name, text in os.environ.items() if _INHERITED.fullmatch(name)
    }
    question = json.dumps(asked).encode()
    command = child.Command(_PROGRAM, environ, "/", question, title="libkrb5")
    out, trace = (
        child.Kept(ANSWER_BYTES),
        Trace(lambda: lockout.note(staging.ccache, keytab)),
    )
    began = time.monotonic()
    try:
        code = child.run(command, staging.fence, settings.timeout_seconds, out, trace)
        answer: dict[str, Any] = json.loads(out.data)
    except child.DeadlinePassed:
        answer = trace.answer()
    except OSError as error:
        text = f"no process can be started ({error.strerror})"
        raise SidecarError("process_limit", text, LIMITS_ADVICE) from error
    except ValueError:
        said = "; ".join(
            line for line in str(trace).splitlines() if not line.startswith("[")
        )
        text = f"the process that asks for {keytab.principal} ended with {child.ending(code)}: "
        if code == -signal.SIGKILL:  # by the kernel: nothing else ends it so
            raise SidecarError("memory_limit", text + said, LIMITS_ADVICE) from None
        raise failure("krb5_failed", text + said) from None
    if "code" in answer:
        answer["trace"] = str(trace)
        failed = _explain(keytab, settings, answer, time.monotonic() - began)
        if reasons.REASONS[failed.reason].is_counted:
            window_seconds = settings.lockout_window_seconds
            lockout.note(staging.ccache, keytab)
            failed.retry_within_seconds = (
                lockout.window_wait(0, 0, window_seconds) or None
            )
        raise failed
    lockout.forget(staging.ccache)
    return _verify(base64.b64decode(answer["ccache"]), keytab.principal)


class Trace(child.Kept):
    """
    Keeps what libkrb5 traces while it asks.

    Args:
        note: Called as soon as a KDC has refused the key: libkrb5 also asks the primary
            KDC before it answers, which may be silent, and this process may end
            meanwhile.
    """

    def __init__(self, note: Callable[[], object]) -> None:
        super().__init__()
        self._note = note

    def __call__(self, chunk: bytes) -> None:
        super().__call__(chunk)
        if any(
            reasons.REASONS[meaning_of(code)[0]].is_counted
            for code, _ in self._received()
        ):
            self._note()

    def answer(self) -> dict[str, Any]:
        """
        Return what a KDC said last, as the child would if libkrb5 had ended.
        """
        said = [one for one in self._received() if one[0] not in reasons.ROUTINE]
        code, text = said[-1] if said else (HUNG, "the deadline has passed")
        return {"code": code, "said": text}

    def _received(self) -> list[tuple[int, str]]:
        return [(int(code), said) for code, said in _RECEIVED.findall(str(self))]


def _explain(
    keytab: Keytab, settings: Settings, answer: dict[str, Any], after_seconds: float
) -> SidecarError:
    """
    Return the error for libkrb5's code.

    Args:
        answer: ``code``, ``said``, and the ``trace``.
        after_seconds: How long the acquisition took to fail.
    """
    principal, code, said = keytab.principal, answer["code"], str(answer["said"])
    if code == NO_CONTACT and after_seconds > SILENCE_SECONDS:
        code = HUNG
    if code == reasons.PREAUTH_FAILED and f"with result: {NO_KEY}/" in answer["trace"]:
        code = NO_KEY
    reason, text = meaning_of(code)
    if reason == "preauth_unsupported" and (
        offered := _OFFERED.findall(answer["trace"])
    ):
        said += f"; it offers {offered[-1]}"
    names = {"principal": principal, "realm": principal.realm, "keytab": keytab.path}
    text = text.format(**names, kvno=keytab.kvno, held=keytab.held)
    lines = krb5_conf.lines_about(settings, principal.realm, code)
    return failure(reason, "; ".join([f"{text} ({said})", *lines]))


def _verify(content: bytes, principal: Principal) -> tuple[bytes, Ticket]:
    """
    Return what to publish of a new ccache, and the ticket in it.

    Raises:
        SidecarError: It is not the one that was requested, or consumers cannot use it.
    """
    try:
        content, ticket = reduce(content)
    except ValueError as error:
        raise failure(
            "ticket_unusable", f"the KDC's reply for {principal} {error}"
        ) from None
    left_seconds = ticket.ends_at - time.time()
    if ticket.principal.resembles(principal) and left_seconds > 0:
        return content, ticket
    offset = f"the KDC's clock is {ticket.clock_offset_seconds:+.0f} s off this node's"
    text = f"the KDC issued a ticket for {ticket.principal} that ends in {left_seconds:.0f} s"
    raise failure("ticket_unusable", f"{text} instead of one for {principal}; {offset}")
