"""
The one table of failures: what each reason concerns, when it is retried, and what to do
about it.

The codes are from MIT's ``krb5.h``; what libkrb5 says is quoted in each error.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from typing import NamedTuple

from sidecar_runtime.errors import SidecarError


class Reason(NamedTuple):
    """
    Args:
        is_outage: No KDC of the realm answered, so nothing is known about the
            principal.
        is_counted: A try counts toward a lockout of the account, so the same keys are
            not tried again before KERBEROS_LOCKOUT_WINDOW is over; all else is retried
            with backoff.
    """

    advice: str
    is_outage: bool = False
    is_counted: bool = False


REASONS = {
    "keytab_missing": Reason(
        "Mount its Secret there, as a folder, or correct KERBEROS_KEYTAB."
    ),
    "keytab_ambiguous": Reason("Set KERBEROS_KEYTAB to one of them."),
    "keytab_unreadable": Reason(
        "Set the pod's fsGroup, or defaultMode: 0440 on the Secret."
    ),
    "keytab_garbage": Reason(
        "Create the Secret from the keytab file itself, in binary."
    ),
    "keytab_empty": Reason("Export it again with ktadd, ktpass or msktutil."),
    "keytab_truncated": Reason(
        "Copy it again in binary mode, and create the Secret from it."
    ),
    "keytab_enctypes_unusable": Reason(
        "Export AES keys, or correct permitted_enctypes."
    ),
    "keytab_stale": Reason(
        "The key has changed, or was created with another salt: export the keytab again, and a new "
        "key is tried at once. To protect the account from a lockout, the same key is tried once "
        "in KERBEROS_LOCKOUT_WINDOW, and on SIGHUP.",
        is_counted=True,
    ),
    "realm_absent": Reason(
        "Correct the realm (usually in capitals), or mount its keytab."
    ),
    "principal_absent": Reason(
        "Correct KERBEROS_PRINCIPAL, or export a keytab for it."
    ),
    "principal_unknown": Reason(
        "Create it if it was deleted, or correct KERBEROS_PRINCIPAL."
    ),
    "principal_expired": Reason("Extend the account's expiry date."),
    "principal_disabled": Reason(
        "Enable it; look for a client that locks it with an old keytab."
    ),
    "password_expired": Reason(
        "Exempt it from expiry, or change its key and export it again."
    ),
    "preauth_unsupported": Reason(
        "Let the account need no hardware token, card or OTP."
    ),
    "kdc_unreachable": Reason(
        "Check the KDC, kdc = in krb5.conf, DNS, and network policies (port 88).",
        is_outage=True,
    ),
    "kdc_hung": Reason(
        "Look for firewalls (port 88), dead and busy KDCs.", is_outage=True
    ),
    "kdc_garbage": Reason(
        "Check kdc = and the port in krb5.conf, and look for a proxy."
    ),
    "kdc_refused": Reason("Look for the reason in the KDC's log."),
    "realm_unknown": Reason(
        "Add the realm and its kdc to krb5.conf; check the realm's capitals."
    ),
    "clock_skew": Reason(
        "Fix time synchronization. Only kdc_timesync = 0 makes it matter."
    ),
    "config_missing": Reason("Mount krb5.conf there, readable for this container."),
    "config_invalid": Reason("Correct the file that KRB5_CONFIG names."),
    "ticket_unusable": Reason(
        "Compare with kinit -kt: its name (aliases), clocks, maximum life."
    ),
    "ticket_missing": Reason(
        "Wait for the first try; if it fails, its reason stands here instead."
    ),
    "krb5_failed": Reason(
        "Run kinit -kt with the same krb5.conf and KRB5_TRACE=/dev/stderr."
    ),
    "ccache_full": Reason(
        "Enlarge the volume (sizeLimit). The published ccache is intact."
    ),
    "ccache_denied": Reason(
        "Put KERBEROS_CCACHE on a writable volume (fsGroup), not sticky."
    ),
    "ccache_missing": Reason(
        "Mount the volume for the ccache there, or correct KERBEROS_CCACHE."
    ),
    "ccache_failed": Reason(
        "Check the volume and its node. The published ccache is intact."
    ),
    "ccache_foreign": Reason(
        "Set KERBEROS_CCACHE to a file in a mounted folder, or remove what is there."
    ),
    "ccache_contested": Reason(
        "Give each principal its own ccache (KERBEROS_CCACHE), and look for a second sidecar or a "
        "kinit on this volume. Sidecars of one principal need the same runAsUser, runAsGroup and "
        "KERBEROS_CCACHE_MODE, or a folder with one group and the setgid bit, as fsGroup sets them."
    ),
}


def failure(
    reason: str, message: str, advice: str = "", *, wait_seconds: float | None = None
) -> SidecarError:
    """
    Return the error for a reason of the table.

    Args:
        advice: For this case, instead of the table's.
        wait_seconds: When to retry; ``None``: with backoff.
    """
    error = SidecarError(reason, message, advice or REASONS[reason].advice)
    error.retry_within_seconds = wait_seconds
    return error


def together(errors: Iterable[SidecarError]) -> SidecarError:
    """
    Return the first of several failures, which also tells the others. An outage ends on
    its own: it comes last, and is reported once for all principals of a realm.
    """
    first, *others = sorted(dict.fromkeys(errors), key=is_outage)
    more = "".join(f"; {error.reason}: {error.message}" for error in others)
    return SidecarError(first.reason, first.message + more, first.advice)


def is_outage(error: SidecarError) -> bool:
    """
    Whether no KDC of the realm answered.
    """
    return error.reason in REASONS and REASONS[error.reason].is_outage


NO_CONTACT = -1765328228
HUNG = -1  # ours: libkrb5 says NO_CONTACT, too
BAD_FORMAT, BAD_DURATION, BAD_VALUE = -1765328248, -1765328136, 22
BAD_BOOLEAN, BAD_INTEGER = -1429577700, -1429577699
FAIL_INCLUDE_FILE, FAIL_INCLUDE_DIR = -1429577697, -1429577696
BAD_MODULE = -1429577693
NO_ADDRESS = -1765328164
NO_DNS = errno.EAGAIN  # getaddrinfo's EAI_AGAIN: no server answers, or it fails
NO_KEY, PREAUTH_FAILED = -1765328203, -1765328174

# What a KDC says in the course of a request: demand preauthentication, or TCP for a
# long answer.
ROUTINE = {-1765328359, -1765328332, -1765328293}

_STALE = "the KDC does not accept the key of {principal} (kvno {kvno}) in {keytab}"
_SKEWED = "the clocks of this node and the KDC differ by more than the allowed skew"
_NO_ENCTYPE = (
    "the KDC or krb5.conf permits no key of {principal} in {keytab}, "
    "which has only {held}"
)
_NO_ENCTYPES = (-1765328370, -1765328234, NO_KEY, -1765328196, -1765328148, -1765328147)

# Code → reason, and a sentence with places for names.
CODES = {
    -1765328383: (
        "principal_expired",
        "the KDC reports that the account {principal} has expired",
    ),
    -1765328378: ("principal_unknown", "the KDC does not know {principal}"),
    -1765328366: (
        "principal_disabled",
        "the account {principal} is disabled or locked",
    ),
    -1765328361: ("password_expired", "the password or key of {principal} has expired"),
    -1765328360: ("keytab_stale", _STALE),
    -1765328353: ("keytab_stale", _STALE),
    -1765328347: ("clock_skew", _SKEWED),
    -1765328236: ("clock_skew", _SKEWED),
    -1765328230: ("realm_unknown", "neither krb5.conf nor DNS names a KDC for {realm}"),
    PREAUTH_FAILED: (
        "preauth_unsupported",
        "the KDC demands more of {principal} than a key",
    ),
    BAD_FORMAT: ("config_invalid", "krb5.conf cannot be parsed"),
    BAD_DURATION: ("config_invalid", "krb5.conf has an invalid duration"),
    BAD_VALUE: (
        "config_invalid",
        "libkrb5 refuses a kdc of {realm} or a value in krb5.conf",
    ),
    -1765328191: ("ccache_full", "the ccache's volume has no space for the ticket"),
    HUNG: ("kdc_hung", "no KDC of {realm} answers"),
    NO_CONTACT: ("kdc_unreachable", "no KDC of {realm} accepts the request"),
    NO_DNS: ("kdc_unreachable", "DNS names no address for a KDC of {realm}"),
    NO_ADDRESS: ("kdc_unreachable", "no KDC of {realm} has an address"),
    **dict.fromkeys(_NO_ENCTYPES, ("keytab_enctypes_unusable", _NO_ENCTYPE)),
}


def _setting(names: str, fine: str = "") -> str:
    """
    Return the pattern of a relation whose value is none of the fine ones.
    """
    return (
        rf'(?:{names})\s*=(?!\s*"?(?:{fine})"?$).*' if fine else rf"(?:{names})\s*=.*"
    )


_BOOLEAN = "y|yes|true|t|1|on|n|no|false|nil|0|off"
_BOOLEANS = (
    "allow_weak_crypto|allow_rc4|allow_des3|enforce_ok_as_delegate|"
    "ignore_acceptor_hostname"
)
_DURATIONS = "ticket_lifetime|renew_lifetime|clockskew|request_timeout"
_KDCS = _setting("kdc|primary_kdc|master_kdc")
_CANONICALIZE = _setting("dns_canonicalize_hostname", f"{_BOOLEAN}|fallback")
_RELATION = r"[^\s=\[{}][^\s=]*\s*=.*"

# Code → the lines of krb5.conf that may be its cause, as patterns.
LINES = {
    code: re.compile(pattern, re.IGNORECASE)
    for codes, pattern in {
        (
            BAD_FORMAT,
        ): rf"(?!([#;{{}}].*|\[[^]]+\]\*?|include.*|module.*|{_RELATION})?$).+",
        (FAIL_INCLUDE_FILE, FAIL_INCLUDE_DIR): r"include(?:dir)?\s.*",
        (BAD_MODULE,): r"module\s.*",
        (BAD_BOOLEAN,): _setting(_BOOLEANS, _BOOLEAN),
        (BAD_INTEGER,): _setting("udp_preference_limit", r"[+-]?\d+"),
        (BAD_DURATION,): _setting(_DURATIONS, r"\d+|(?:\d+[dhms]\s*)+|\d+(?::\d+)+"),
        (BAD_VALUE,): f"{_KDCS}|{_CANONICALIZE}",
        _NO_ENCTYPES: _setting("default_tkt_enctypes|permitted_enctypes"),
        (NO_CONTACT, HUNG, NO_ADDRESS, NO_DNS): _KDCS,
    }.items()
    for code in codes
}

# Ranges of codes: from the KDC, from the ASN.1 decoder, from the krb5.conf parser.
_FROM_KDC = range(-1765328384, -1765328256)
_ASN1 = range(1859794432, 1859794432 + 256)
_PROFILE = range(-1429577728, -1429577728 + 256)
_ODD_ANSWERS = {-1765328246, -1765328237, -1765328345, -1765328344, -1765328165}


def meaning_of(code: int) -> tuple[str, str]:
    """
    Return the reason for a code of libkrb5, and a sentence with places for names.
    """
    if code in _PROFILE:
        return CODES[BAD_FORMAT]
    if code in CODES:
        return CODES[code]
    if code in _ASN1 or code in _ODD_ANSWERS:
        return (
            "kdc_garbage",
            "the server that answers for {realm} does not speak Kerberos",
        )
    if code in _FROM_KDC:
        return "kdc_refused", "the KDC refused the request for {principal}"
    return (
        "krb5_failed",
        f"libkrb5 could not acquire a ticket for {{principal}} (code {code})",
    )
