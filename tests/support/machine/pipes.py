"""
A log pipe that is not read, as when a log driver hangs.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass


@dataclass
class UnreadPipe:
    """
    A pipe whose writing end serves as a log.
    """

    reader: int
    writer: int

    def fill(self) -> None:
        """
        Write empty lines until the pipe is full.
        """
        # Opened again, because O_NONBLOCK on this descriptor would affect the logging
        # process.
        writer = os.open(f"/proc/self/fd/{self.writer}", os.O_WRONLY | os.O_NONBLOCK)
        try:
            with suppress(BlockingIOError):
                while True:
                    os.write(writer, b"\n")
        finally:
            os.close(writer)

    def drain(self) -> str:
        """
        Read and return the current content.
        """
        read = b""
        with suppress(BlockingIOError):
            while more := os.read(self.reader, 1 << 20):
                read += more
        return read.decode()


@contextmanager
def unread_pipe() -> Iterator[UnreadPipe]:
    """
    Create a pipe, and close its open ends afterwards.
    """
    pipe = UnreadPipe(*os.pipe())
    os.set_blocking(pipe.reader, False)
    try:
        yield pipe
    finally:
        os.close(pipe.reader)
        os.close(pipe.writer)
