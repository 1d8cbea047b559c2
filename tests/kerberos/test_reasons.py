"""
Each code that MIT's headers name has its reason, or the words "libkrb5 says".
"""

import errno
import re
from pathlib import Path

import pytest

from kerberos_sidecar.reasons import meaning_of
from kerberos_sidecar.request import Trace

HEADERS = (Path("/usr/include/krb5/krb5.h"), Path("/usr/include/profile.h"))
_CODE = re.compile(r"#define (\w+) +\((-?\d+)L\)")

EXPECTED = {
    "ERROR_TABLE_BASE_.*": None,
    "KRB5KRB_AP_WRONG_PRINC|KRB5KRB_AP_ERR_TKT_INVALID|KRB5KDC_ERR_DISCARD": "",
    "KRB5KDC_ERR_NAME_EXP": "principal_expired",
    "KRB5KDC_ERR_C_PRINCIPAL_UNKNOWN": "principal_unknown",
    "KRB5KDC_ERR_CLIENT_REVOKED": "principal_disabled",
    "KRB5KDC_ERR_KEY_EXP": "password_expired",
    "KRB5KDC_ERR_PREAUTH_FAILED|KRB5KRB_AP_ERR_BAD_INTEGRITY": "keytab_stale",
    "KRB5KRB_AP_ERR_SKEW|KRB5_KDCREP_SKEW": "clock_skew",
    "KRB5KDC_ERR_ETYPE_NOSUPP|KRB5_PROG_(E|KEY)TYPE_NOSUPP|KRB5_WRONG_ETYPE|"
    "KRB5_KT_NOTFOUND|KRB5_BAD_ENCTYPE|KRB5_NOPERM_ETYPE|"
    "KRB5_CONFIG_ETYPE_NOSUPP": "keytab_enctypes_unusable",
    "KRB5_PREAUTH_(FAILED|BAD_TYPE)|KRB5_ERR_FAST_REQUIRED": "preauth_unsupported",
    "KRB5KRB_AP_ERR_(BADVERSION|MSG_TYPE|V4_REPLY)|KRB5_BADMSGTYPE|"
    "KRB5_KDCREP_MODIFIED|ASN1_.*": "kdc_garbage",
    "KRB5_REALM_UNKNOWN": "realm_unknown",
    "KRB5_KDC_UNREACH|KRB5_REALM_CANT_RESOLVE|"
    "KRB5_EAI_(FAIL|NODATA|NONAME)": "kdc_unreachable",
    "KRB5_CONFIG_CANTOPEN": "config_missing",
    "KRB5_CONFIG_BADFORMAT|KRB5_DELTAT_BADFORMAT|PROF_.*": "config_invalid",
    "KRB5_CC_(IO|WRITE)|KRB5_FCC_(PERM|INTERNAL)": "ccache_failed",
    "KRB5KDC_.*|KRB5KRB_.*|KRB5PLACEHOLD_.*": "kdc_refused",  # what else KDCs say
    ".*": "",
}
"""
Names of codes, of which the first pattern counts → the reason, or empty for libkrb5's
own words.
"""


def test_no_code_of_libkrb5_falls_through() -> None:
    if not all(path.exists() for path in HEADERS):
        pytest.skip("MIT's headers are missing: make setup-test as root")
    codes = dict(_CODE.findall("".join(path.read_text() for path in HEADERS))) | {
        "errno": errno.EIO
    }
    assert len(codes) > 300
    for name, code in codes.items():
        expected = EXPECTED[next(one for one in EXPECTED if re.fullmatch(one, name))]

        reason, said = meaning_of(int(code))

        assert expected is None or (expected or "krb5_failed") == reason, name
        assert expected != "" or "libkrb5 says" in said, name


def test_a_code_in_the_name_of_a_realm_that_a_kdc_invents_is_none() -> None:
    """libkrb5 traces the realms that KDCs refer to, whatever they consist of."""
    Trace(dict)(b"Received error from KDC: -" + b"9" * 5000 + b"/")
