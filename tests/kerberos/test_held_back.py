"""
Tries that are held back: with keys that the KDC has refused, or for a contested ccache.
"""

import os
from contextlib import suppress
from pathlib import Path

from kerberos_sidecar.formats.keytab import read_keytab
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.kerberos.box import ANOTHERS, Box, Start
from tests.runtime.recording import Log
from tests.support.kerberos.kdc import Kdc
from tests.support.raising import raised


def test_keeps_the_ticket_and_reports_stale_keys_until_they_are_replaced(
    box: Box, kdc: Kdc, keytab: Path
) -> None:
    box.cycle()
    content = box.ccache.read_bytes()
    kdc.kadmin("cpw -randkey airflow")
    os.utime(keytab)

    assert ["keytab_stale"] * 2 == [box.fails().reason for _ in range(2)]
    assert content == box.ccache.read_bytes()
    assert box.sidecar.readiness().ready
    assert read_keytab(str(keytab)).keys[0].kvno == box.sample("kerberos_keytab_kvno")

    kdc.copy_keys(keytab, "airflow")
    assert "changed" == box.cycle().result


def test_tries_wrong_keys_twice_across_restarts_and_new_keys_immediately(
    start: Start, kdc: Kdc, keytab: Path
) -> None:
    kdc.kadmin("modprinc +requires_preauth airflow")
    kdc.kadmin("cpw -randkey airflow")
    before = refusals(kdc)
    box = start()

    reasons = [box.fails().reason for _ in range(3)]
    again = start()
    held = again.fails()
    asked = raised(SidecarError, again.cycle, Fence(is_asked_for=True))

    assert ["keytab_stale"] * 5 == [*reasons, held.reason, asked.reason]
    assert 2 == refusals(kdc) - before
    assert "is not tried again before 20" in held.message
    keytab.unlink()
    kdc.copy_keys(keytab, "airflow")
    assert "changed" == again.cycle().result
    assert ["ccache"] == os.listdir(box.ccache.parent), "what was remembered is forgotten"
    kdc.kadmin("modprinc -requires_preauth airflow")


class RevokedBetween(Fence):
    """A fence that is revoked, as on SIGTERM, right after the result of an attempt is handled."""

    def __init__(self, box: Box) -> None:
        super().__init__()
        (self._slot,) = box.sidecar._slots
        self._has_begun = False

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        if self._has_begun and self._slot.attempt is None:
            self.revoke()
        self._has_begun = self._slot.attempt is not None


def test_remembers_a_refusal_even_if_its_cycle_is_revoked_right_after_it(
    start: Start, kdc: Kdc, keytab: Path
) -> None:
    """Otherwise, a container that restarts repeatedly would lock the account."""
    kdc.kadmin("modprinc +requires_preauth airflow")
    kdc.kadmin("cpw -randkey airflow")
    before = refusals(kdc)
    for _ in range(3):
        box = start()
        with suppress(CycleAbandoned, SidecarError):
            box.cycle(RevokedBetween(box))

    assert 2 == refusals(kdc) - before
    kdc.copy_keys(keytab, "airflow")
    kdc.kadmin("modprinc -requires_preauth airflow")


def refusals(kdc: Kdc) -> int:
    return (kdc.folder / "kdc.log").read_text().count("PREAUTH_FAILED: airflow@")


def test_retakes_a_ccache_from_another_principal_once_then_reports_it(box: Box, log: Log) -> None:
    box.cycle()
    box.ccache.write_bytes(ANOTHERS)
    box.cycle()
    box.ccache.write_bytes(ANOTHERS)

    error = box.fails()

    assert "ccache_contested" == error.reason
    assert "other@EXAMPLE.COM" in error.message and "airflow@" in error.message
    assert ANOTHERS == box.ccache.read_bytes()
    taken = log.events("ccache_taken")
    assert [("other@EXAMPLE.COM", "warning")] == [(e["owner"], e["level"]) for e in taken]


def test_a_taken_ccache_is_not_contested_before_it_is_retaken(box: Box, kdc: Kdc, log: Log) -> None:
    box.cycle()
    box.ccache.write_bytes(ANOTHERS)
    kdc.stop()
    try:
        assert ["kdc_unreachable"] * 2 == [box.fails().reason for _ in range(2)]
    finally:
        kdc.start()
    assert [] == log.events("ccache_taken")

    assert "changed" == box.cycle().result
