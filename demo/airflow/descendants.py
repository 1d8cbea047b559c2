"""
The end of every process below this one, those that have made themselves independent included.

Airflow's components put their workers into process groups of their own, and rename them.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.sync_perm import descendants_of, signal_all

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@contextmanager
def ended() -> Iterator[None]:
    """
    Adopt processes whose parent has ended, and kill all that are left on the way out.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        while left := descendants_of(os.getpid()):
            signal_all(left, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(-1, 0)
