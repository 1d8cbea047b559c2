"""
How SIGTERM and SIGINT end a process: a daemon with code 0, a command with 128 + their number.

A running loop handles them itself. This module is imported before the heavy ones, so it imports
almost nothing.
"""

import os
import signal
import sys
from collections.abc import Callable


def heed_signals() -> None:
    """
    Let signals end the process at once; called before the imports, which take most of a start.

    The kernel ignores signals to process 1 of a container until it has handlers, and a lost SIGTERM
    costs the pod its whole grace period. This early, no work can be left half done.
    """
    _end_by(os._exit)


def end_on_signals() -> None:
    """
    Let signals end the process after it has cleaned up: they raise ``SystemExit`` in the main
    thread, so that temporary folders are removed and children are killed.
    """
    _end_by(sys.exit)


def _end_by(end: Callable[[int], object]) -> None:
    is_command = len(sys.argv) > 1 and not sys.argv[1].startswith("-")
    for number in (signal.SIGTERM, signal.SIGINT):
        code = 128 + number if is_command else 0
        signal.signal(number, lambda *_, code=code: end(code))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
