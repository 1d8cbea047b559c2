"""
An HTTP/1.1 connection without a network.

The transport is in memory, and the loop's clock jumps to the next timer: 30 s of silence take none.
"""

import asyncio
import inspect
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from s3_sync.s3.wire import Answer, Connection, Sink, WireError

REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


class Jumps(selectors.DefaultSelector):
    """A selector that advances its clock instead of waiting."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        self.now += max(0.0, timeout or 0.0)
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = Jumps()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


class Cable(asyncio.Transport):
    """An in-memory transport."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.is_cut = False

    def write(self, data: Any) -> None:
        self.sent.append(bytes(data))

    def abort(self) -> None:
        self.is_cut = True

    def is_closing(self) -> bool:
        return self.is_cut


class Line:
    """A connection, and the server at its other end."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.cable = Cable()
        self.connection = Connection(self.loop)
        self.connection.connection_made(self.cable)

    async def ask(
        self,
        *pieces: bytes | None,
        lost: Exception | None = None,
        sink: Sink | None = None,
        seconds: float = 100.0,
        pause: float = 0.001,
    ) -> Answer:
        """Send a request and deliver the pieces of its response; None closes the connection."""

        def hear(piece: bytes | None) -> None:
            if piece is None:
                self.connection.connection_lost(lost)
            elif not self.cable.is_cut:
                self.connection.data_received(piece)

        for number, piece in enumerate(pieces, 1):
            self.loop.call_later(number * pause, hear, piece)
        return await self.connection.request(REQUEST, sink, seconds)


def run(scene: Callable[[Line], Awaitable[Any]]) -> Any:
    async def play() -> Any:
        return await scene(Line())

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(play())


def scene(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Turn an async test that takes a line into one that runs on its own event loop."""

    def play(**given: Any) -> None:
        run(lambda line: test(line, **given))

    play.__name__, play.__doc__ = test.__name__, test.__doc__
    _, *given = inspect.signature(test).parameters.values()
    play.__signature__ = inspect.Signature(given)  # type: ignore[attr-defined]
    return play


def ask(*pieces: bytes | None, **options: Any) -> Answer:
    answer: Answer = run(lambda line: line.ask(*pieces, **options))
    return answer


def refusal_of(*pieces: bytes | None, **options: Any) -> WireError:
    """Return the error of an exchange, after checking that it ended the connection."""

    async def scene(line: Line) -> WireError:
        with pytest.raises(WireError) as caught:
            await line.ask(*pieces, **options)
        assert not line.connection.is_usable
        assert line.cable.is_cut
        return caught.value

    error: WireError = run(scene)
    return error
