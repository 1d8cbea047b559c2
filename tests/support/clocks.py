"""
A clock that tests control, and cleanup of what libfaketime leaves when a process with a fake
clock is killed.
"""

from pathlib import Path

import pytest

SHARED = Path("/dev/shm")


class Clock:
    """
    A monotonic clock that moves only when told to; the machine has been up for a while.
    """

    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def libfaketime() -> Path:
    """
    Return the library that gives a process a fake clock; skips if it is not installed.
    """
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("another clock needs libfaketime: make setup-test as root")
    return found[0]


def forget_clock(pid: int) -> None:
    """
    Remove the shared memory of an ended process, if there is any.

    Otherwise a later process with the same id could not start with a fake clock: libfaketime
    creates its semaphore with O_EXCL.
    """
    for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
        (SHARED / name).unlink(missing_ok=True)
