"""
The one table of failures: what can go wrong, whom it concerns, and what to do about it.

The codes are from MIT's ``krb5.h``; what libkrb5 says is quoted in each error.
"""

import errno
from collections.abc import Iterable

from sidecar_runtime.errors import SidecarError

OUTAGES = ("kdc_unreachable", "kdc_hung")
"""No KDC of the realm answered, so nothing is known about the principal."""

COUNTED = ("keytab_stale",)
"""
A try counts toward a lockout of the account, so the same keys are not tried again
before KERBEROS_LOCKOUT_WINDOW is over; all else is retried with backoff.
"""

# What to do about each.
REASONS: dict[str, str] = {
    "keytab_missing": "Mount its Secret there, as a folder, or correct KERBEROS_KEYTAB: the file "
    "has the name of its key in the Secret.",
    "keytab_ambiguous": "Set KERBEROS_KEYTAB to one of them.",
    "keytab_unreadable": "Permission denied: set the pod's fsGroup, or defaultMode: 0440 on the "
    "Secret. Otherwise, check the volume and its node.",
    "keytab_garbage": "Create the Secret from the keytab file itself (kubectl create secret "
    "generic --from-file): its base64 belongs under data:, not under stringData:.",
    "keytab_empty": "Export it again with ktadd, ktpass or msktutil.",
    "keytab_truncated": "Copy it again in binary mode, and create the Secret from it.",
    "keytab_enctypes_unusable": "Export AES keys (Active Directory: allow AES for the account "
    "first), or correct permitted_enctypes in the quoted line.",
    "keytab_stale": "The key has changed, has another salt, or has not reached this KDC yet: "
    "export the keytab again, or wait. A new key is tried at once, the same one once in "
    "KERBEROS_LOCKOUT_WINDOW, and on SIGHUP.",
    "realm_absent": "Correct the realm (usually in capitals), or mount its keytab.",
    "principal_absent": "Correct KERBEROS_PRINCIPAL (_HOST becomes the pod's name), or export a "
    "keytab for it.",
    "principal_unknown": "Create it if it was deleted, or correct KERBEROS_PRINCIPAL (Active "
    "Directory: not an SPN) or the realm's kdc.",
    "principal_expired": "Extend the account's expiry date.",
    "principal_disabled": "Enable or unlock it, and allow all logon hours; look for a client that "
    "locks it with an old keytab.",
    "password_expired": "Exempt it from expiry and from a change at the next logon, or change its "
    "key and export it again.",
    "preauth_unsupported": "Let the account need no hardware token, card, OTP or FAST.",
    "kdc_unreachable": "Check the KDC, kdc = in krb5.conf, DNS, and network policies (port 88).",
    "kdc_hung": "Look for firewalls (port 88), dead and busy KDCs. If some answer, remove the "
    "silent ones from krb5.conf, or raise KERBEROS_TIMEOUT.",
    "kdc_garbage": "Check kdc = and the port in krb5.conf, and look for a proxy.",
    "kdc_refused": "Look for the reason in the KDC's log.",
    "realm_unknown": "Add the realm and its kdc to krb5.conf; check the realm's capitals.",
    "clock_skew": "Fix time synchronization. Only kdc_timesync = 0 makes it matter.",
    "config_missing": "Mount krb5.conf there, readable for this container.",
    "config_invalid": "Correct krb5.conf. Quoted lines may be the cause; included files are not "
    "searched. A comment needs its own line.",
    "request_unsent": "Look for a volume that hangs (krb5.conf, keytab), or raise the CPU limit.",
    "ticket_unusable": "Compare with kinit -kt: its name (aliases, canonicalize), clocks, maximum "
    "life.",
    "ticket_missing": "Wait for the first try; if it fails, its reason stands here instead.",
    "krb5_failed": "Run kinit -kt with the same krb5.conf and KRB5_TRACE=/dev/stderr.",
    "ccache_full": "Enlarge the volume (sizeLimit). The published ccache is intact.",
    "ccache_denied": "Put KERBEROS_CCACHE on a writable volume (fsGroup), not sticky.",
    "ccache_missing": "Mount the volume for the ccache there, or correct KERBEROS_CCACHE.",
    "ccache_failed": "Check the volume and its node, or correct KERBEROS_CCACHE. The published "
    "ccache is intact.",
    "ccache_foreign": "Set KERBEROS_CCACHE to a file in a mounted folder, or remove what is there.",
    "ccache_contested": "Give each principal its own KERBEROS_CCACHE, and look for a second "
    "sidecar or a kinit on this volume. Sidecars of one principal need equal runAsUser, runAsGroup "
    "and KERBEROS_CCACHE_MODE, or a folder with the setgid bit (fsGroup).",
}


def failure(
    reason: str, message: str, *, wait_seconds: float | None = None
) -> SidecarError:
    """
    Return the error for a reason of the table.

    Args:
        wait_seconds: When to retry; ``None``: with backoff.
    """
    error = SidecarError(reason, message, REASONS[reason])
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
    return error.reason in OUTAGES


