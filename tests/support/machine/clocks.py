"""
A clock that tests control, and libfaketime, which fakes the clock of a process.
"""

from pathlib import Path

import pytest

from tests import Texts
from tests.support.replacing import replace

SHARED = Path("/dev/shm")


class Clock:
    """
    A monotonic clock that only the test moves; the machine has been up for a while.
    """

    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def libfaketime() -> Path:
    """
    Return the library that fakes the clock of a process; skip if it is not installed.
    """
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("another clock needs libfaketime: make setup-test as root")
    return found[0]


def set_clock(file: Path, offset: str) -> Texts:
    """
    Set the wall clock of the processes with these variables, which it returns, such as
    "+5h".

    libfaketime ends a process that reads an empty file.
    """
    replace(file, offset)
    return {
        "LD_PRELOAD": str(libfaketime()),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


def forget_clock(pid: int) -> None:
    """
    Remove the shared memory that libfaketime leaves when its process is killed.

    Otherwise a later process with the same id cannot start with a fake clock:
    libfaketime creates its semaphore with O_EXCL.
    """
    for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
        (SHARED / name).unlink(missing_ok=True)
