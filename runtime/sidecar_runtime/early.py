"""
What must happen before the heavy imports.
"""

from __future__ import annotations

import os
import signal


def heed_signals() -> None:
    """
    End with code 0 on SIGTERM and SIGINT, from the first moment until the loop takes over.

    The kernel ignores them for process 1 of a container until it has handlers, and a signal
    that is lost then costs the pod its whole grace period. Nothing can be half done this early.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