# The first of libkrb5's own codes; those up to 127 more are the numbers that KDCs send
# (RFC 4120, 7.5.9).
KRB5 = -1765328384
NO_CONTACT = KRB5 + 156
NO_KEY = KRB5 + 181
PREAUTH_FAILED = KRB5 + 210
NO_DNS = errno.EAGAIN  # getaddrinfo's EAI_AGAIN: no server answers, or it fails
# Ours: libkrb5 says NO_CONTACT of a silent KDC, too, and nothing at our deadline.
HUNG = -1
UNSENT = -2

# What a KDC says in the course of a request: demand preauthentication, or TCP for a
# long answer.
ROUTINE = {KRB5 + 25, KRB5 + 52, KRB5 + 91}

_NOT_A_KDC = "the server that answers for {realm} does not speak Kerberos"
_UNPARSED = "krb5.conf cannot be parsed"

# Numbers of codes → reason, and a sentence with places for names.
_MEANINGS = {
    (1,): (
        "principal_expired",
        "the KDC reports that the account {principal} has expired",
    ),
    (6,): ("principal_unknown", "the KDC does not know {principal}"),
    (18,): ("principal_disabled", "the account {principal} is disabled or locked"),
    (23,): ("password_expired", "the password or key of {principal} has expired"),
    (24, 31): (
        "keytab_stale",
        "the KDC does not accept the key of {principal} (kvno {keytab.kvno}) in {keytab.path}",
    ),
    (37, 148): (
        "clock_skew",
        "the clocks of this node and the KDC differ by more than the allowed skew",
    ),
    (154,): ("realm_unknown", "neither krb5.conf nor DNS names a KDC for {realm}"),
    (14, 150, 151, 152, 181, 188, 236, 237): (
        "keytab_enctypes_unusable",
        "the KDC or krb5.conf permits no key of {principal} in {keytab.path}: it has {keytab.held}",
    ),
    (208, 210, 252): (
        "preauth_unsupported",
        "the KDC demands more of {principal} than a key",
    ),
    (39, 40, 138, 147, 219): ("kdc_garbage", _NOT_A_KDC),
    (135,): ("config_missing", "libkrb5 cannot open krb5.conf"),
    (136, 248): ("config_invalid", _UNPARSED),
    (156,): ("kdc_unreachable", "no KDC of {realm} can be reached"),
    (220, 239, 240, 241): ("kdc_unreachable", "no KDC of {realm} has an address"),
    # libkrb5 has one code for all of ENOSPC, EDQUOT, EIO and EMFILE.
    (193, 194, 196, 197): ("ccache_failed", "libkrb5 cannot write beside the ccache"),
}
CODES = {
    HUNG: ("kdc_hung", "no KDC of {realm} answers in time"),
    UNSENT: ("request_unsent", "libkrb5 has not asked any KDC for {principal}"),
    NO_DNS: ("kdc_unreachable", "DNS names no address for a KDC of {realm}"),
    errno.EINVAL: (
        "config_invalid",
        "libkrb5 refuses a kdc of {realm} or a value in krb5.conf",
    ),
    **{
        KRB5 + number: meaning
        for numbers, meaning in _MEANINGS.items()
        for number in numbers
    },
}


def _unless(names: str, fine: str) -> str:
    """
    Return the pattern of a relation whose value is none of the fine ones.
    """
    return rf'(?:{names})\s*=(?!\s*"?(?:{fine})"?$).*'


_KDCS = "kdc|primary_kdc|master_kdc"
_RELATION = r"[^\s=\[{}][^\s=]*\s*=.*"
_INVALID = (
    rf"(?!([#;{{}}].*|\[[^]]+\]\*?|{_RELATION})?$).+",
    _unless(
        "ticket_lifetime|renew_lifetime|clockskew|request_timeout",
        r"\d+|(?:\d+[dhms]\s*)+|\d+(?::\d+)+",
    ),
    _unless(_KDCS, r"https:.*|([\w.-]+|\[[\da-f:]+\])(:[1-6]?\d{1,4})?"),
)

# Reason → the lines of krb5.conf that may be its cause, as patterns.
LINES = {
    "config_invalid": "|".join(_INVALID),
    "keytab_enctypes_unusable": r"(?:default_tkt|permitted)_enctypes\s*=.*",
    **dict.fromkeys(OUTAGES, rf"(?:{_KDCS})\s*=.*"),
}


def meaning_of(code: int) -> tuple[str, str]:
    """
    Return the reason for a code of libkrb5, and a sentence with places for names.
    """
    if code in range(-1429577728, -1429577472):  # from the krb5.conf parser
        return "config_invalid", _UNPARSED
    if code in CODES:
        return CODES[code]
    if code in range(1859794432, 1859794688):  # from the ASN.1 decoder
        return "kdc_garbage", _NOT_A_KDC
    if code in range(KRB5, KRB5 + 128):  # from the KDC
        return "kdc_refused", "the KDC refused the request for {principal}"
    return (
        "krb5_failed",
        f"no ticket for {{principal}}; libkrb5 says, with code {code}",
    )
