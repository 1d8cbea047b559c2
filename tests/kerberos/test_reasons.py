"""
The reasons for libkrb5's error codes; the scenarios get most of them from a real KDC.
"""

import pytest

from kerberos_sidecar.reasons import CODES, REASONS, meaning_of


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (-1765328383, "principal_expired"),
        (-1765328353, "keytab_stale"),
        (-1765328203, "keytab_enctypes_unusable"),
        (-1429577714, "config_invalid"),
        (22, "config_invalid"),
        (-1765328174, "preauth_unsupported"),
        (1859794437, "kdc_garbage"),
        (-1765328246, "kdc_garbage"),
        (-1765328372, "kdc_refused"),
        (-1765328324, "kdc_refused"),
        (100001, "krb5_failed"),
        (0, "krb5_failed"),
    ],
)
def test_a_code_of_libkrb5_has_its_reason(code: int, reason: str) -> None:
    assert reason == meaning_of(code)[0]


def test_every_reason_has_advice() -> None:
    assert {reason for reason, _ in CODES.values()} <= REASONS.keys()
    assert all(reason.advice.endswith(".") for reason in REASONS.values())
