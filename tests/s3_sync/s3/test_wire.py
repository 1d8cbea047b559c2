"""One HTTP/1.1 connection, against servers that do what servers do."""

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_sync.s3.wire import (
    ADVICE,
    BODY_LIMIT_BYTES,
    FRAMING_LIMIT_BYTES,
    HEADERS_LIMIT,
    IDLE_SECONDS,
    Answer,
    StaleConnection,
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


# --- whole answers


@scene
async def test_sends_the_head_as_it_is(line: Line) -> None:
    await line.ask(OK)

    assert [REQUEST] == line.cable.sent


@pytest.mark.parametrize("data", [OK, CHUNKED], ids=["length", "chunked"])
@given(breaks=st.lists(st.integers(0, 200), max_size=12))
def test_an_answer_is_the_same_however_it_is_broken_up(data: bytes, breaks: list[int]) -> None:
    answer = ask(*pieces_of(data, breaks))

    assert (200, b"hello", '"e"') == (answer.status, answer.body, answer.headers["etag"])


@pytest.mark.parametrize("status", [b"200 OK", b"206 Partial Content"])
def test_the_body_goes_to_the_sink(status: bytes) -> None:
    chunks: list[bytes] = []

    answer = ask(*pieces_of(CHUNKED.replace(b"200 OK", status), [80]), sink=chunks.append)

    assert b"hello" == b"".join(chunks)
    assert b"" == answer.body


@pytest.mark.parametrize("status", [b"400 x", b"403 x", b"404 x", b"412 x", b"500 x", b"301 x"])
def test_the_body_of_a_refusal_never_goes_to_the_sink(status: bytes) -> None:
    chunks: list[bytes] = []

    answer = ask(OK.replace(b"200 OK", status), sink=chunks.append)

    assert (int(status[:3]), b"hello") == (answer.status, answer.body)
    assert [] == chunks


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_an_answer_that_has_no_body_needs_no_length(status: bytes) -> None:
    async def scene(line: Line) -> Answer:
        answer = await line.ask(b"HTTP/1.1 " + status + b"\r\n\r\n")
        assert line.connection.is_usable
        return answer

    assert b"" == run(scene).body


# --- the next request


@scene
async def test_a_connection_is_used_again(line: Line) -> None:
    for data in (OK, CHUNKED, OK.replace(b"200", b"404"), OK):
        assert b"hello" == (await line.ask(data)).body
        assert line.connection.is_usable


def test_long_heads_do_not_add_up() -> None:
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
async def test_a_server_may_ask_for_the_end(line: Line, data: bytes) -> None:
    assert b"hello" == (await line.ask(data)).body

    assert not line.connection.is_usable


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    "second", [OK.replace(b"200", b"404"), OK, b"HTTP/1.1 103 x\r\n\r\n", b"x"]
)
@scene
async def test_what_nobody_asked_for_ends_the_connection_and_changes_no_answer(
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
async def test_a_kept_connection_that_is_closed_without_an_answer_is_stale(line: Line) -> None:
    await line.ask(OK)

    with pytest.raises(StaleConnection):
        await line.ask(None)
    assert not line.connection.is_usable


@scene
async def test_a_kept_connection_that_was_closed_meanwhile_is_stale(line: Line) -> None:
    await line.ask(OK)
    line.cable.abort()
    begin = line.loop.time()

    with pytest.raises(StaleConnection):
        await line.ask()
    assert begin == line.loop.time(), "nothing is waited for"


@scene
async def test_a_kept_connection_that_stays_silent_is_stale(line: Line) -> None:
    """A firewall forgot it, and drops its packets."""
    await line.ask(OK)
    begin = line.loop.time()

    with pytest.raises(StaleConnection):
        await line.ask()
    assert begin + IDLE_SECONDS == pytest.approx(line.loop.time(), abs=0.1)


@scene
async def test_a_kept_connection_that_has_begun_to_answer_is_not_stale(line: Line) -> None:
    await line.ask(OK)

    with pytest.raises(WireError, match="during its response"):
        await line.ask(OK[:-2], None)


@scene
async def test_closing_while_idle_is_noticed(line: Line) -> None:
    await line.ask(OK)
    line.connection.connection_lost(None)

    assert not line.connection.is_usable


# --- answers that are not whole, or have no end (what is not HTTP: conformance/rows.py)


@pytest.mark.parametrize("status", [b"403 x", b"404 x", b"500 x", b"503 x"])
@scene
async def test_a_refusal_may_end_with_the_connection(line: Line, status: bytes) -> None:
    answer = await line.ask(b"HTTP/1.1 " + status + b"\r\n\r\n<Co", b"de>", None)

    assert (int(status[:3]), b"<Code>") == (answer.status, answer.body)
    assert not line.connection.is_usable


def test_a_refusal_that_is_cut_off_is_no_answer() -> None:
    error = refusal_of(
        b"HTTP/1.1 404 x\r\n\r\n<Co", None, lost=ConnectionResetError(104, "reset by peer")
    )

    assert "connection_lost" == error.reason
    assert "reset by peer" in error.message


@pytest.mark.parametrize("data", [OK, CHUNKED], ids=["length", "chunked"])
@given(data_st=st.data())
def test_a_truncated_answer_is_never_an_answer(data: bytes, data_st: st.DataObject) -> None:
    kept = data_st.draw(st.integers(0, len(data) - 1))

    error = refusal_of(*([data[:kept]] if kept else []), None)

    assert "connection_lost" == error.reason
    assert ("before" if kept == 0 else "during") in error.message


CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_small_chunks_are_no_answer_without_end() -> None:
    chunk = b"1;x\r\nh\r\n"
    times = 2 * FRAMING_LIMIT_BYTES // len(chunk)

    answer = ask(CHUNKS, *[chunk * 100] * (times // 100 + 1), b"0\r\n\r\n")

    assert b"h" * 100 * (times // 100 + 1) == answer.body


def test_more_headers_than_anyone_sends_are_refused() -> None:
    def headers(number: int) -> bytes:
        lines = b"".join(b"a%d:\r\n" % one for one in range(number))
        return b"HTTP/1.1 204 x\r\n" + lines + b"\r\n"

    assert HEADERS_LIMIT == len(ask(headers(HEADERS_LIMIT)).headers)
    error = refusal_of(headers(HEADERS_LIMIT + 1))
    assert ("server_error", True) == (error.reason, str(HEADERS_LIMIT) in error.message)


def test_a_trailer_is_no_header() -> None:
    """What was checked before the body came is not taken back after it."""
    answer = ask(CHUNKED.replace(b"Trailer: x", b"ETag: other"))

    assert '"e"' == answer.headers["etag"]


def test_a_sink_has_no_limit() -> None:
    taken = 0

    def take(piece: bytes) -> None:
        nonlocal taken
        taken += len(piece)

    size = BODY_LIMIT_BYTES + 10
    ask(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, b"x" * size, sink=take)

    assert size == taken


@pytest.mark.parametrize("error", [OSError(28, "No space left"), ValueError("odd")])
def test_what_a_sink_raises_is_raised_and_the_connection_dropped(error: Exception) -> None:
    def refuse(_: bytes) -> None:
        raise error

    async def scene(line: Line) -> None:
        with pytest.raises(type(error)) as caught:
            await line.ask(OK, sink=refuse)

        assert caught.value is error
        assert not line.connection.is_usable and line.cable.is_cut

    run(scene)


# --- time


@pytest.mark.parametrize("begun", [b"", OK[:20], OK[:-1]])
@scene
async def test_a_silent_server_is_not_waited_for(line: Line, begun: bytes) -> None:
    begin = line.loop.time()
    with pytest.raises(WireError, match=r"no data for 30 s") as caught:
        await line.ask(begun, seconds=500) if begun else await line.ask(seconds=500)

    assert "request_timeout" == caught.value.reason
    assert begin + IDLE_SECONDS == pytest.approx(line.loop.time(), abs=0.1)
    assert line.cable.is_cut


def test_a_slow_server_is_waited_for_until_the_limit() -> None:
    pieces = [OK[at : at + 1] for at in range(len(OK))]
    pause = IDLE_SECONDS - 1
    needed = len(pieces) * pause

    assert b"hello" == ask(*pieces, pause=pause, seconds=needed + 1).body

    async def scene(line: Line) -> None:
        begin = line.loop.time()
        with pytest.raises(WireError) as caught:
            await line.ask(*pieces, pause=pause, seconds=needed - 10)
        assert "request_timeout" == caught.value.reason
        assert "the data arrives too slowly" in caught.value.message
        assert begin + needed - 10 == pytest.approx(line.loop.time(), abs=0.1)

    run(scene)


@scene
async def test_a_limit_shorter_than_the_silence_is_kept(line: Line) -> None:
    begin = line.loop.time()
    with pytest.raises(WireError):
        await line.ask(seconds=2)

    assert begin + 2 == pytest.approx(line.loop.time(), abs=0.1)


@scene
async def test_a_limit_shorter_than_that_of_the_request_before_is_kept(line: Line) -> None:
    await line.ask(OK, seconds=500)
    begin = line.loop.time()
    with pytest.raises(StaleConnection):
        await line.ask(seconds=2)

    assert begin + 2 == pytest.approx(line.loop.time(), abs=0.1)


@scene
async def test_a_connection_that_is_idle_for_longer_than_any_limit_is_as_good_as_before(
    line: Line,
) -> None:
    await line.ask(OK)
    await asyncio.sleep(2 * IDLE_SECONDS)

    assert b"hello" == (await line.ask(b"", OK, pause=IDLE_SECONDS - 1)).body


@scene
async def test_the_time_of_one_request_is_not_taken_from_the_next(line: Line) -> None:
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


# --- words


def test_every_reason_has_its_advice() -> None:
    for reason, advice in ADVICE.items():
        assert advice == WireError(reason, "x").advice
