"""
A pipe that nobody reads, as that of a log driver which hangs.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PAGE_BYTES = 4096


@dataclass
class UnreadPipe:
    """
    Its writing end is a log.
    """

    reader: int
    writer: int

    def fill(self) -> None:
        """
        Write empty lines until nothing more has room.
        """
        # An open file of its own: the flags of the other one are those of whoever logs, too.
        writer = os.open(f"/proc/self/fd/{self.writer}", os.O_WRONLY | os.O_NONBLOCK)
        try:
            for size in (PAGE_BYTES, 1):
                try:
                    while True:
                        os.write(writer, b"\n" * size)
                except BlockingIOError:
                    pass
        finally:
            os.close(writer)

    def drain(self) -> str:
        """
        Read what is in it now.
        """
        read = b""
        try:
            while more := os.read(self.reader, 1 << 20):
                read += more
        except BlockingIOError:
            pass
        return read.decode()

    def close_reader(self) -> None:
        """
        Let nobody read it any more.
        """
        os.close(self.reader)
        self.reader = -1


@contextmanager
def unread_pipe() -> Iterator[UnreadPipe]:
    """
    Make one, and close at the end what is still open of it.
    """
    pipe = UnreadPipe(*os.pipe())
    os.set_blocking(pipe.reader, False)
    try:
        yield pipe
    finally:
        for descriptor in (pipe.reader, pipe.writer):
            if descriptor >= 0:
                os.close(descriptor)
