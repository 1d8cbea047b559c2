"""
The reasons for libkrb5's error codes; the scenario tests get them from a real KDC.
"""

import pytest

from kerberos_sidecar.formats.principal import parse_principal
from kerberos_sidecar.krb5.refusals import REASONS, explain
from sidecar_runtime.errors import SidecarError

UNREACHABLE = -1765328228


def explained(code: int, after_seconds: float = 0.1) -> SidecarError:
    return explain(
        code,
        "its own words",
        principal=parse_principal("airflow@EXAMPLE.COM"),
        keytab="/etc/keytab/k",
        kvno=3,
        after_seconds=after_seconds,
    )


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (-1765328383, "principal_expired"),
        (-1765328378, "principal_unknown"),
        (-1765328366, "principal_disabled"),
        (-1765328361, "password_expired"),
        (-1765328360, "keytab_stale"),
        (-1765328353, "keytab_stale"),
        (-1765328347, "clock_skew"),
        (-1765328370, "keytab_enctypes_unusable"),
        (-1765328203, "keytab_enctypes_unusable"),
        (-1765328230, "realm_unknown"),
        (-1765328164, "kdc_unreachable"),
        (-1765328248, "config_invalid"),
        (-1429577714, "config_invalid"),
        (-1765328191, "ccache_full"),
        (1859794437, "kdc_garbage"),
        (-1765328246, "kdc_garbage"),
        (-1765328372, "kdc_refused"),
        (-1765328324, "kdc_refused"),
        (100001, "krb5_failed"),
        (0, "krb5_failed"),
    ],
)
def test_each_libkrb5_code_has_its_reason(code: int, reason: str) -> None:
    error = explained(code)

    assert reason == error.reason
    assert "its own words" in error.message
    assert "{" not in error.message


def test_elapsed_time_distinguishes_a_silent_kdc_from_a_refused_connection() -> None:
    """libkrb5 returns the same code for both."""
    refused, silent = explained(UNREACHABLE, 0.3), explained(UNREACHABLE, 27.0)

    assert ("kdc_unreachable", "kdc_hung") == (refused.reason, silent.reason)
    assert "no KDC of EXAMPLE.COM answered within 27 s" == silent.message
    # A slow name server is not a silent KDC.
    assert "kdc_unreachable" == explained(-1765328164, 10.0).reason


def test_every_reason_in_the_table_has_advice() -> None:
    with_advice = {
        error.reason
        for code in range(-1765328384, -1765328100)
        if (error := explained(code)).advice
    }

    assert with_advice >= REASONS
