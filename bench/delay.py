"""
A network of a chosen length on loopback: TCP proxies that make each chunk late.
"""

import asyncio
import random
import threading
from types import TracebackType
from typing import NamedTuple, Self

CHUNK_BYTES = 64 << 10
RETRANSMIT_SECONDS = 0.2
"""How much later a lost chunk arrives: Linux' shortest timeout of a retransmission."""


class Length(NamedTuple):
    """
    What is between a client and a server.

    Args:
        round_trip_seconds: A chunk takes half of it, a new connection all of it.
        lost_part: The part of the chunks that is lost once, and sent again.
    """

    round_trip_seconds: float
    lost_part: float = 0.0

    def __str__(self) -> str:
        lost = f", {self.lost_part:.0%} lost" if self.lost_part else ""
        return f"{self.round_trip_seconds * 1000:g} ms{lost}"


class Network:
    """
    Runs proxies in a thread, from :meth:`__enter__` on.
    """

    def __init__(self, length: Length) -> None:
        self._length = length
        self._random = random.Random(3)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def way_to(self, port: int) -> int:
        """
        Open a proxy to a port of this machine; return where it listens, on 127.0.0.1.
        """
        opened = self._open(port)
        return asyncio.run_coroutine_threadsafe(opened, self._loop).result()

    async def _open(self, port: int) -> int:
        async def carry(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            await asyncio.sleep(self._length.round_trip_seconds)
            try:
                further = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                writer.transport.abort()
                return
            await asyncio.gather(
                self._pump(reader, further[1]), self._pump(further[0], writer)
            )

        server = await asyncio.start_server(carry, "127.0.0.1", 0, backlog=512)
        return int(server.sockets[0].getsockname()[1])

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """
        Pass on each chunk when it has been under way for long enough; chunks follow
        each other without waiting, as on a real line.
        """
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def arrive() -> None:
            while True:
                at, chunk = await under_way.get()
                await asyncio.sleep(max(0.0, at - self._loop.time()))
                if not chunk:
                    writer.close()
                    return
                writer.write(chunk)
                await writer.drain()

        arriving = asyncio.ensure_future(arrive())
        chunk = b"-"
        while chunk:
            try:
                chunk = await reader.read(CHUNK_BYTES)
            except OSError:
                chunk = b""
            seconds = self._length.round_trip_seconds / 2
            if self._random.random() < self._length.lost_part:
                seconds += RETRANSMIT_SECONDS
            under_way.put_nowait((self._loop.time() + seconds, chunk))
        try:
            await arriving
        except OSError:  # the other side has gone
            writer.transport.abort()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
