"""
Requests a ticket through a child process, and verifies it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from kerberos_sidecar import krb5_conf, lockout, reasons
from kerberos_sidecar.account import Account
from kerberos_sidecar.formats import Principal, Ticket, strip_to_tgt
from kerberos_sidecar.keytab import Keytab
from kerberos_sidecar.plan import Found, iso
from kerberos_sidecar.publish import Staging
from kerberos_sidecar.reasons import (
    HUNG,
    NO_CONTACT,
    NO_DNS,
    NO_KEY,
    UNSENT,
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

LIMITS_ADVICE = (
    "Raise the limits: memory, open files, or processes (podPidsLimit, ulimit -u)."
)

# Lines of libkrb5's trace.
_OFFERED = re.compile(r"Processing preauth types: (.*)")
_RECEIVED = re.compile(r"Received error from KDC: (-\d{1,10})/(.*)")
_RESOLVES = re.compile(r"(?:Resolving hostname|Sending DNS .* query for) (\S+)")
_ASKED = re.compile(r"(?:initial UDP request|TCP connection) to \w+ (\S+)")
_ANSWERED = re.compile(r"Received answer .* from \w+ (\S+)")

# What the child inherits: no setting, no secret of the pod, and nothing that is meant
# for consumers, such as KRB5CCNAME.
_INHERITED = re.compile(r"PATH|HOME|LANG|TZ|RES_OPTIONS|LOCALDOMAIN|L[CD]_.*")
_PROGRAM = (sys.executable, "-I", "-B", "-m", "kerberos_sidecar.libkrb5_child")


class Said(NamedTuple):
    """
    An error of libkrb5: its code, or one of ours, and its words.
    """

    code: int
    text: str


def prepare(account: Account, settings: Settings) -> Keytab:
    """
    Look again, and return the keytab, once nothing is wrong that needs no KDC.

    Raises:
        SidecarError: A request would be in vain.
    """
    account.look()  # an earlier process's ccache counts, whatever fails next
    keytab = account.keytab
    wrong = krb5_conf.wrong(settings)
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
        SidecarError: The ticket could not be acquired, or consumers could not use it;
            or the key has been refused, and is not tried.
        CycleAbandoned: The fence was revoked.
    """
    is_asked_for = staging.fence.is_asked_for
    wait_seconds = lockout.wait_seconds(keytab, settings, is_asked_for=is_asked_for)
    if wait_seconds:
        raise failure(
            "keytab_stale",
            f"the KDC has refused the key of {keytab.principal} (kvno {keytab.kvno}) in "
            f"{keytab.path}; it is not tried again before "
            f"{iso(time.time() + wait_seconds)}",
            wait_seconds=wait_seconds,
        )
    note = partial(lockout.note, staging.ccache, keytab, is_asked_for=is_asked_for)
    trace = Trace(note)
    began = time.monotonic()

    def blame() -> None:
        # What its deadline would say now: libkrb5 itself goes on for half a minute.
        if time.monotonic() - began > SILENCE_SECONDS:
            staging.fence.blame = _reason_of_trace(
                keytab, settings, trace.at_deadline(), trace, 0.0
            )

    try:
        answer = _ask(keytab, settings, staging, trace, blame)
    finally:
        staging.fence.blame = None
    if isinstance(answer, bytes):
        lockout.forget(staging.ccache, keytab)
        return _verify(answer, keytab.principal)
    failed = _reason_of_trace(keytab, settings, answer, trace, time.monotonic() - began)
    if failed.reason in reasons.COUNTED:
        note()
        failed.retry_within_seconds = (
            lockout.wait_seconds(keytab, settings, is_asked_for=False) or None
        )
    raise failed


