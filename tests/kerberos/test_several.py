"""
Several principals in one cycle: none delays another.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kerberos_sidecar.formats.ccache import read_ticket
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.http.endpoint import registry_of
from tests.kerberos.box import Box, Start
from tests.runtime.recording import Log
from tests.support.kerberos.kdc import Kdc
from tests.support.waiting import wait_until


@contextmanager
def silent_realm(folder: Path, keytab: Path, krb5_config: Path) -> Iterator[tuple[Kdc, str]]:
    """Start a KDC that does not answer, and add its principal to the keytab."""
    with Kdc(folder / "other", "OTHER.TEST") as other:
        hung = other.add_principal("airflow")
        other.write_keytab(keytab, hung)
        with krb5_config.open("a") as config:
            config.write(f"  OTHER.TEST = {{\n    kdc = {other.address}\n  }}\n")
        other.hang()
        yield other, hung


def cycle_beside(box: Box, fence: Fence) -> threading.Thread:
    """Start a cycle in a thread, which the fence may end."""

    def cycle() -> None:
        with suppress(CycleAbandoned):
            box.cycle(fence)

    thread = threading.Thread(target=cycle)
    thread.start()
    return thread


def test_a_failing_principal_does_not_stop_others(start: Start, tmp_path: Path, log: Log) -> None:
    good, bad = tmp_path / "cc" / "good", tmp_path / "cc" / "bad"
    box = start({"nobody": "bad", "airflow": "good"})
    began = time.time()

    reasons = [box.fails().reason for _ in range(3)]

    assert ["principal_absent"] * 3 == reasons
    assert ["good"] == os.listdir(good.parent)
    stamp, labels = "sidecar_last_publish_timestamp_seconds", {"sidecar": "kerberos"}
    assert (registry_of(box.metrics.families).get_sample_value(stamp, labels) or 0) >= began
    assert 0o600 == good.stat().st_mode & 0o777
    assert ["nobody"] == [event["principal"] for event in log.events("principal_failed")]
    ready = box.sidecar.readiness()
    assert not ready.ready
    assert f"{bad} cannot be found (No such file or directory)" == ready.problem
    details = box.sidecar.details()
    assert "principal_absent" in str(details[str(bad)])
    assert "last_error" not in str(details[str(good)])


def test_logs_a_failure_again_after_another_process_had_fixed_it(
    start: Start, tmp_path: Path, kdc: Kdc, log: Log
) -> None:
    kdc.add_principal("second")
    kdc.write_keytab(tmp_path / "keytab" / "airflow.keytab", "second")
    box = start({"airflow": "first", "second": "second"})
    box.cycle()
    path = tmp_path / "cc" / "second"
    good = path.read_bytes()
    kdc.stop()
    try:
        for _ in range(2):
            path.unlink()
            assert "kdc_unreachable" == box.fails().reason
            path.write_bytes(good)
            path.chmod(0o600)
            assert "unchanged" == box.cycle().result
    finally:
        kdc.start()

    assert 2 == len(log.events("principal_failed"))


def test_a_silent_realm_does_not_delay_another_principal(
    start: Start, tmp_path: Path, kdc: Kdc, keytab: Path, krb5_config: Path
) -> None:
    """
    The cycle is abandoned because one KDC is silent. Meanwhile, the other principal gets its
    tickets, and the status reports the hung KDC. The next cycle publishes the late ticket.
    """
    with silent_realm(tmp_path, keytab, krb5_config) as (other, hung):
        box = start({hung: "hung", f"airflow@{kdc.realm}": "good"})
        good, late = tmp_path / "cc" / "good", tmp_path / "cc" / "hung"
        fence = Fence()
        thread = cycle_beside(box, fence)
        wait_until(good.exists, "the first ticket of the other")
        good.unlink()
        wait_until(good.exists, "the second, in the same cycle")
        wait_until(lambda: "OTHER" in str(fence.blame), "it waits for the silent one again")
        fence.revoke()
        thread.join()
        details = box.sidecar.details()
        ends_at = read_ticket(good.read_bytes()).ends_at
        assert ends_at == box.sample("kerberos_ticket_expiry_timestamp_seconds", good)
        other.resume()
        outcome = box.cycle()

        assert ("changed", 1) == (outcome.result, outcome.counts["tickets_acquired"])
        assert hung == str(read_ticket(late.read_bytes()).principal)
        assert other.requests() <= 2, "one request, by UDP and by TCP"
    assert "kdc_hung" in str(details[str(late)])
    assert "last_error" not in str(details[str(good)])


def test_the_error_counts_all_failed_principals(start: Start) -> None:
    assert start({"a": "a", "b": "b"}).fails().message.endswith("; 1 more failed")


def test_the_error_names_what_needs_a_person_before_an_outage(start: Start, kdc: Kdc) -> None:
    box = start({"airflow": "away", "nobody": "bad"})
    kdc.stop()
    try:
        error = box.fails()
    finally:
        kdc.start()

    assert "principal_absent" == error.reason
    assert error.message.endswith("; 1 more failed")


def test_a_cycle_that_waits_for_one_principal_requests_no_second_one_for_another(
    start: Start, tmp_path: Path, keytab: Path, krb5_config: Path
) -> None:
    """It replaces the other's ticket itself, so that a second cycle would only fail once more."""
    with silent_realm(tmp_path, keytab, krb5_config) as (other, hung):
        box = start({hung: "hung", "airflow@EXAMPLE.TEST": "good"})
        good = tmp_path / "cc" / "good"
        fence, woken = Fence(), threading.Semaphore(0)
        thread = cycle_beside(box, fence)
        wait_until(good.exists, "the first ticket of the other")
        box.sidecar.watch(woken.release, 3600.0)
        for _ in range(3):
            good.unlink()
            wait_until(good.exists, "the next, in the same cycle")
        was_woken = woken.acquire(timeout=0.5)
        fence.revoke()
        thread.join()
        good.unlink()

        assert not was_woken
        assert woken.acquire(timeout=10), "no cycle runs any more"
        other.resume()
