"""
What a failure of libkrb5 means, and what a person should do about it.

Codes are those of MIT's ``krb5.h`` and ``profile.h``.
"""

from __future__ import annotations

from kerberos_sidecar.formats.principal import Principal
from sidecar_runtime.errors import SidecarError

# Cannot contact any KDC, and cannot resolve its address. Of the two libkrb5 gives the first also
# for a name that DNS does not know, and for a KDC that is silent; but refusals and unknown names
# fail within 0.3 s, and silence costs 18 to 27 s (MIT 1.20.1, 2026-11).
_NO_CONTACT, _NO_ADDRESS = -1765328228, -1765328164
SILENCE_SECONDS = 3.0
_BAD_FORMAT = -1765328248

# Code → reason, what happened, advice.
_KRB5 = {
    -1765328383: (
        "principal_expired",
        "the KDC says that the account {principal} has expired",
        "Extend the account.",
    ),
    -1765328378: (
        "principal_unknown",
        "the KDC does not know {principal}",
        "Create the principal, or correct KERBEROS_PRINCIPAL; was the account deleted?",
    ),
    -1765328370: (
        "keytab_enctypes_unusable",
        "the KDC has no key of {principal} of the types that are in {keytab} and allowed here",
        "Export the keytab with AES keys; compare permitted_enctypes in krb5.conf.",
    ),
    -1765328366: (
        "principal_disabled",
        "the KDC says that the account {principal} is disabled or locked",
        "Enable the account. If it was locked by failures, look for a client with an old keytab.",
    ),
    -1765328361: (
        "password_expired",
        "the KDC says that the password or key of {principal} has expired",
        "Exempt the account from expiry, or change its key and export the keytab again.",
    ),
    -1765328360: (
        "keytab_stale",
        "the KDC does not accept the key of {principal} (kvno {kvno}) in {keytab}",
        "The key was changed since: export the keytab again. ktadd without -norandkey changes it.",
    ),
    -1765328353: (
        "keytab_stale",
        "the key of {principal} (kvno {kvno}) in {keytab} does not open what the KDC sends",
        "The key was changed since, or made with another salt: export the keytab again.",
    ),
    -1765328347: (
        "clock_skew",
        "the clocks of this node and the KDC differ by more than is allowed",
        "Fix the node's time; without kdc_timesync = 0 in krb5.conf, libkrb5 bears the skew.",
    ),
    -1765328236: (
        "clock_skew",
        "the KDC's answer is off by more time than is allowed",
        "Fix the time synchronization of the node.",
    ),
    -1765328230: (
        "realm_unknown",
        "neither krb5.conf nor DNS names a KDC for the realm of {principal}",
        "Add the realm with its kdc to krb5.conf; check KRB5_CONFIG and the realm's capitals.",
    ),
    _BAD_FORMAT: (
        "config_invalid",
        "krb5.conf cannot be parsed",
        "Correct the file that KRB5_CONFIG names.",
    ),
    -1765328191: (
        "ccache_full",
        "there is no room for the ticket on the volume of the ccache",
        "Enlarge the volume (sizeLimit). The last ccache is whole.",
    ),
}
for _code in (-1765328234, -1765328203, -1765328196, -1765328148, -1765328147):
    _KRB5[_code] = (
        "keytab_enctypes_unusable",
        "{keytab} has no key of {principal} of a type that is allowed here",
        "Export the keytab with AES keys; compare permitted_enctypes in krb5.conf.",
    )

REASONS = {reason for reason, _, _ in _KRB5.values()}

# Sections of error codes: krb5's own, from the KDC's; ASN.1's; the parser's of krb5.conf.
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
        said: The text of libkrb5, where no other is better.
        after_seconds: How long it took to fail.
    """
    if code in (_NO_CONTACT, _NO_ADDRESS):
        if code == _NO_CONTACT and after_seconds > SILENCE_SECONDS:
            return hung(principal, f" ({after_seconds:.0f} s)")
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
            f"the KDC refuses {principal} ({said})",
            "The KDC's log has the reason.",
        )
    return SidecarError(
        "krb5_failed", f"libkrb5 could not acquire a ticket for {principal} ({code}: {said})"
    )


def unreachable(principal: Principal, said: str) -> SidecarError:
    """
    Return the error for KDCs that all refuse the connection, or have no address.
    """
    return SidecarError(
        "kdc_unreachable",
        f"no KDC of {principal.realm} takes the request ({said})",
        "Is the KDC up? Check kdc = and the port in krb5.conf, whether DNS knows the name, "
        "and network policies for UDP and TCP 88.",
    )


def spoiled(principal: Principal, said: str) -> SidecarError:
    """
    Return the error for an answer that is not Kerberos.
    """
    return SidecarError(
        "kdc_garbage",
        f"what answers for {principal.realm} does not speak Kerberos ({said})",
        "Check kdc = and the port in krb5.conf; look for a proxy that changes answers.",
    )


def hung(principal: Principal, after: str = "") -> SidecarError:
    """
    Return the error for KDCs that do not answer.
    """
    return SidecarError(
        "kdc_hung",
        f"no KDC of {principal.realm} answers{after}",
        "Look for a firewall that drops packets to port 88, at the KDC's load, and for KDCs in "
        "krb5.conf that are gone.",
    )