def _ask(
    keytab: Keytab,
    settings: Settings,
    staging: Staging,
    trace: Trace,
    watch: child.Watch,
) -> bytes | Said:
    """
    Let the child ask; return the ccache that it wrote, or its error.

    Raises:
        SidecarError: The child could not be started, or ended without an answer.
        CycleAbandoned: The fence was revoked.
    """
    question = {
        "principal": str(keytab.principal),
        "client_keytab": keytab.path,
        "ccache": staging.scratch(),
        "owner": staging.made.st_uid,
        "overlay": krb5_conf.overlay(settings, keytab.principal.realm),
        "site": ":".join(krb5_conf.site_paths(settings)),
        "parent": os.getpid(),
    }
    environ = {
        name: text for name, text in os.environ.items() if _INHERITED.fullmatch(name)
    }
    command = child.Command(
        _PROGRAM, environ, "/", json.dumps(question).encode(), title="libkrb5"
    )
    out = child.Kept(4 << 20)
    try:
        code = child.run(
            command, staging.fence, settings.timeout_seconds, out, trace, watch
        )
    except child.DeadlinePassed:
        return trace.at_deadline()
    except OSError as error:
        text = f"no process can be started ({error.strerror})"
        raise SidecarError("process_limit", text, LIMITS_ADVICE) from error
    try:
        answer = json.loads(out.data)
    except ValueError:
        said = child.last_line(str(trace))
        text = f"the process that asks for {keytab.principal} ended with {child.ending(code)}: "
        if code == -signal.SIGKILL:  # by the kernel: nothing else ends it so
            raise SidecarError("memory_limit", text + said, LIMITS_ADVICE) from None
        raise failure("krb5_failed", text + said) from None
    if "code" in answer:
        return Said(**answer)
    return str(answer["ccache"]).encode("latin-1")


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
        if any(meaning_of(one.code)[0] in reasons.COUNTED for one in self._received()):
            self._note()

    @property
    def asked(self) -> str:
        """
        The KDCs that were asked, and those that answered, in words.
        """
        found = [
            ", ".join(dict.fromkeys(pattern.findall(str(self)))) or "none"
            for pattern in (_ASKED, _ANSWERED)
        ]
        return "asked: {}; answered: {}".format(*found)

    @property
    def unresolved(self) -> str:
        """
        The name that DNS was asked about last; empty if a KDC has been asked.
        """
        names = _RESOLVES.findall(str(self))
        return "" if not names or _ASKED.search(str(self)) else str(names[-1])

    def at_deadline(self) -> Said:
        """
        Return what a KDC said last, as the child would if libkrb5 had ended; else why
        none has.
        """
        said = [one for one in self._received() if one.code not in reasons.ROUTINE]
        if said:
            return said[-1]
        if _ASKED.search(str(self)):
            return Said(HUNG, self.asked)
        if self.unresolved:
            return Said(NO_DNS, "")
        return Said(UNSENT, "it starts, or reads krb5.conf or the keytab")

    def _received(self) -> list[Said]:
        return [Said(int(code), said) for code, said in _RECEIVED.findall(str(self))]


def _reason_of_trace(
    keytab: Keytab, settings: Settings, said: Said, trace: Trace, after_seconds: float
) -> SidecarError:
    """
    Return the error for libkrb5's code.

    Args:
        after_seconds: How long the acquisition took to fail.
    """
    principal = keytab.principal
    code, words = said
    if code == NO_DNS:  # libkrb5 says "Resource temporarily unavailable"
        words = f"its servers fail or are silent about {trace.unresolved}"
    # Its NO_CONTACT is of KDCs that refuse, of silent ones, and of names without one.
    elif code == NO_CONTACT and trace.unresolved:
        code = NO_DNS
        words = f"it does not know {trace.unresolved}"
    elif code == NO_CONTACT and after_seconds > SILENCE_SECONDS:
        code = HUNG
        words = trace.asked
    if code == reasons.PREAUTH_FAILED and f"with result: {NO_KEY}/" in str(trace):
        code = NO_KEY
    reason, text = meaning_of(code)
    offered = _OFFERED.findall(str(trace))
    if reason == "preauth_unsupported" and offered:
        words += f"; it offers {offered[-1]}"
    text = text.format(keytab=keytab, principal=principal, realm=principal.realm)
    lines = krb5_conf.lines_about(settings, principal.realm, reason)
    return failure(reason, "; ".join([f"{text} ({words})", *lines]))


def _verify(content: bytes, principal: Principal) -> tuple[bytes, Ticket]:
    """
    Return what to publish of a new ccache, and the ticket in it.

    Raises:
        SidecarError: It is not the one that was requested, or consumers cannot use it.
    """
    try:
        content, ticket = strip_to_tgt(content)
    except ValueError as error:
        raise failure(
            "ticket_unusable", f"the KDC's reply for {principal} {error}"
        ) from None
    problem = Found(ticket).why_unusable_at(time.time(), principal)
    if problem:
        raise failure(
            "ticket_unusable",
            f"the KDC's reply for {principal} {problem}; its clock is "
            f"{ticket.clock_offset_seconds:+.0f} s off this node's",
        )
    return content, ticket
