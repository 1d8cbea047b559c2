"""
Consecutive cycles in this thread, against a real KDC.
"""

import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from kerberos_sidecar.attempt import Attempt
from kerberos_sidecar.formats.ccache import read_ticket
from kerberos_sidecar.formats.keytab import read_keytab
from kerberos_sidecar.formats.principal import Principal
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.http.endpoint import registry_of
from tests.kerberos.box import ANOTHERS, Box, Start, causes
from tests.kerberos.given import SABOTAGE, ccache, config, tgt
from tests.runtime.recording import Log
from tests.support.kerberos.kdc import REALM, Kdc, expiry_of
from tests.support.raising import raised
from tests.support.waiting import wait_until


def test_acquires_a_ticket_in_the_first_cycle_and_none_in_the_second(box: Box, log: Log) -> None:
    outcomes = [box.cycle(), box.cycle()]

    ticket = read_ticket(box.ccache.read_bytes())
    until = time.strftime("until %Y-%m-%dT%H:%M:%SZ", time.gmtime(ticket.ends_at))
    assert [
        Outcome("changed", until, {"tickets_acquired": 1}),
        Outcome("unchanged", until, {"tickets_acquired": 0}),
    ] == outcomes
    assert ["start"] == causes(log)
    assert ticket.ends_at == box.sample("kerberos_ticket_expiry_timestamp_seconds")
    assert ticket.lifetime_seconds == box.sample("kerberos_ticket_lifetime_seconds")
    # In whole seconds: the next one may begin while the KDC answers.
    assert box.sample("kerberos_clock_offset_seconds") in (0, 1)
    assert 1 == box.sample("kerberos_acquired_tickets_total")


def removed_and(sabotage: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda path: (path.unlink(), sabotage(path))


HARM: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "another's": lambda path: path.write_bytes(ANOTHERS),
    "closed": lambda path: path.chmod(0o600),
    "notes alone": lambda path: path.write_bytes(ccache(config("refresh_time", b"1"))),
    **{name: removed_and(sabotage) for name, sabotage in SABOTAGE.items()},
}


@pytest.mark.parametrize("kind", HARM)
def test_the_next_cycle_replaces_a_damaged_or_missing_ccache(box: Box, log: Log, kind: str) -> None:
    box.cycle()
    HARM[kind](box.ccache)
    assert not box.sidecar.readiness().ready

    box.cycle()

    cause = {"another's": "taken", "nothing": "missing"}.get(kind, "damaged")
    assert ["start", cause] == causes(log)
    assert box.sidecar.readiness().ready


def test_acquires_a_requested_ticket_after_a_failed_first_try(box: Box, kdc: Kdc, log: Log) -> None:
    fences = [Fence(), Fence(is_asked_for=True)]
    box.cycle(fences[0])
    kdc.stop()
    try:
        with pytest.raises(SidecarError, match="accepts the request"):
            box.cycle(fences[1])
    finally:
        kdc.start()

    box.cycle()

    assert ["start", "asked"] == causes(log)
    assert box.cycle().result == "unchanged"
    # After its answer, the KDC is no longer blamed for a slow cycle.
    assert [None, None] == [fence.blame for fence in fences]


def test_acquires_a_ticket_for_a_changed_keytab(box: Box, kdc: Kdc, keytab: Path, log: Log) -> None:
    box.cycle()
    before = box.sample("kerberos_keytab_kvno")

    kdc.write_keytab(keytab, "airflow")
    box.cycle()

    assert ["start", "keytab_changed"] == causes(log)
    assert before is not None and before + 1 == box.sample("kerberos_keytab_kvno")


def test_the_key_version_is_zero_without_a_keytab(box: Box, keytab: Path) -> None:
    box.cycle()
    keytab.unlink()

    assert "keytab_missing" == box.fails().reason
    assert 0 == box.sample("kerberos_keytab_kvno")
    assert "'kvno'" not in str(box.sidecar.details())


