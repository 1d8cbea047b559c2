"""
The meaning of libkrb5's failures, with advice for the operator.

Codes are from MIT's ``krb5.h`` and ``profile.h``.
"""

from __future__ import annotations

from kerberos_sidecar.formats.principal import Principal
from sidecar_runtime.errors import SidecarError

# "Cannot contact any KDC" and "cannot resolve its address". libkrb5 also returns the first for a
# name that DNS does not know and for a silent KDC. Refusals and unknown names fail within 0.3 s;
# silence takes 18 to 27 s (MIT 1.20.1, 2026-11).
_NO_CONTACT, _NO_ADDRESS = -1765328228, -1765328164
SILENCE_SECONDS = 3.0
_BAD_FORMAT = -1765328248

# Code → reason, what happened, advice.
_KRB5 = {
    -1765328383: (
        "principal_expired",
        "the KDC reports that the account {principal} has expired",
        "Extend the account's expiry date.",
    ),
    -1765328378: (
        "principal_unknown",
        "the KDC does not know {principal}",
        "Check whether the account was deleted. Create the principal, or set KERBEROS_PRINCIPAL.",
    ),
    -1765328370: (
        "keytab_enctypes_unusable",
        "the KDC supports none of the permitted encryption types in {keytab} for {principal}",
        "Export the keytab with AES keys, and check permitted_enctypes in krb5.conf.",
    ),
    -1765328366: (
        "principal_disabled",
        "the KDC reports that the account {principal} is disabled or locked",
        "Enable the account. If failed logins locked it, look for a client with an old keytab.",
    ),
    -1765328361: (
        "password_expired",
        "the KDC reports that the password or key of {principal} has expired",
        "Exempt the account from expiry, or change its key and export the keytab again.",
    ),
    -1765328360: (
        "keytab_stale",
        "the KDC does not accept the key of {principal} (kvno {kvno}) in {keytab}",
        "The key has changed: export the keytab again. ktadd without -norandkey changes the key.",
    ),
    -1765328353: (
        "keytab_stale",
        "the key of {principal} (kvno {kvno}) in {keytab} cannot decrypt the KDC's reply",
        "The key has changed, or was created with another salt: export the keytab again.",
    ),
    -1765328347: (
        "clock_skew",
        "the clocks of this node and the KDC differ by more than the allowed skew",
        "Fix the node's time. libkrb5 tolerates the skew unless krb5.conf has kdc_timesync = 0.",
    ),
    -1765328236: (
        "clock_skew",
        "the time in the KDC's reply differs by more than the allowed skew",
        "Fix the node's time synchronization.",
    ),
    -1765328230: (
        "realm_unknown",
        "neither krb5.conf nor DNS names a KDC for the realm of {principal}",
        "Add the realm and its kdc to krb5.conf. Check KRB5_CONFIG and the realm's capitals.",
    ),
    _BAD_FORMAT: (
        "config_invalid",
        "krb5.conf cannot be parsed",
        "Correct the file that KRB5_CONFIG names.",
    ),
    -1765328191: (
        "ccache_full",
        "the ccache's volume has no space for the ticket",
        "Enlarge the volume (sizeLimit). The published ccache is intact.",
    ),
} | dict.fromkeys(
    (-1765328234, -1765328203, -1765328196, -1765328148, -1765328147),
    (
        "keytab_enctypes_unusable",
        "{keytab} has no key for {principal} with a permitted encryption type",
        "Export the keytab with AES keys, and check permitted_enctypes in krb5.conf.",
    ),
)

REASONS = {reason for reason, _, _ in _KRB5.values()}

# Ranges of error codes: from the KDC, from the ASN.1 decoder, from the krb5.conf parser.
_FROM_KDC = range(-1765328384, -1765328256)
_ASN1 = range(1859794432, 1859794432 + 256)
_PROFILE = range(-1429577728, -1429577728 + 256)
_ODD_ANSWERS = {-1765328246, -1765328237, -1765328345, -1765328344, -1765328165}


def explain(
    code: int,
    said: str,
    *,
    principal: Principal,
    keytab: str,
    kvno: int,
    after_seconds: float,
) -> SidecarError:
    """
    Return the error for a failed acquisition.

    Args:
        code: The minor status, signed.
        said: The text of libkrb5, quoted in the error.
        after_seconds: How long the acquisition took to fail.
    """
    if code in (_NO_CONTACT, _NO_ADDRESS):
        if code == _NO_CONTACT and after_seconds > SILENCE_SECONDS:
            return hung(principal, f" within {after_seconds:.0f} s")
        return unreachable(principal, said)
    if code in _KRB5 or code in _PROFILE:
        reason, text, advice = _KRB5[_BAD_FORMAT if code in _PROFILE else code]
        names = {"principal": principal, "keytab": keytab, "kvno": kvno}
        return SidecarError(reason, f"{text.format(**names)} ({said})", advice)
    if code in _ASN1 or code in _ODD_ANSWERS:
        return spoiled(principal, said)
    if code in _FROM_KDC:
        return SidecarError(
            "kdc_refused",
            f"the KDC refused the request for {principal} ({said})",
            "Look for the reason in the KDC's log.",
        )
    return SidecarError(
        "krb5_failed", f"libkrb5 could not acquire a ticket for {principal} ({code}: {said})"
    )


def unreachable(principal: Principal, said: str) -> SidecarError:
    """
    Return the error if every KDC refuses the connection or has no address.
    """
    return SidecarError(
        "kdc_unreachable",
        f"no KDC of {principal.realm} accepts the request ({said})",
        "Check that the KDC is up, kdc = and the port in krb5.conf, that DNS resolves the name, "
        "and network policies for UDP and TCP 88.",
    )


def spoiled(principal: Principal, said: str) -> SidecarError:
    """
    Return the error for an answer that is not a Kerberos message.
    """
    return SidecarError(
        "kdc_garbage",
        f"the server that answers for {principal.realm} does not speak Kerberos ({said})",
        "Check kdc = and the port in krb5.conf, and look for a proxy that changes answers.",
    )


def hung(principal: Principal, after: str = "") -> SidecarError:
    """
    Return the error if no KDC answers.
    """
    return SidecarError(
        "kdc_hung",
        f"no KDC of {principal.realm} answered{after}",
        "Look for a firewall that drops packets to port 88, an overloaded KDC, and KDCs in "
        "krb5.conf that no longer exist.",
    )
