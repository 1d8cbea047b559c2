"""
Ends all descendants of this process, including those that became independent.

Airflow's components put their workers into separate process groups, and rename them.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.airflow.sync_perm import descendants_of, signal_all

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@contextmanager
def ended() -> Iterator[None]:
    """
    Adopt orphaned processes, and kill all remaining descendants on exit.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        while left := descendants_of(os.getpid()):
            signal_all(left, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(-1, 0)
