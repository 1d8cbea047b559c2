"""
Tries that are held back: with keys that the KDC has refused, or for a contested ccache.
"""

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest

from kerberos_sidecar.formats.keytab import read_keytab
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.kerberos.box import ANOTHERS, Box, Start
from tests.kerberos.given import ccache, tgt
from tests.runtime.recording import Log
from tests.support.kerberos.kdc import REALM, Kdc
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


@pytest.mark.parametrize("folders", [("missing", "cc"), ("cc", "missing")])
def test_counts_refusals_across_restarts_whichever_ccache_cannot_be_written(
    start: Start, tmp_path: Path, kdc: Kdc, keytab: Path, folders: tuple[str, str]
) -> None:
    kdc.kadmin("modprinc +requires_preauth airflow")
    kdc.kadmin("cpw -randkey airflow")
    before = refusals(kdc)
    text = json.dumps(
        [{"principal": "airflow", "ccache": f"{tmp_path}/{name}/{name}"} for name in folders]
    )

    for _ in range(3):
        box = start(KERBEROS_PRINCIPALS=text, KERBEROS_CCACHE="")
        for _ in range(3):
            box.fails()

    assert 2 == refusals(kdc) - before
    kdc.copy_keys(keytab, "airflow")
    box.fails()
    assert ["cc"] == os.listdir(tmp_path / "cc"), "what was remembered is forgotten"
    kdc.kadmin("modprinc -requires_preauth airflow")


@pytest.mark.parametrize(
    ("names", "most"),
    [
        (("airflow", f"airflow@{REALM}"), 3),
        ((f"AIRFLOW@{REALM}", f"airflow@{REALM}"), 3),
        (("airflow", f"airflow@{REALM}", f"AIRFLOW@{REALM}", "AIRFLOW"), 5),
    ],
)
def test_several_wrong_keytabs_of_an_account_do_not_lock_it(
    start: Start, tmp_path: Path, kdc: Kdc, keytab: Path, names: tuple[str, ...], most: int
) -> None:
    """Active Directory ignores case, and counts the wrong keys of all keytabs together."""
    keytab.unlink()
    items = []
    if not kdc.kadmin("listprincs AIRFLOW").count(f"AIRFLOW@{REALM}"):
        kdc.add_principal("AIRFLOW")
    for number, name in enumerate(names):
        path = kdc.write_keytab(tmp_path / f"keytab{number}", name)
        items.append({"principal": name, "keytab": str(path), "ccache": f"{tmp_path}/cc/{number}"})
    for account in ("airflow", "AIRFLOW"):
        kdc.kadmin(f"modprinc +requires_preauth {account}")
        kdc.kadmin(f"cpw -randkey {account}")
    before = refusals(kdc)

    for _ in range(2):
        box = start(KERBEROS_PRINCIPALS=json.dumps(items), KERBEROS_CCACHE="")
        assert {"keytab_stale"} == {box.fails().reason for _ in range(5)}

    assert len(names) <= refusals(kdc) - before <= most
    kdc.copy_keys(tmp_path / "keytab0", names[0])
    os.utime(tmp_path / "keytab0")
    box.fails()
    assert (tmp_path / "cc" / "0").exists(), "new keys are tried at once"
    for account in ("airflow", "AIRFLOW"):
        kdc.kadmin(f"modprinc -requires_preauth {account}")


def refusals(kdc: Kdc) -> int:
    text = (kdc.folder / "kdc.log").read_text().lower()
    return text.count("preauth_failed: airflow@")


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


def test_retakes_a_closed_ccache_once_then_waits_while_its_ticket_is_valid(
    box: Box, log: Log
) -> None:
    """As two sidecars of one principal publish it, which differ in group or mode."""
    for _ in range(2):
        box.cycle()
        box.ccache.chmod(0o600)

    error = box.fails()

    assert "ccache_contested" == error.reason
    owner = f"uid {os.getuid()} with group {box.ccache.stat().st_gid}"
    assert f"belongs to {owner} again" in error.message
    assert [owner] == [event["owner"] for event in log.events("ccache_taken")]
    box.ccache.write_bytes(ccache(tgt(1, realm=REALM), realm=REALM))
    assert "changed" == box.cycle(Fence(is_asked_for=True)).result, "nobody can use an expired one"


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
