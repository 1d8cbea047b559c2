"""
How a sidecar's process begins, before the heavy imports, and ends when it is stopped.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from types import FrameType
from typing import NoReturn


def enter(command: str, prepare: Callable[[], object] = lambda: None) -> NoReturn:
    """
    Run a sidecar's command and end the process with its exit code.

    Args:
        command: A module with a function `run`, and the `PREFIX` of its settings. It is imported
            here and not by the caller: its imports take most of the start, and a signal must find
            its handler before them.
        prepare: Begins what can go on beside those imports.
    """
    heed_signals()
    spare_colors()
    prepare()
    # Imports make much, and no garbage: to look for it takes an eighth of a start, and to look
    # through all of it later a twentieth of a cycle that downloads 10,000 files.
    gc.disable()
    module = import_module(command)
    from sidecar_runtime.process import run_main  # noqa: PLC0415 - heavy, too

    gc.freeze()
    gc.enable()
    run_main(module.run, module.PREFIX)


def heed_signals() -> None:
    """
    End on SIGTERM and SIGINT from the first moment: a daemon with code 0, until the loop takes
    over, a command as what it is, a process that was stopped.

    The kernel ignores them for process 1 of a container until it has handlers, and a signal
    that is lost then costs the pod its whole grace period. Nothing can be half done this early.
    """
    is_command = any(not argument.startswith("-") for argument in sys.argv[1:])
    for number in (signal.SIGTERM, signal.SIGINT):
        code = 128 + number if is_command else 0
        signal.signal(number, lambda *_, code=code: _leave(code))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _leave(code: int) -> NoReturn:
    _end_children()
    os._exit(code)


def _end_children() -> None:
    """
    End what was begun beside the imports, by the kernel's own list: a signal may come before
    anybody here knows of the process that was just started.
    """
    with suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as file:
        for process in map(int, file.read().split()):
            for kill in (os.killpg, os.kill):  # it may have no group of its own yet
                with suppress(OSError):
                    kill(process, signal.SIGKILL)


def end_on_signals() -> None:
    """
    End a command that is stopped as what it is, not as if all were done, and let it tidy up.

    The exit code is 128 + the number of the signal, as a shell's; in the main thread
    ``SystemExit`` is raised, so that temporary folders go and children are killed.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)


def _end(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def spare_colors() -> None:
    """
    Let structlog do without ``rich`` and ``colorama`` where those are installed, as in development.

    structlog imports them for tracebacks in color and for Windows: 4.8 MiB of memory and a sixth of
    a start's CPU that no image has (2026-11).
    """
    for name in ("rich", "colorama"):
        sys.modules[name] = None  # type: ignore[assignment]
