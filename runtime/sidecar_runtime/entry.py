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
from types import FrameType, ModuleType
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
    prepare()
    # Imports make much, and no garbage: to look for it takes an eighth of a start, and to look
    # through all of it later a twentieth of a cycle that downloads 10,000 files.
    gc.disable()
    import_structlog()
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


class Later(ModuleType):
    """
    Stands for a module that is imported when something of it is asked for.
    """

    def __getattr__(self, name: str) -> object:
        return getattr(import_module(self.__name__), name)


def import_structlog() -> None:
    """
    Import structlog without what it imports and a sidecar does not need.

    That is a fifth of a start's CPU (2026-11): `rich` and `colorama` where those are installed, as
    in development, for tracebacks in color and for Windows; `asyncio` for loggers that are
    awaited, `uuid` for what it has deprecated. Whoever else imports these gets them.
    """
    spared = {"rich": None, "colorama": None, "asyncio": Later("asyncio"), "uuid": Later("uuid")}
    instead = {name: module for name, module in spared.items() if name not in sys.modules}
    sys.modules.update(instead)  # type: ignore[arg-type]
    import_module("structlog")
    for name in instead:
        del sys.modules[name]