@pytest.mark.parametrize("ahead_seconds", [600])
def test_acquires_exactly_one_ticket_with_the_new_offset_after_the_clock_was_set(
    box: Box, kdc: Kdc, log: Log, ahead_seconds: int
) -> None:
    """With the old offset, consumers would send services a time that is ten minutes ahead."""

    def offset_seconds() -> float:
        return box.sample("kerberos_clock_offset_seconds") or 0

    kdc.stop()
    kdc.start(clock_offset_seconds=ahead_seconds)
    try:
        box.cycle()
    finally:
        kdc.stop()
        kdc.start()
    assert abs(offset_seconds() - ahead_seconds) < ahead_seconds / 2
    (slot,) = box.sidecar._slots
    assert slot.last is not None
    slot.last = replace(slot.last, zero_at=slot.last.zero_at - ahead_seconds)

    results = [box.cycle().result, box.cycle().result]

    assert ["changed", "unchanged"] == results
    assert ["start", "clock_set"] == causes(log)
    assert abs(offset_seconds()) < ahead_seconds / 2


def test_does_not_publish_a_late_ticket_that_ends_before_the_published_one(
    box: Box, kdc: Kdc, log: Log
) -> None:
    """Meanwhile, another sidecar has published a newer ticket."""
    box.cycle()
    before = kdc.requests()
    kdc.hang()
    fence = Fence(is_asked_for=True)
    thread = threading.Thread(target=lambda: raised(CycleAbandoned, box.cycle, fence))
    thread.start()
    wait_until(lambda: fence.blame is not None, "the KDC is asked")
    fence.revoke()
    thread.join()
    box.ccache.write_bytes(ccache(tgt(1 << 31, realm=REALM), realm=REALM))
    kdc.resume()

    box.cycle()

    assert 2 == kdc.requests() - before, "the one that came late, and another, as was asked for"
    assert ["start", "asked"] == causes(log)


@pytest.mark.parametrize(
    ("life_seconds", "offset_seconds", "timesync"), [(600, -600, "1"), (300, -240, "0")]
)
def test_a_slow_kdc_clock_yields_usable_tickets_without_constant_requests(
    start: Start,
    tmp_path: Path,
    kdc: Kdc,
    krb5_config: Path,
    life_seconds: int,
    offset_seconds: int,
    timesync: str,
) -> None:
    """
    In the first case, the ticket has expired by our clock, but kdc_timesync makes libkrb5 use the
    KDC's clock. In the second, without kdc_timesync, one of its five minutes is left.
    """
    name = f"behind{offset_seconds}"
    kdc.add_principal(name, f"{life_seconds}s")
    (tmp_path / "keytab" / "airflow.keytab").unlink()
    kdc.copy_keys(tmp_path / "keytab" / "airflow.keytab", name)
    kdc.client_config(krb5_config, libdefaults={"kdc_timesync": timesync})
    kdc.stop()
    kdc.start(clock_offset_seconds=offset_seconds)
    try:
        box = start()

        results = [box.cycle().result, box.cycle().result]

        assert (["changed", "unchanged"], True) == (results, box.sidecar.readiness().ready)
        ends_at = expiry_of(box.ccache, krb5_config)
        assert ends_at <= math.ceil(time.time()) + life_seconds + offset_seconds
    finally:
        kdc.stop()
        kdc.start()


def test_removes_the_metrics_of_a_replaced_principal(box: Box, kdc: Kdc, keytab: Path) -> None:
    """An expiry that is no longer updated would alert indefinitely."""
    box.cycle()
    kdc.add_principal("successor")
    keytab.unlink()
    kdc.write_keytab(keytab, "successor")

    box.cycle()

    text = generate_latest(registry_of(box.metrics.families)).decode()
    shown = re.findall(r'kerberos_ticket_expiry_timestamp_seconds{.*principal="(\w+)@', text)
    assert ["successor"] == shown


@pytest.mark.parametrize(
    ("name", "life_seconds"), [("other", 3600), ("airflow", -60)], ids=["another's", "ended"]
)
def test_never_publishes_a_ticket_that_consumers_could_not_use(
    box: Box, keytab: Path, name: str, life_seconds: int
) -> None:
    box.cycle()
    before = box.ccache.read_bytes()
    given = ccache(
        tgt(int(time.time()) + life_seconds, name=name, realm=REALM), name=name, realm=REALM
    )
    (slot,) = box.sidecar._slots
    principal, stamp = Principal(("airflow",), REALM), slot.source.stamp()
    slot.attempt = Attempt(
        principal, read_keytab(str(keytab)), stamp, "asked", lambda: given, lambda: None
    )

    error = raised(SidecarError, box.cycle, Fence(is_asked_for=True))

    assert "ticket_unusable" == error.reason
    assert before == box.ccache.read_bytes()
    assert [box.ccache] == list(box.ccache.parent.iterdir())
