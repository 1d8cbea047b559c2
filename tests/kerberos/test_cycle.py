"""
One cycle after the other, in this thread, against a real KDC.
"""

import json
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client import generate_latest

pytest.importorskip("gssapi", reason="gssapi is not compiled: make setup-test as root")

from kerberos_sidecar.cycle import Shared
from kerberos_sidecar.formats.ccache import read_ticket
from kerberos_sidecar.formats.keytab import read_keytab
from kerberos_sidecar.metrics import KerberosMetrics
from kerberos_sidecar.settings import load_settings
from kerberos_sidecar.sidecar import KerberosSidecar
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.loop.backoff import Backoff
from tests.kerberos.given import SABOTAGE, ccache, config, tgt
from tests.runtime.recording import Log
from tests.support.kdc import REALM, Kdc, expiry_of
from tests.support.raising import raised
from tests.support.waiting import wait_until

ANOTHERS = ccache(tgt(1 << 31, name="other"), name="other")


AT_ONCE = Backoff(floor_seconds=0.0, draw=lambda low, high: 0.0)


class Box:
    """A sidecar whose cycles are run by hand."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.ccache = folder / "cc" / "ccache"
        self.ccache.parent.mkdir(exist_ok=True)
        given = {
            "KRB5_CONFIG": os.environ["KRB5_CONFIG"],
            "KERBEROS_KEYTAB_DIR": str(folder / "keytab"),
            "KERBEROS_CCACHE": str(self.ccache),
        }
        given = {name: value for name, value in {**given, **environ}.items() if value}
        settings, _ = load_settings(given)
        self.metrics = KerberosMetrics("1", "r")
        self.sidecar = KerberosSidecar(settings, self.metrics, Shared(backoff=AT_ONCE))
        self._session = self.sidecar.begin()

    def cycle(self, fence: Fence | None = None) -> Outcome:
        return self._session.cycle(fence or Fence())

    def fails(self) -> SidecarError:
        return raised(SidecarError, self.cycle)

    def sample(self, name: str, ccache: Path | None = None) -> float | None:
        for metric in self.metrics.registry.collect():
            for sample in metric.samples:
                if sample.name == name and sample.labels["ccache"] == str(ccache or self.ccache):
                    return sample.value
        return None


Start = Callable[..., Box]


@pytest.fixture
def start(tmp_path: Path, keytab: Path, krb5_config: Path, log: Log) -> Start:
    """Start a sidecar; principals with the names of their ccaches come before its variables."""

    def begin(principals: Mapping[str, str] = {}, **environ: str) -> Box:
        if principals:
            items = [
                {"principal": principal, "ccache": f"{tmp_path}/cc/{name}", "mode": "0600"}
                for principal, name in principals.items()
            ]
            environ |= {"KERBEROS_PRINCIPALS": json.dumps(items), "KERBEROS_CCACHE": ""}
        return Box(tmp_path, **environ)

    return begin


@pytest.fixture
def box(start: Start) -> Box:
    return start()


def causes(log: Log) -> list[str]:
    return [event["cause"] for event in log.events("ticket_acquired")]


def test_the_first_acquires_and_the_second_has_nothing_to_do(box: Box, log: Log) -> None:
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
    assert 0 == box.sample("kerberos_clock_offset_seconds")
    assert 1 == box.sample("kerberos_acquired_tickets_total")


@pytest.mark.parametrize(
    ("harm", "cause"),
    [
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "damaged"),
        (lambda path: path.write_bytes(ANOTHERS), "taken"),
        (lambda path: path.chmod(0o600), "damaged"),
        (lambda path: path.write_bytes(ccache(config("refresh_time", b"1"))), "damaged"),
    ],
)
def test_damage_to_a_ccache_is_repaired(
    box: Box, log: Log, harm: Callable[[Path], object], cause: str
) -> None:
    box.cycle()
    harm(box.ccache)
    assert not box.sidecar.readiness().ready

    box.cycle()

    assert ["start", cause] == causes(log)
    assert box.sidecar.readiness().ready


@pytest.mark.parametrize("kind", SABOTAGE)
def test_whatever_became_of_a_ccache_the_next_cycle_replaces_it(
    box: Box, log: Log, kind: str
) -> None:
    box.cycle()
    box.ccache.unlink()
    SABOTAGE[kind](box.ccache)
    assert not box.sidecar.readiness().ready

    box.cycle()

    assert ["start", "missing" if kind == "nothing" else "damaged"] == causes(log)
    assert box.sidecar.readiness().ready


@pytest.mark.parametrize("mode", [0o2700, 0o701], ids=oct)
def test_a_folder_that_the_group_cannot_enter_is_a_warning_as_others_may_read_well(
    box: Box, log: Log, start: Start, mode: int
) -> None:
    """Airflow may have our uid, or come as one of the others."""
    box.ccache.parent.chmod(mode)
    closed = start()

    closed.cycle()

    assert closed.sidecar.readiness().ready
    warning = (
        f"{box.ccache} is in {box.ccache.parent} of mode {mode:04o}, which its group may not enter"
    )
    details = closed.sidecar.details()[str(box.ccache)]
    assert isinstance(details, dict)
    assert warning == details["warning"]
    closed.sidecar.watch(lambda: None)
    assert [str(box.ccache)] == [event["ccache"] for event in log.events("folder_closed")]


def test_a_folder_that_lets_everybody_in_who_may_read_is_no_matter(
    box: Box, log: Log, start: Start
) -> None:
    for folder_mode, mode in ((0o2750, "0640"), (0o700, "0600")):
        box.ccache.parent.chmod(folder_mode)
        start(KERBEROS_CCACHE_MODE=mode).sidecar.watch(lambda: None)

    assert [] == log.events("folder_closed")


def test_a_person_who_asks_gets_a_ticket_even_if_the_first_try_fails(
    box: Box, kdc: Kdc, log: Log
) -> None:
    fences = [Fence(), Fence(is_asked_for=True)]
    box.cycle(fences[0])
    kdc.stop()
    try:
        with pytest.raises(SidecarError, match="takes the request"):
            box.cycle(fences[1])
    finally:
        kdc.start()

    box.cycle()

    assert ["start", "asked"] == causes(log)
    assert box.cycle().result == "unchanged"
    # Nobody is blamed for what comes after the KDC's answer.
    assert [None, None] == [fence.blame for fence in fences]


def test_new_keys_are_taken_up_at_once(box: Box, kdc: Kdc, keytab: Path, log: Log) -> None:
    box.cycle()
    before = box.sample("kerberos_keytab_kvno")

    kdc.write_keytab(keytab, "airflow")
    box.cycle()

    assert ["start", "keytab_changed"] == causes(log)
    assert before is not None and before + 1 == box.sample("kerberos_keytab_kvno")


def test_old_keys_keep_the_last_ticket_and_say_so_until_they_are_new(
    box: Box, kdc: Kdc, keytab: Path, log: Log
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


def test_a_fence_that_is_revoked_meanwhile_keeps_the_old_one(box: Box, log: Log) -> None:
    box.cycle()
    content, fence = box.ccache.read_bytes(), Fence(is_asked_for=True)
    fence.revoke()

    with pytest.raises(CycleAbandoned):
        box.cycle(fence)

    assert content == box.ccache.read_bytes()
    assert ["ccache"] == os.listdir(box.ccache.parent)


def test_one_that_fails_does_not_stop_the_others(start: Start, tmp_path: Path, log: Log) -> None:
    good, bad = tmp_path / "cc" / "good", tmp_path / "cc" / "bad"
    box = start({"nobody": "bad", "airflow": "good"})

    reasons = [box.fails().reason for _ in range(3)]

    assert ["principal_absent"] * 3 == reasons
    assert ["good"] == os.listdir(good.parent)
    assert 0o600 == good.stat().st_mode & 0o777
    assert ["nobody"] == [event["principal"] for event in log.events("principal_failed")]
    ready = box.sidecar.readiness()
    assert not ready.ready
    assert f"{bad} is not there (No such file or directory)" == ready.problem
    details = box.sidecar.details()
    assert "principal_absent" in str(details[str(bad)])
    assert "last_error" not in str(details[str(good)])


def test_a_failure_that_comes_back_after_another_process_has_helped_is_named_again(
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


def test_a_realm_that_hangs_holds_up_nobody(
    start: Start, tmp_path: Path, kdc: Kdc, keytab: Path, krb5_config: Path, log: Log
) -> None:
    """
    The cycle is abandoned over the silent KDC of the one; the other gets its tickets meanwhile,
    and the status names the KDC. The next cycle publishes what comes late, without a request.
    """
    with Kdc(tmp_path / "other", "OTHER.TEST") as other:
        hung = other.add_principal("airflow")
        other.write_keytab(keytab, hung)
        with krb5_config.open("a") as config:
            config.write(f"  OTHER.TEST = {{\n    kdc = {other.address}\n  }}\n")
        other.hang()
        box = start({hung: "hung", f"airflow@{kdc.realm}": "good"})
        good, late = tmp_path / "cc" / "good", tmp_path / "cc" / "hung"
        fence = Fence()

        def cycle() -> None:
            with suppress(CycleAbandoned):
                box.cycle(fence)

        thread = threading.Thread(target=cycle)
        thread.start()
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


def test_a_late_ticket_that_ends_before_the_published_one_is_not_taken(
    box: Box, kdc: Kdc, log: Log
) -> None:
    """Another sidecar has published a newer one meanwhile."""
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


def test_wrong_keys_are_tried_twice_also_across_restarts_and_new_ones_at_once(
    start: Start, kdc: Kdc, keytab: Path, log: Log
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
    assert "is not tried before 20" in held.message
    keytab.unlink()
    kdc.copy_keys(keytab, "airflow")
    assert "changed" == again.cycle().result
    assert ["ccache"] == os.listdir(box.ccache.parent), "what was remembered is forgotten"
    kdc.kadmin("modprinc -requires_preauth airflow")


@pytest.mark.parametrize(
    ("life", "offset_seconds", "timesync"), [("10m", -600, "1"), ("5m", -240, "0")]
)
def test_a_kdc_that_is_behind_still_gives_usable_tickets_and_is_not_asked_all_the_time(
    start: Start,
    tmp_path: Path,
    kdc: Kdc,
    krb5_config: Path,
    life: str,
    offset_seconds: int,
    timesync: str,
) -> None:
    """
    By our clock the first ticket has ended, and more than half of the second is over: with
    kdc_timesync libkrb5 goes by the KDC's clock, without it a minute is left.
    """
    name = f"behind{offset_seconds}"
    kdc.add_principal(name, life)
    (tmp_path / "keytab" / "airflow.keytab").unlink()
    kdc.copy_keys(tmp_path / "keytab" / "airflow.keytab", name)
    kdc.client_config(krb5_config, libdefaults={"kdc_timesync": timesync})
    kdc.stop()
    kdc.start(clock_offset_seconds=offset_seconds)
    try:
        box = start()

        results = [box.cycle().result, box.cycle().result]

        ends_in_seconds = expiry_of(box.ccache, krb5_config) - time.time()
        assert (["changed", "unchanged"], True) == (results, box.sidecar.readiness().ready)
        assert ends_in_seconds < 65
    finally:
        kdc.stop()
        kdc.start()


class RevokedBetween(Fence):
    """A fence that is revoked as soon as the result of an attempt was taken, as by SIGTERM."""

    def __init__(self, box: Box) -> None:
        super().__init__()
        (self._slot,) = box.sidecar._slots
        self._has_begun = False

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        if self._has_begun and self._slot.attempt is None:
            self.revoke()
        self._has_begun = self._slot.attempt is not None


def test_a_refusal_is_remembered_though_its_cycle_ends_at_that_moment(
    start: Start, kdc: Kdc, keytab: Path
) -> None:
    """A container that is stopped again and again would lock the account otherwise."""
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


def test_a_ccache_that_another_principal_takes_is_retaken_once_then_named(
    box: Box, log: Log
) -> None:
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


def test_a_ccache_is_not_called_contested_before_it_was_given_back(
    box: Box, kdc: Kdc, log: Log
) -> None:
    box.cycle()
    box.ccache.write_bytes(ANOTHERS)
    kdc.stop()
    try:
        assert ["kdc_unreachable"] * 2 == [box.fails().reason for _ in range(2)]
    finally:
        kdc.start()
    assert [] == log.events("ccache_taken")

    assert "changed" == box.cycle().result


def test_all_that_fail_are_counted_in_the_error(start: Start) -> None:
    assert start({"a": "a", "b": "b"}).fails().message.endswith("; 1 more principals failed")


def test_a_rehearsal_says_what_it_would_do_once_and_asks_nobody(
    start: Start, kdc: Kdc, log: Log
) -> None:
    box, before = start(KERBEROS_DRY_RUN="true"), kdc.requests()

    results = [box.cycle().result for _ in range(3)]

    assert ["unchanged"] * 3 == results
    assert [{str(box.ccache): "start"}] == [e["acquire"] for e in log.events("plan_made")]
    assert before == kdc.requests()
    assert [] == os.listdir(box.ccache.parent)


def test_a_keytab_of_another_principal_removes_the_metrics(
    box: Box, kdc: Kdc, keytab: Path
) -> None:
    """An expiry that nothing renews any more would alert indefinitely."""
    box.cycle()
    kdc.add_principal("successor")
    keytab.unlink()
    kdc.write_keytab(keytab, "successor")

    box.cycle()

    text = generate_latest(box.metrics.registry).decode()
    shown = re.findall(r'kerberos_ticket_expiry_timestamp_seconds{.*principal="(\w+)@', text)
    assert ["successor"] == shown


def test_is_ready_after_a_restart_before_any_cycle(start: Start, box: Box) -> None:
    box.cycle()
    published_at = box.ccache.stat().st_mtime

    ready = start().sidecar.readiness()

    assert (True, published_at, "") == (ready.ready, ready.published_at, ready.problem)
    assert ready.revision.startswith("until 20")


@pytest.mark.parametrize(
    ("principal", "owner", "problem"),
    [
        ("", "airflow", "may be anybody's"),
        ("airflow", "airflow", "may be anybody's"),
        (f"airflow@{REALM}", "airflow", ""),
        (f"airflow@{REALM}", "other", "is of other"),
    ],
)
def test_without_a_keytab_only_the_ticket_of_the_named_principal_counts(
    start: Start, tmp_path: Path, keytab: Path, principal: str, owner: str, problem: str
) -> None:
    box = start(KERBEROS_PRINCIPAL=principal)
    box.ccache.write_bytes(ccache(tgt(1 << 31, name=owner, realm=REALM), name=owner, realm=REALM))
    keytab.unlink()

    ready = start(KERBEROS_PRINCIPAL=principal).sidecar.readiness()

    assert (not problem, True) == (ready.ready, problem in ready.problem)


def test_whose_ticket_it_must_be_is_read_from_the_keytab_before_any_cycle(start: Start) -> None:
    box = start()
    box.ccache.write_bytes(
        ccache(tgt(1 << 31, name="other", realm=REALM), name="other", realm=REALM)
    )

    assert f"is of other@{REALM}, not of airflow@{REALM}" in box.sidecar.readiness().problem


def test_keytab_and_ccache_in_one_folder_are_worth_a_warning(
    start: Start, tmp_path: Path, keytab: Path, log: Log
) -> None:
    for path in (keytab.with_name("ccache"), tmp_path / "elsewhere"):
        start(KERBEROS_CCACHE=str(path)).sidecar.watch(lambda: None)

    exposed = log.events("keytab_exposed")
    assert [str(keytab.parent)] == [event["folder"] for event in exposed]


@pytest.mark.parametrize(
    ("name", "life_seconds"), [("other", 3600), ("airflow", -60)], ids=["another's", "ended"]
)
def test_a_ticket_that_consumers_could_not_use_is_never_published(
    box: Box, monkeypatch: pytest.MonkeyPatch, name: str, life_seconds: int
) -> None:
    box.cycle()
    before = box.ccache.read_bytes()
    given = ccache(
        tgt(int(time.time()) + life_seconds, name=name, realm=REALM), name=name, realm=REALM
    )
    monkeypatch.setattr("kerberos_sidecar.cycle.acquire_ticket", lambda *_: given)

    error = raised(SidecarError, box.cycle, Fence(is_asked_for=True))

    assert "ticket_unusable" == error.reason
    assert before == box.ccache.read_bytes()
    assert [box.ccache] == list(box.ccache.parent.iterdir())
