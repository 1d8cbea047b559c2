"""
Verifying a new ticket as its consumers will read it.
"""

import gc
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("gssapi", reason="gssapi is not compiled: make setup-test as root")

from kerberos_sidecar.formats.principal import parse_principal
from kerberos_sidecar.krb5.verify import verify
from sidecar_runtime.errors import SidecarError
from tests.kerberos.given import ccache, tgt
from tests.support.kerberos.kdc import Kdc
from tests.support.raising import raised

AIRFLOW = parse_principal("airflow@EXAMPLE.COM")
NOW = int(time.time())
END = NOW + 7 * 86_400  # later than the end of the longest run of all tests


def reason_of(content: bytes) -> str:
    return raised(SidecarError, verify, content, AIRFLOW).reason


def test_accepts_a_valid_ticket_whatever_the_case_of_its_name() -> None:
    content = ccache(tgt(END, name="AIRFLOW"), name="AIRFLOW")

    assert END == verify(content, AIRFLOW).ends_at


@pytest.mark.parametrize(
    "content",
    [
        b"",
        ccache(),
        ccache(tgt(END))[:-1],
        ccache(tgt(END, name="other"), name="other"),
        ccache(tgt(NOW)),
        ccache(tgt(NOW + 100), offset_seconds=200),
        ccache(tgt(END), tgt(END - 1800)),
    ],
    ids=["empty", "no ticket", "cut", "another's", "ended", "ended by our clock", "two ends"],
)
def test_refuses_an_unusable_or_unrequested_ticket(content: bytes) -> None:
    assert "ticket_unusable" == reason_of(content)


@pytest.fixture
def break_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that makes libkrb5 read an invalid krb5.conf."""
    config = tmp_path / "krb5.conf"
    config.write_text("[libdefaults")
    return lambda: monkeypatch.setenv("KRB5_CONFIG", str(config))


def test_refuses_a_ticket_that_only_gssapi_rejects(break_config: Callable[[], None]) -> None:
    break_config()

    error = raised(SidecarError, verify, ccache(tgt(END)), AIRFLOW)

    assert "ticket_unusable" == error.reason
    assert "gssapi" in error.message


def test_an_error_holds_no_gssapi_objects(
    break_config: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """gssapi cannot release them while krb5.conf is broken, and would report that on stderr."""
    said: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", said.append)
    error = raised(SidecarError, verify, ccache(tgt(NOW)), AIRFLOW)
    break_config()
    del error
    gc.collect()

    assert [] == said


def test_reports_clock_skew_if_a_ticket_has_expired_because_of_it() -> None:
    assert "clock_skew" == reason_of(ccache(tgt(NOW + 100), offset_seconds=600))


def test_verification_asks_no_kdc_even_with_a_default_keytab(
    kdc: Kdc, keytab: Path, krb5_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gssapi would request a new ticket, because this one ends within 30 seconds."""
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", f"FILE:{keytab}")
    before = kdc.requests()

    ticket = tgt(int(time.time()) + 20, realm=kdc.realm)
    verify(ccache(ticket, realm=kdc.realm), parse_principal(f"airflow@{kdc.realm}"))

    assert before == kdc.requests()
