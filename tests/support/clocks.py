"""
A clock that tests move, and what libfaketime leaves behind when the process whose clock it sets is
killed.
"""

from pathlib import Path

import pytest

SHARED = Path("/dev/shm")


class Clock:
    """
    A monotonic clock that moves when told; the machine has been up for a while.
    """

    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def libfaketime() -> Path:
    """
    The library that gives a process a clock of its own; skips where there is none.
    """
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("another clock needs libfaketime: make setup-test as root")
    return found[0]


def forget_clock(pid: int) -> None:
    """
    Remove the shared memory of a process that has ended; nothing happens where there is none.

    A later process with the same number could not start with a clock of its own: libfaketime makes
    its semaphore with O_EXCL.
    """
    for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
        (SHARED / name).unlink(missing_ok=True)
