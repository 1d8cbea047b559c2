"""The request of a poll: which responses mean unmodified, and when its connection is reused."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3_sync.s3 import client as client_module
from s3_sync.s3.client import S3Client
from s3_sync.s3.poll import SECONDS, PollConnection
from s3_sync.s3.pool import TlsContext
from s3_sync.s3.tls import CaBundle
from s3_sync.s3.wire import HttpOrigin
from tests.s3_sync.given import Given, config, config_of, play
from tests.support.aws.fake_s3 import FakeS3, error
from tests.support.http.certificates import self_signed
from tests.support.http.faults import close_after, close_silently, hang, raw, reset
from tests.support.http.loopback import Exchange, Fault

BODY = b"{}"
KEY = "dags/current.json"


@pytest.fixture
def s3(s3: FakeS3) -> FakeS3:
    s3.put(KEY, BODY, etag="abc")
    return s3


@pytest.fixture
def poll(s3: FakeS3) -> Iterator[PollConnection]:
    poll = poll_of(s3)
    yield poll
    poll.close()


def poll_of(
    s3: FakeS3, context: TlsContext | None = None, seconds: float = SECONDS
) -> PollConnection:
    origin = HttpOrigin("https" if context else "http", "localhost", s3.port)
    return PollConnection(origin, context, seconds)


def head(etag: str = '"abc"') -> bytes:
    lines = [f"GET /dags-bucket/{KEY} HTTP/1.1", "host: x", f"if-none-match: {etag}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def connections(s3: FakeS3) -> int:
    return len({request.connection for request in s3.seen()})


def test_keeps_one_connection_until_a_response_has_a_body(s3: FakeS3, poll: PollConnection) -> None:
    for _ in range(3):
        assert b"304" == poll.status(head())
    assert 1 == connections(s3)
    assert b"200" == poll.status(head('"other"'))
    assert b"304" == poll.status(head())

    assert 2 == connections(s3)


@pytest.mark.parametrize("fault", [close_after(), close_silently()])
def test_replaces_a_kept_connection_that_the_server_closed(
    s3: FakeS3, poll: PollConnection, fault: Fault
) -> None:
    s3.inject(fault, times=1)

    assert b"304" == poll.status(head())
    assert b"304" == poll.status(head())
    assert 2 == connections(s3)


def test_does_not_reuse_a_connection_after_a_long_idle_time(s3: FakeS3) -> None:
    poll = PollConnection(HttpOrigin("http", "localhost", s3.port), None, keep_seconds=-1.0)

    assert b"304" == poll.status(head())
    assert b"304" == poll.status(head())
    assert (2, 2) == (connections(s3), len(s3.seen()))


@pytest.mark.parametrize(
    "fault",
    [reset(), raw(b""), raw(b"HTTP/1.1 304 Not Modified\r\n"),
     raw(b"HTTP/1.1 304 Not Modified\r\n\r\nmore"), raw(b"x" * 70_000)],
)  # fmt: skip
def test_an_invalid_response_has_no_status(s3: FakeS3, poll: PollConnection, fault: Fault) -> None:
    s3.inject(fault)

    assert b"" == poll.status(head())
    s3.heal()
    assert b"304" == poll.status(head())


@pytest.mark.parametrize(
    ("fault", "status"),
    [(error(503, "SlowDown"), b"503"), (error(403, "ExpiredToken"), b"403"),
     (error(404, "NoSuchKey"), b"404"), (raw(b"HTTP/1.1 103 Early Hints\r\n\r\n"), b"103")],
)  # fmt: skip
def test_the_next_poll_succeeds_after_any_other_status(
    s3: FakeS3, poll: PollConnection, fault: Fault, status: bytes
) -> None:
    s3.inject(fault)

    assert status == poll.status(head())
    s3.heal()
    assert b"304" == poll.status(head())


def pieces_without_end(exchange: Exchange) -> None:
    exchange.send_bytes(b"HTTP/1.1 304 Not Modified\r\n")
    while True:  # until the client disconnects
        exchange.send_bytes(b"a: b\r\n")
        exchange.pause(0.05)


@pytest.mark.parametrize("fault", [hang(), pieces_without_end], ids=["silent", "slow"])
def test_times_out_when_the_response_does_not_end(s3: FakeS3, fault: Fault) -> None:
    s3.inject(fault)
    poll = poll_of(s3, seconds=0.2)

    assert b"" == poll.status(head())
    s3.release()


def test_an_unreachable_server_has_no_status() -> None:
    for host in ("127.0.0.1", "a" * 70 + ".invalid"):
        assert b"" == PollConnection(HttpOrigin("http", host, 1), None).status(head())


def test_sends_no_request_to_an_untrusted_server(tmp_path: Path) -> None:
    server, bundle = self_signed(tmp_path, "localhost")
    trusting = CaBundle(config(ca_bundle=str(bundle)))
    with FakeS3(tls=server) as s3:
        s3.put(KEY, BODY, etag="abc")
        stranger, friend = poll_of(s3, CaBundle(config()).context), poll_of(s3, trusting.context)

        assert b"" == stranger.status(head())
        assert [] == s3.seen()
        assert b"304" == friend.status(head()) and b"304" == friend.status(head())
        friend.close()


# --- signatures of the client


def test_reuses_a_signature_for_a_minute(s3: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Polls that go on for hours are signed again: S3 refuses a signature after 15 minutes."""
    counts: list[str] = []
    monkeypatch.setattr(client_module, "sign", counting(counts))

    async def scene(client: S3Client) -> list[tuple[bool, int]]:
        def ask(seconds: float, etag: str) -> tuple[bool, int]:
            now = time.monotonic() + seconds
            with monkeypatch.context() as patch:
                patch.setattr(time, "monotonic", lambda: now)
                return client.has_still("pointer", KEY, etag), len(counts)

        times = ((0, '"abc"'), (59, '"abc"'), (61, '"abc"'), (62, '"def"'), (130, '"abc"'))
        return [ask(seconds, etag) for seconds, etag in times]

    assert [(True, 1), (True, 1), (True, 2), (False, 3), (True, 4)] == play(s3, scene)
    assert all("authorization" in request.headers for request in s3.seen())


def counting(calls: list[str]) -> object:
    sign = client_module.sign  # type: ignore[attr-defined]

    def count(*arguments: object) -> dict[str, str]:
        calls.append("sign")
        return sign(*arguments)  # type: ignore[arg-type]

    return count


def test_has_still_is_false_behind_a_proxy(s3: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "")

    async def scene(client: S3Client) -> bool:
        return client.has_still("pointer", KEY, '"abc"')

    assert not play(s3, scene)
    assert [] == s3.seen()


def test_has_still_is_false_before_the_first_cycle(s3: FakeS3) -> None:
    client = S3Client(s3.bucket, "dags/", Given(config_of(s3)), lambda _: None)

    assert not client.has_still("pointer", KEY, '"abc"')
