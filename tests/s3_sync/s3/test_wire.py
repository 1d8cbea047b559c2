"""One HTTP/1.1 connection, with well-behaved and misbehaving servers."""

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_sync.s3.wire import (
    BODY_LIMIT_BYTES,
    FRAMING_LIMIT_BYTES,
    IDLE_SECONDS,
    Answer,
    WireError,
)
from tests.s3_sync.s3.line import REQUEST, Line, ask, refusal_of, run, scene

OK = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 5\r\n\r\nhello'
CHUNKED = (
    b'HTTP/1.1 200 OK\r\nETag: "e"\r\nTransfer-Encoding: chunked\r\n\r\n'
    b"2\r\nhe\r\n3;ext=1\r\nllo\r\n0\r\nTrailer: x\r\n\r\n"
)


def pieces_of(data: bytes, breaks: Iterable[int]) -> list[bytes]:
    ends = [*sorted({at % len(data) for at in breaks} - {0}), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


# --- complete responses


@scene
async def test_sends_the_request_head_unchanged(line: Line) -> None:
    await line.ask(OK)

    assert [REQUEST] == line.cable.sent


@pytest.mark.parametrize("data", [OK, CHUNKED], ids=["length", "chunked"])
@given(breaks=st.lists(st.integers(0, 200), max_size=12))
def test_parses_a_response_however_it_is_split(data: bytes, breaks: list[int]) -> None:
    answer = ask(*pieces_of(data, breaks))

    assert (200, b"hello", '"e"') == (answer.status, answer.body, answer.headers["etag"])


@pytest.mark.parametrize("status", [b"200 OK", b"206 Partial Content"])
def test_writes_the_body_of_a_success_to_the_sink(status: bytes) -> None:
    chunks: list[bytes] = []

    answer = ask(*pieces_of(CHUNKED.replace(b"200 OK", status), [80]), sink=chunks.append)

    assert b"hello" == b"".join(chunks)
    assert b"" == answer.body


@pytest.mark.parametrize("status", [b"400 x", b"403 x", b"404 x", b"412 x", b"500 x", b"301 x"])
def test_never_writes_the_body_of_an_error_to_the_sink(status: bytes) -> None:
    chunks: list[bytes] = []

    answer = ask(OK.replace(b"200 OK", status), sink=chunks.append)

    assert (int(status[:3]), b"hello") == (answer.status, answer.body)
    assert [] == chunks


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_a_response_without_a_body_needs_no_content_length(status: bytes) -> None:
    async def scene(line: Line) -> Answer:
        answer = await line.ask(b"HTTP/1.1 " + status + b"\r\n\r\n")
        assert line.connection.is_usable
        return answer

    assert b"" == run(scene).body


# --- the next request


@scene
async def test_reuses_a_connection(line: Line) -> None:
    for data in (OK, CHUNKED, OK.replace(b"200", b"404"), OK):
        assert b"hello" == (await line.ask(data)).body
        assert line.connection.is_usable


def test_framing_limit_applies_to_each_response() -> None:
    head = b"HTTP/1.1 200 OK\r\na: " + b"b" * (FRAMING_LIMIT_BYTES - 1000) + b"\r\n"

    async def scene(line: Line) -> None:
        for _ in range(3):
            assert b"hello" == (await line.ask(head, OK.partition(b"\r\n")[2])).body

    run(scene)


@pytest.mark.parametrize(
    "data",
    [OK.replace(b"ETag", b"Connection: close\r\nETag"), OK.replace(b"HTTP/1.1", b"HTTP/1.0")],
)
@scene
async def test_does_not_reuse_a_connection_after_close_or_http_1_0(line: Line, data: bytes) -> None:
    assert b"hello" == (await line.ask(data)).body

    assert not line.connection.is_usable


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    "second", [OK.replace(b"200", b"404"), OK, b"HTTP/1.1 103 x\r\n\r\n", b"x"]
)
@scene
async def test_unrequested_data_ends_the_connection_and_keeps_the_response(
    line: Line, second: bytes, together: bool
) -> None:
    answer = await line.ask(OK + second if together else OK)
    if not together:
        assert line.connection.is_usable
        line.connection.data_received(second)

    assert (200, b"hello", '"e"') == (answer.status, answer.body, answer.headers["etag"])
    assert not line.connection.is_usable
    assert line.cable.is_cut or together


@scene
async def test_tells_whether_a_response_had_begun(line: Line) -> None:
    """A kept connection that closes before is stale: the request is sent on another one."""
    await line.ask(OK)
    assert line.connection.has_begun

    with pytest.raises(WireError, match="before its response"):
        await line.ask(None)
    assert not line.connection.has_begun
    assert not line.connection.is_usable


@scene
async def test_a_reused_connection_that_stays_silent_is_stale(line: Line) -> None:
    """A firewall that forgot the connection drops its packets."""
    await line.ask(OK)
    begin = line.loop.time()

    with pytest.raises(WireError):
        await line.ask()
    assert not line.connection.has_begun
    assert begin + IDLE_SECONDS == pytest.approx(line.loop.time(), abs=0.1)


@scene
async def test_a_reused_connection_that_ends_during_a_response_is_not_stale(line: Line) -> None:
    await line.ask(OK)

    with pytest.raises(WireError, match="during its response"):
        await line.ask(OK[:-2], None)


