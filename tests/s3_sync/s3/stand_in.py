"""A scripted server for the connections of a pool, and scenes that use it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from s3_sync.s3.endpoint import read_trust
from s3_sync.s3.pool import Address, Pool
from s3_sync.s3.wire import Answer, WireError
from tests.s3_sync.given import config

HEADERS = {"host": "bucket.example", "x-amz-date": "now"}

_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def NO_CA() -> ssl.SSLContext:
    """Return a context that trusts no certificate, without creating one per call."""
    return _NOBODY


# Actions of a stand-in other than sending bytes.
CLOSE = "close"
TLS = "tls"

Step = Sequence[bytes | str]


def ok(body: bytes = b"hello", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


class StandIn:
    """
    A loopback server with a script for each connection: one step per request.

    After its last step, a connection stays open and silent.
    """

    def __init__(self, *scripts: Sequence[Step], tls: ssl.SSLContext | None = None) -> None:
        self._scripts = list(scripts)
        self._tls = tls
        self.heads: list[bytes] = []
        self.connections = 0
        self.port = 0

    @property
    def origin(self) -> Address:
        return Address("http", "127.0.0.1", self.port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        script = self._scripts.pop(0) if self._scripts else ()
        try:
            for step in script:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                for part in step:
                    if isinstance(part, bytes):
                        writer.write(part)
                    elif part == TLS:
                        assert self._tls is not None
                        await writer.start_tls(self._tls)
                    else:
                        writer.transport.close() if part == CLOSE else writer.transport.abort()
                        return
            await reader.read()
        except (OSError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort()


@asynccontextmanager
async def listening(server: StandIn, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
    tasks: list[asyncio.Task[None]] = []

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.create_task(server.serve(reader, writer)))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


Scene = Callable[[Pool], Awaitable[Any]]
ReadTrust = Callable[[], ssl.SSLContext]


def run(
    server: StandIn,
    scene: Scene,
    origin: Callable[[int], Address] | None = None,
    trust: ReadTrust = NO_CA,
    tls: ssl.SSLContext | None = None,
) -> Any:
    """Play a scene with a pool that connects to the server."""

    async def play() -> Any:
        async with asyncio.timeout(10), listening(server, tls=tls):
            place = origin(server.port) if origin else server.origin
            pool = Pool(place, trust)
            try:
                return await scene(pool)
            finally:
                pool.close()

    return asyncio.run(play())


async def get(pool: Pool, path: str = "/key") -> Answer:
    return await pool.get(path, HEADERS, None, 5.0)


async def get_twice(pool: Pool) -> list[bytes]:
    return [(await get(pool)).body for _ in range(2)]


async def failure(pool: Pool) -> WireError:
    with pytest.raises(WireError) as caught:
        await get(pool)
    assert caught.value.advice
    return caught.value


def trusting(file: Path) -> ReadTrust:
    return partial(read_trust, config(ca_bundle=str(file)))


def https(port: int) -> Address:
    return Address("https", "127.0.0.1", port)
