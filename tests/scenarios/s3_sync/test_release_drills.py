"""
What can go wrong on the way to a release: the last good one stays, the cause is named, and the
next good answer mends it.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.siege import LAYOUTS, Fortress, fortress
from tests.support.fake_s3 import access_denied, error, redirect
from tests.support.faults import (
    chunked,
    close_after,
    close_silently,
    drip,
    hang,
    replace_body,
    reset,
    truncate,
    unframed,
    wrong_length,
)
from tests.support.loopback import Exchange, Fault, closed_port
from tests.support.shelf import PARTS

PASSWORD_PAGE = b"<html><title>Sign in</title></html>"


@pytest.fixture(scope="module", params=LAYOUTS)
def besieged(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fortress]:
    """
    One daemon in each layout for all drills.
    """
    with fortress(tmp_path_factory.mktemp("drills"), request.param) as besieged:
        yield besieged
        assert 0 == besieged.daemon.terminate().code


def stale(exchange: Exchange) -> None:
    """
    Say 304 although nothing was asked about: a cache that is too clever.
    """
    exchange.send(replace(exchange.good(), status=304, body=b""))


def shifted(exchange: Exchange) -> None:
    """
    Send another range than the one that was asked for, and say so.
    """
    answer = exchange.good()
    other = {"Content-Range": f"bytes 1-{len(answer.body)}/9999999"}
    exchange.send(replace(answer, headers={**answer.headers, **other}))


SPOILT: dict[str, tuple[dict[str, str] | str, Fault]] = {
    "gone": ("release_missing", error(404, "NoSuchKey", "The specified key does not exist.")),
    "denied": (
        "access_denied",
        access_denied("s3:GetObject", "arn:aws:s3:::dags-bucket/dags/x", "arn:aws:iam::1:role/r"),
    ),
    "throttled": ("throttled", error(503, "SlowDown", "Please reduce your request rate.")),
    "failing": ("server_error", error(500, "InternalError", "We encountered an error.")),
    "expired": ("credentials_expired", error(400, "ExpiredToken", "The token has expired.")),
    "archived": (
        "object_archived",
        error(403, "InvalidObjectState", "The operation is not valid for the storage class"),
    ),
    "reset": ("connection_lost", reset()),
    "reset in the midst": ("connection_lost", reset(after=3)),
    "truncated": ("connection_lost", truncate(after=3)),
    "shorter than announced": ("connection_lost", wrong_length(5)),
    "chunks without end": ("connection_lost", chunked(end=False)),
    "without a length": ("server_error", unframed()),
    "redirected": ("redirect_refused", redirect(f"http://127.0.0.1:{closed_port()}/")),
    "a page instead": (
        {
            "pointer": "release_invalid",
            "manifest": "release_invalid",
            "bundle": "bundle_corrupt",
        },
        replace_body(lambda _: PASSWORD_PAGE),
    ),
    "zeros instead": (
        {
            "pointer": "release_invalid",
            "manifest": "release_invalid",
            "bundle": "bundle_corrupt",
        },
        replace_body(lambda body: bytes(len(body))),
    ),
}

PATIENT = ("throttled", "server_error", "connection_lost")


def next_release(besieged: Fortress) -> dict[str, bytes]:
    """
    Let a release be current that no cycle has seen; return its files.
    """
    attack = besieged.make()
    besieged.shelf.store(attack.release)
    besieged.shelf.point_to(attack.release)
    return {row[0]: besieged.contents[row[4]] for row in attack.rows}


def spoil(besieged: Fortress, part: str, fault: Fault, reason: str) -> None:
    """
    Run a cycle of which one part goes wrong, and one that is good.
    """
    before = besieged.visible
    besieged.s3.inject(fault, PARTS[part])
    wanted = next_release(besieged)

    failed = besieged.cycle()

    assert ("cycle_failed", reason) == (failed["event"], failed.get("reason")), failed
    assert before == besieged.visible
    readiness = besieged.daemon.get("/readyz")
    assert (200, reason) == (readiness.status, readiness.json()["reason"])
    assert 200 == besieged.daemon.get("/healthz").status
    besieged.s3.heal()
    assert "cycle_finished" == besieged.cycle()["event"], besieged.daemon.log()
    assert wanted == besieged.visible
    assert besieged.daemon.get("/readyz").json()["reason"] is None
    assert [] == besieged.daemon.stray_lines


def drills() -> Iterator[tuple[str, str]]:
    """
    Each fault and the part that it befalls, in turns.
    """
    for number, name in enumerate(SPOILT):
        yield name, list(PARTS)[number % len(PARTS)]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", SPOILT)
def test_last_good_release_stays_the_cause_is_named_and_the_next_answer_mends_it(
    request: pytest.FixtureRequest, besieged: Fortress, name: str, part: str
) -> None:
    """
    What is asked again for a second or two is tried on every part with `--full` only.
    """
    reason, fault = SPOILT[name]
    is_drill = besieged.layout == "in-place" and (name, part) in drills()
    if reason in PATIENT and not is_drill:
        request.getfixturevalue("only_in_full")
    spoil(besieged, part, fault, reason if isinstance(reason, str) else reason[part])


@pytest.mark.parametrize(
    ("part", "fault"),
    [("pointer", hang()), ("bundle", drip(1, 0.2))],
    ids=["silence", "drip"],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_silence_ends_with_the_cycles_deadline(
    layout: str, part: str, fault: Fault, tmp_path: Path
) -> None:
    with fortress(tmp_path, layout, {"S3_SYNC_TIMEOUT": "2s"}) as besieged:
        spoil(besieged, part, fault, "cycle_timeout")


def test_server_that_is_down_is_borne(besieged: Fortress) -> None:
    before = besieged.visible
    besieged.s3.stop()
    wanted = next_release(besieged)

    failed = besieged.cycle()

    assert "endpoint_unreachable" == failed["reason"]
    assert before == besieged.visible
    besieged.s3.start()
    assert "cycle_finished" == besieged.cycle()["event"]
    assert wanted == besieged.visible


ONCE = {
    "500": error(500, "InternalError"),
    "503": error(503, "SlowDown"),
    "reset": reset(),
    "reset in the midst": reset(after=2),
    "kept connection closed": close_silently(),
    "connection closed": close_after(),
    "chunks": chunked(),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", ONCE)
def test_a_single_odd_answer_is_no_failure_of_the_cycle(
    besieged: Fortress, name: str, part: str
) -> None:
    seen = len(besieged.daemon.events)
    besieged.s3.inject(ONCE[name], PARTS[part], times=1)
    wanted = next_release(besieged)

    besieged.cycle()

    besieged.s3.heal()
    assert [] == [e for e in besieged.daemon.events[seen:] if e["event"] == "cycle_failed"]
    assert wanted == besieged.visible


def test_a_part_of_a_bundle_that_nobody_asked_for_is_not_taken(besieged: Fortress) -> None:
    spoil(besieged, "bundle", shifted, "bundle_corrupt")


def test_server_without_ranges_is_understood(besieged: Fortress) -> None:
    """
    It answers 200 with all of the bundle: what was asked for is cut from it.
    """

    def whole(exchange: Exchange) -> None:
        headers = {name: v for name, v in exchange.request.headers.items() if name != "range"}
        exchange.send(exchange._server.good_answer(replace(exchange.request, headers=headers)))

    besieged.s3.inject(whole, PARTS["bundle"])
    wanted = next_release(besieged)

    ended = besieged.cycle()

    besieged.s3.heal()
    assert "cycle_finished" == ended["event"], ended
    assert wanted == besieged.visible


def test_what_was_missing_is_taken_once_it_is_there_though_the_pointer_is_the_same(
    besieged: Fortress,
) -> None:
    """
    As after a publisher that wrote its pointer too early, or a restored bucket.
    """
    attack = besieged.make()
    wanted = {row[0]: besieged.contents[row[4]] for row in attack.rows}
    besieged.shelf.point_to(attack.release)
    for _ in range(3):
        assert "release_missing" == besieged.cycle()["reason"]

    besieged.shelf.store(attack.release)

    assert "cycle_finished" == besieged.cycle()["event"]
    assert wanted == besieged.visible


def test_corrupt_bundle_is_taken_once_it_is_mended_though_the_pointer_is_the_same(
    besieged: Fortress,
) -> None:
    attack = besieged.make()
    wanted = {row[0]: besieged.contents[row[4]] for row in attack.rows}
    besieged.shelf.store(attack.release)
    besieged.shelf.point_to(attack.release)
    besieged.shelf.put(attack.bundle_name, bytes(len(attack.release.bundle_bytes)))
    for _ in range(3):
        assert "bundle_corrupt" == besieged.cycle()["reason"]

    besieged.shelf.store(attack.release)

    assert "cycle_finished" == besieged.cycle()["event"]
    assert wanted == besieged.visible