@scene
async def test_a_connection_closed_while_idle_is_not_usable(line: Line) -> None:
    await line.ask(OK)
    line.connection.connection_lost(None)

    assert not line.connection.is_usable


@pytest.mark.parametrize("status", [b"403 x", b"404 x", b"500 x", b"503 x"])
@scene
async def test_the_text_of_an_error_without_a_length_is_not_awaited(
    line: Line, status: bytes
) -> None:
    answer = await line.ask(b"HTTP/1.1 " + status + b"\r\n\r\n<Co", b"de>")

    assert (int(status[:3]), b"") == (answer.status, answer.body)
    assert not line.connection.is_usable


# --- truncated and endless responses (for invalid HTTP, see conformance/rows.py)


@pytest.mark.parametrize("data", [OK, CHUNKED], ids=["length", "chunked"])
@given(data_st=st.data())
def test_a_truncated_response_is_a_lost_connection(data: bytes, data_st: st.DataObject) -> None:
    kept = data_st.draw(st.integers(0, len(data) - 1))

    error = refusal_of(*([data[:kept]] if kept else []), None)

    assert "connection_lost" == error.reason
    assert ("before" if kept == 0 else "during") in error.message


CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_framing_of_small_chunks_may_exceed_the_limit_in_total() -> None:
    chunk = b"1;x\r\nh\r\n"
    times = 2 * FRAMING_LIMIT_BYTES // len(chunk)

    answer = ask(CHUNKS, *[chunk * 100] * (times // 100 + 1), b"0\r\n\r\n")

    assert b"h" * 100 * (times // 100 + 1) == answer.body


def test_a_trailer_does_not_replace_a_header() -> None:
    """The headers are checked before the body arrives."""
    answer = ask(CHUNKED.replace(b"Trailer: x", b"ETag: other"))

    assert '"e"' == answer.headers["etag"]


def test_a_body_for_a_sink_has_no_size_limit() -> None:
    taken = 0

    def take(piece: bytes) -> None:
        nonlocal taken
        taken += len(piece)

    size = BODY_LIMIT_BYTES + 10
    ask(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, b"x" * size, sink=take)

    assert size == taken


@pytest.mark.parametrize("error", [OSError(28, "No space left"), ValueError("odd")])
def test_an_exception_of_the_sink_propagates_and_drops_the_connection(error: Exception) -> None:
    def refuse(_: bytes) -> None:
        raise error

    async def scene(line: Line) -> None:
        with pytest.raises(type(error)) as caught:
            await line.ask(OK, sink=refuse)

        assert caught.value is error
        assert not line.connection.is_usable and line.cable.is_cut

    run(scene)


# --- time limits


@pytest.mark.parametrize("begun", [b"", OK[:20], OK[:-1]])
@scene
async def test_times_out_when_the_server_is_silent(line: Line, begun: bytes) -> None:
    begin = line.loop.time()
    with pytest.raises(WireError, match=r"no data for 30 s") as caught:
        await line.ask(begun, seconds=500) if begun else await line.ask(seconds=500)

    assert "request_timeout" == caught.value.reason
    assert begin + IDLE_SECONDS == pytest.approx(line.loop.time(), abs=0.1)
    assert line.cable.is_cut


def test_waits_for_a_slow_server_up_to_the_time_limit() -> None:
    pieces = [OK[at : at + 1] for at in range(len(OK))]
    pause = IDLE_SECONDS - 1
    needed = len(pieces) * pause

    assert b"hello" == ask(*pieces, pause=pause, seconds=needed + 1).body

    async def scene(line: Line) -> None:
        begin = line.loop.time()
        with pytest.raises(WireError) as caught:
            await line.ask(*pieces, pause=pause, seconds=needed - 10)
        assert "request_timeout" == caught.value.reason
        assert begin + needed - 10 == pytest.approx(line.loop.time(), abs=0.1)

    run(scene)


@scene
async def test_a_time_limit_below_the_idle_limit_applies(line: Line) -> None:
    begin = line.loop.time()
    with pytest.raises(WireError):
        await line.ask(seconds=2)

    assert begin + 2 == pytest.approx(line.loop.time(), abs=0.1)


@scene
async def test_a_time_limit_below_that_of_the_previous_request_applies(line: Line) -> None:
    """A reused connection is not stale then: no time is left to send the request again."""
    await line.ask(OK, seconds=500)
    begin = line.loop.time()
    with pytest.raises(WireError, match="no data for 2 s"):
        await line.ask(seconds=2)

    assert begin + 2 == pytest.approx(line.loop.time(), abs=0.1)


@scene
async def test_idle_time_before_a_request_does_not_count_toward_its_limits(line: Line) -> None:
    await line.ask(OK)
    await asyncio.sleep(2 * IDLE_SECONDS)

    assert b"hello" == (await line.ask(b"", OK, pause=IDLE_SECONDS - 1)).body


@scene
async def test_each_request_has_its_own_time_limit(line: Line) -> None:
    for _ in range(5):
        await line.ask(b"", OK, pause=20, seconds=45)

    assert line.connection.is_usable
    assert 0.0 == line.connection.idle_seconds


@scene
async def test_a_canceled_request_drops_the_connection(line: Line) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await line.ask(OK[:-1])

    assert not line.connection.is_usable and line.cable.is_cut
    line.connection.data_received(b"o")
    line.connection.connection_lost(None)
