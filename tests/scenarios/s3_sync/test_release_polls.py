"""
Polls between cycles: what goes wrong with one is a failed cycle soon, and mended soon.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.siege import Fortress, fortress
from tests.scenarios.s3_sync.test_release_drills import PATIENT, SPOILT, next_release
from tests.support.fake_s3 import error
from tests.support.faults import (
    chunked,
    close_after,
    close_silently,
    drip,
    hang,
    raw,
    replace_body,
    reset,
)
from tests.support.loopback import Exchange, Fault
from tests.support.shelf import is_manifest, is_pointer
from tests.support.waiting import wait_until

OFTEN = {"INTERVAL": "0.2", "S3_SYNC_JITTER": "0"}


@pytest.fixture(scope="module")
def polling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fortress]:
    """
    A daemon that polls five times a second.
    """
    with fortress(tmp_path_factory.mktemp("polls"), "in-place", OFTEN) as polling:
        yield polling
        assert 0 == polling.daemon.terminate().code


def wait_for_polls(polling: Fortress, count: int = 3) -> None:
    """
    Wait until so many more polls have come.
    """
    polling.s3.forget()
    polling.s3.wait_for(is_pointer, count=count, timeout=30)


def wait_until_seen(polling: Fortress, wanted: dict[str, bytes]) -> None:
    wait_until(lambda: polling.visible == wanted, "the release is there", 60)
    wait_until(
        lambda: polling.daemon.get("/readyz").json()["reason"] is None, "/readyz is content", 60
    )


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_wrong_with_the_pointer_is_told_and_the_next_good_answer_mends_it(
    request: pytest.FixtureRequest, polling: Fortress, name: str
) -> None:
    reason, fault = SPOILT[name]
    if reason in PATIENT:
        request.getfixturevalue("only_in_full")
    wait_for_polls(polling)
    before, seen = polling.visible, len(polling.daemon.events)
    polling.s3.inject(fault, is_pointer)
    wanted = next_release(polling)  # an answer 304 has no body that could be spoilt

    failed = polling.daemon.wait_for_event("cycle_failed", 30, seen)

    assert (reason if isinstance(reason, str) else reason["pointer"]) == failed["reason"]
    assert before == polling.visible
    assert 200 == polling.daemon.get("/readyz").status
    polling.s3.heal()
    wait_until_seen(polling, wanted)
    assert [] == polling.daemon.stray_lines


@pytest.mark.parametrize("fault", [hang(), drip(1, 0.2)], ids=["silence", "drip"])
def test_silence_ends_with_a_deadline(fault: Fault, tmp_path: Path) -> None:
    with fortress(tmp_path, "in-place", {**OFTEN, "S3_SYNC_TIMEOUT": "2s"}) as polling:
        wait_for_polls(polling)
        polling.s3.inject(fault, is_pointer)
        wanted = next_release(polling)

        polling.daemon.wait_for_event("cycle_failed", 30, reason="cycle_timeout")

        assert 200 == polling.daemon.get("/healthz").status
        polling.s3.heal()
        wait_until_seen(polling, wanted)


def test_server_that_is_down_is_told(polling: Fortress) -> None:
    wait_for_polls(polling)
    seen = len(polling.daemon.events)
    polling.s3.stop()

    failed = polling.daemon.wait_for_event("cycle_failed", 30, seen)

    assert "endpoint_unreachable" == failed["reason"]
    polling.s3.start()
    wait_until_seen(polling, next_release(polling))


def test_a_rollback_from_a_bad_release_does_not_wait_for_the_next_try(polling: Fortress) -> None:
    before, good = polling.visible, polling.shelf.current
    assert good is not None
    polling.s3.inject(replace_body(lambda _: b"{}"), is_manifest)
    next_release(polling)
    retry_seconds = 0.0
    while retry_seconds < 3:
        seen = len(polling.daemon.events)
        retry_seconds = polling.daemon.wait_for_event("cycle_failed", 60, seen)["retry_in_seconds"]
    began = time.monotonic()

    polling.shelf.point_to(good)
    wait_until_seen(polling, before)
    assert time.monotonic() - began < retry_seconds / 2
    polling.s3.heal()


def slow_head(exchange: Exchange) -> None:
    """
    Send the head of a good answer byte by byte, for longer than anybody should wait.
    """
    exchange.send_bytes(b"HTTP/1.1 304 Not Modified\r\nx-slow: ")
    for _ in range(300):
        exchange.pause(0.1)
        exchange.send_bytes(b"x")
    exchange.send_bytes(b"\r\n\r\n")


def endless_head(exchange: Exchange) -> None:
    """
    Send a head without an end, as fast as it goes.
    """
    exchange.send_bytes(b"HTTP/1.1 304 Not Modified\r\nx-long: ")
    for _ in range(64):
        exchange.send_bytes(b"x" * 4096)
    exchange.close()


ODD: dict[str, Fault] = {
    "500": error(500, "InternalError"),
    "503": error(503, "SlowDown"),
    "reset": reset(),
    "connection closed silently": close_silently(),
    "connection closed": close_after(),
    "chunks": chunked(),
    "no HTTP": raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    "HTTP/1.0": raw(b"HTTP/1.0 304 Not Modified\r\n\r\n"),
    "a body after 304": raw(b"HTTP/1.1 304 Not Modified\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
    "two answers": raw(b"HTTP/1.1 304 Not Modified\r\n\r\n" * 2),
    "a head without end": endless_head,
}


@pytest.mark.parametrize("name", ODD)
def test_a_single_odd_answer_to_a_poll_is_no_failure(polling: Fortress, name: str) -> None:
    wait_for_polls(polling)
    seen = len(polling.daemon.events)
    polling.s3.inject(ODD[name], is_pointer, times=1)

    wait_for_polls(polling, 6)

    assert [] == [e for e in polling.daemon.events[seen:] if e["event"] == "cycle_failed"]
    wait_until_seen(polling, next_release(polling))


@pytest.mark.usefixtures("only_in_full")
def test_head_that_drips_is_given_up(tmp_path: Path) -> None:
    """
    For as long as it drips a poll goes on; the next whole cycle does not wait for its end.
    """
    with fortress(tmp_path, "in-place", {**OFTEN, "S3_SYNC_TIMEOUT": "2s"}) as polling:
        wait_for_polls(polling)
        polling.s3.inject(slow_head, is_pointer, times=1)
        wanted = next_release(polling)
        began = time.monotonic()

        wait_until_seen(polling, wanted)

        assert time.monotonic() - began < 25
        assert 200 == polling.daemon.get("/healthz").status


def test_sigterm_ends_it_in_the_midst_of_a_silent_poll(tmp_path: Path) -> None:
    with fortress(tmp_path, "snapshot", {"INTERVAL": "0.2"}) as polling:
        wait_for_polls(polling)
        polling.s3.inject(hang(), is_pointer)
        wait_for_polls(polling, 1)

        ended = polling.daemon.terminate()

        assert 0 == ended.code
        assert ended.seconds < 1


def test_polls_count_as_cycles_and_keep_the_daemon_alive(polling: Fortress) -> None:
    name = 'sidecar_cycles_total{result="unchanged",sidecar="s3-sync"}'
    before = polling.daemon.metrics()

    wait_for_polls(polling, 10)

    after = polling.daemon.metrics()
    assert after[name] >= before.get(name, 0) + 8
    success = 'sidecar_last_success_timestamp_seconds{sidecar="s3-sync"}'
    assert after[success] > before[success]


def test_every_poll_is_one_request_and_the_connection_is_kept(polling: Fortress) -> None:
    wait_until_seen(polling, next_release(polling))
    wait_for_polls(polling)
    polling.s3.forget()
    polling.s3.wait_for(is_pointer, count=20, timeout=60)

    requests = list(polling.s3.requests)
    assert all(map(is_pointer, requests))
    assert len({request.connection for request in requests}) <= 2
