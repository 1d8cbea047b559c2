"""
Code that the sidecars share: settings, logs, metrics, health, the loop, publishing,
errors.

A sidecar implements its *cycle* (:class:`sidecar_runtime.health.Sidecar`);
:func:`sidecar_runtime.app.run_daemon` does the rest. This module is imported before the
heavy ones, so it imports almost nothing.
"""

import gc
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

__version__ = "0.3.0"
# Where the build says that the files of the repository are; a path without it, because
# whoever copies this has the same file names, and no address here would be theirs.
DOCS = os.environ.get("SIDECAR_DOCS", "")

# The commit of the build.
REVISION = os.environ.get("SIDECAR_REVISION", "unknown")

# A parent may have closed a stream (`>&-`): the next file would get its number.
for stream in ("stdin", "stdout", "stderr"):
    if getattr(sys, stream) is None:
        setattr(sys, stream, open(os.devnull, "r+"))  # noqa: SIM115 - for the process

# A pipe with the number of each signal that has a handler, as a byte. The loop reads
# those of before, too: Python drops what a handler raises in a weak reference's callback.
SIGNALS_READ, SIGNALS_WRITE = os.pipe()


def begin_process(end: Callable[[int], object] = os._exit) -> None:
    """
    Called before the imports, which take most of a start: let SIGTERM and SIGINT end
    the process, a daemon with code 0, a command with 128 + their number; a running loop
    handles signals itself. And keep keys and passwords out of core files, including
    those of children.

    The kernel ignores signals to process 1 of a container until it has handlers, and a
    lost SIGTERM costs the pod its whole grace period. This early, no work can be left
    half done. The kernel ignores a limit of 0 if ``core_pattern`` is a pipe
    (systemd-coredump, apport), but with 1 it dumps nothing, because it assumes a crash
    of the pipe's own program (fs/coredump.c).

    Args:
        end: With ``sys.exit``, they raise ``SystemExit`` in the main thread, so that
            temporary folders are removed and children are killed.
    """

    # What imports make is never garbage, and the search for it is a tenth of a start.
    gc.disable()
    is_command = len(sys.argv) > 1 and not sys.argv[1].startswith("-")
    os.set_blocking(SIGNALS_WRITE, False)
    signal.set_wakeup_fd(SIGNALS_WRITE, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda n, _: end(128 + n if is_command else 0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # A parent may have ignored it (`trap '' CHLD`), and then no child can be waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with suppress(ValueError):  # a hard limit of 0, which only root can raise
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
