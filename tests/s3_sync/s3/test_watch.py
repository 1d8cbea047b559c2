"""
The one request of a poll: what counts as unmodified, and what becomes of the connection.
"""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3_sync.s3 import client as client_module
from s3_sync.s3 import watch as module
from s3_sync.s3.client import S3Client
from s3_sync.s3.watch import Watch
from s3_sync.s3.wire import Origin
from tests.s3_sync.given import Given, config_of, play
from tests.support.certificates import self_signed
from tests.support.fake_s3 import FakeS3, error
from tests.support.faults import close_after, close_silently, hang, raw, reset
from tests.support.loopback import Fault

BODY = b"{}"
KEY = "dags/current.json"


@pytest.fixture
def s3() -> Iterator[FakeS3]:
    with FakeS3() as server:
        server.put(KEY, BODY, etag="abc")
        yield server


@pytest.fixture
def watch(s3: FakeS3) -> Iterator[Watch]:
    watch = watch_of(s3)
    yield watch
    watch.close()


def watch_of(s3: FakeS3, context: ssl.SSLContext | None = None) -> Watch:
    return Watch(Origin("https" if context else "http", "localhost", s3.port), context)


def head(etag: str = '"abc"') -> bytes:
    lines = [f"GET /dags-bucket/{KEY} HTTP/1.1", "host: x", f"if-none-match: {etag}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def connections(s3: FakeS3) -> int:
    return len({request.connection for request in s3.seen()})


def test_unmodified_is_304_and_nothing_else(s3: FakeS3, watch: Watch) -> None:
    assert watch.is_unmodified(head())
    assert not watch.is_unmodified(head('"other"'))
    assert watch.is_unmodified(head())


def test_one_connection_is_kept_until_an_answer_has_a_body(s3: FakeS3, watch: Watch) -> None:
    for _ in range(3):
        assert watch.is_unmodified(head())
    assert 1 == connections(s3)
    assert not watch.is_unmodified(head('"other"'))
    assert watch.is_unmodified(head())

    assert 2 == connections(s3)


@pytest.mark.parametrize("fault", [close_after(), close_silently()])
def test_a_kept_connection_that_was_closed_is_replaced(
    s3: FakeS3, watch: Watch, fault: Fault
) -> None:
    s3.inject(fault, times=1)

    assert watch.is_unmodified(head())
    assert watch.is_unmodified(head())
    assert 2 == connections(s3)


def test_one_that_was_idle_for_long_is_not_tried(
    s3: FakeS3, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert watch.is_unmodified(head())
    monkeypatch.setattr(module, "KEEP_SECONDS", -1.0)

    assert watch.is_unmodified(head())
    assert (2, 2) == (connections(s3), len(s3.seen()))


@pytest.mark.parametrize(
    "fault",
    [
        reset(),
        raw(b""),
        raw(b"HTTP/1.1 304 Not Modified\r\n"),
        raw(b"HTTP/1.1 304 Not Modified\r\n\r\nmore"),
        raw(b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        raw(b"x" * 70_000),
        error(503, "SlowDown"),
        error(403, "ExpiredToken"),
    ],
)
def test_all_else_is_no_answer(s3: FakeS3, watch: Watch, fault: Fault) -> None:
    s3.inject(fault)

    assert not watch.is_unmodified(head())
    s3.heal()
    assert watch.is_unmodified(head())


def test_a_server_that_says_nothing_is_not_waited_for(
    s3: FakeS3, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.2)
    s3.inject(hang())

    assert not watch.is_unmodified(head())
    s3.release()


def test_nobody_there_is_no_answer() -> None:
    assert not Watch(Origin("http", "127.0.0.1", 1), None).is_unmodified(head())
    assert not Watch(Origin("http", "a" * 70 + ".invalid", 1), None).is_unmodified(head())


def test_who_is_not_trusted_is_not_asked(tmp_path: Path) -> None:
    server, bundle = self_signed(tmp_path, "localhost")
    trusting = ssl.create_default_context(cafile=bundle)
    with FakeS3(tls=server) as s3:
        s3.put(KEY, BODY, etag="abc")
        stranger, friend = watch_of(s3, ssl.create_default_context()), watch_of(s3, trusting)

        assert not stranger.is_unmodified(head())
        assert [] == s3.seen()
        assert friend.is_unmodified(head()) and friend.is_unmodified(head())
        friend.close()


# --- signed, by the client


def test_a_signature_is_used_again_for_a_while(s3: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(client: S3Client) -> list[bool]:
        found = [client.has_still("pointer", KEY, etag) for etag in ('"abc"', '"abc"', '"def"')]
        monkeypatch.setattr(client_module, "RESIGN_SECONDS", -1.0)
        return [*found, client.has_still("pointer", KEY, '"abc"')]

    counts: list[str] = []
    monkeypatch.setattr(client_module, "sign", counting(counts))
    assert [True, True, False, True] == play(s3, scene)
    assert 3 == len(counts)
    assert all("authorization" in request.headers for request in s3.seen())


def counting(calls: list[str]) -> object:
    sign = client_module.sign

    def count(*arguments: object) -> dict[str, str]:
        calls.append("sign")
        return sign(*arguments)  # type: ignore[arg-type]

    return count


def test_through_a_proxy_it_cannot_be_told(s3: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "")

    async def scene(client: S3Client) -> bool:
        return client.has_still("pointer", KEY, '"abc"')

    assert not play(s3, scene, Given(config_of(s3, endpoint_url="http://s3.example:9000")))
    assert [] == s3.seen()


def test_before_the_first_cycle_it_cannot_be_told(s3: FakeS3) -> None:
    client = S3Client(s3.bucket, "dags/", Given(config_of(s3)), lambda _: None)

    assert not client.has_still("pointer", KEY, '"abc"')
