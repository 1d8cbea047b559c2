"""
Code that the sidecars share: settings, logs, metrics, health, the loop, publishing, errors.

A sidecar implements its *cycle* (:class:`sidecar_runtime.health.Sidecar`);
:func:`sidecar_runtime.app.run_daemon` does the rest. This module is imported before the heavy ones,
so it imports almost nothing.
"""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial

__version__ = "0.3.0"
# The documentation; every copy of it has the same file names.
DOCS = "https://github.com/airflow-sidecars/airflow-sidecars/blob/main/docs"

# The signals that came before the loop: Python drops what a handler raises in a weak reference's
# callback, so the loop looks here.
HEEDED: list[int] = []


def heed_signals(end: Callable[[int], object] = os._exit) -> None:
    """
    Let SIGTERM and SIGINT end the process: a daemon with code 0, a command with 128 + their number.
    Called before the imports, which take most of a start; a running loop handles signals itself.

    The kernel ignores signals to process 1 of a container until it has handlers, and a lost SIGTERM
    costs the pod its whole grace period. This early, no work can be left half done.

    Args:
        end: With ``sys.exit``, they raise ``SystemExit`` in the main thread, so that temporary
            folders are removed and children are killed.
    """

    def heed(code: int, number: int, _: object) -> None:
        HEEDED.append(number)
        end(code)

    is_command = len(sys.argv) > 1 and not sys.argv[1].startswith("-")
    for number in (signal.SIGTERM, signal.SIGINT):
        code = 128 + number if is_command else 0
        signal.signal(number, partial(heed, code))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
