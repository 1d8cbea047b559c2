"""
Starts a sidecar's process, before the heavy imports, and ends it when it is stopped.
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
            here and not by the caller: its imports take most of the start time, and signal
            handlers must be installed before them.
        prepare: Starts work that can run in parallel with those imports.
    """
    heed_signals()
    prepare()
    # Imports create many objects but no garbage: collecting would take an eighth of a start, and
    # scanning these objects later a twentieth of a cycle that downloads 10,000 files.
    gc.disable()
    import_structlog()
    module = import_module(command)
    from sidecar_runtime.process import run_main  # noqa: PLC0415 - heavy, too

    gc.freeze()
    gc.enable()
    run_main(module.run, module.PREFIX)


def heed_signals() -> None:
    """
    Exit on SIGTERM and SIGINT from the first moment: a daemon with code 0 (until the loop takes
    over), a command with 128 + the number of the signal.

    The kernel ignores them for process 1 of a container until it has handlers, and a lost signal
    costs the pod its whole grace period. This early there is no work that could be left half done.
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
    Kill the children that were started in parallel with the imports. The kernel's list is used
    because a signal may arrive before this process has noted a child that it just started.
    """
    with suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as file:
        for process in map(int, file.read().split()):
            for kill in (os.killpg, os.kill):  # it may not have its own group yet
                with suppress(OSError):
                    kill(process, signal.SIGKILL)


def end_on_signals() -> None:
    """
    Let SIGTERM and SIGINT end a command with a failure code, after it has cleaned up.

    The exit code is 128 + the number of the signal, as in a shell. ``SystemExit`` is raised in the
    main thread, so that temporary folders are removed and children are killed.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)


def _end(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


class Later(ModuleType):
    """
    A placeholder that imports its module when an attribute is read.
    """

    def __getattr__(self, name: str) -> object:
        return getattr(import_module(self.__name__), name)


def import_structlog() -> None:
    """
    Import structlog without those of its imports that a sidecar does not need.

    They take a fifth of a start's CPU (2026-11): `rich` and `colorama`, if installed (in
    development), for colored tracebacks and for Windows; `asyncio` for async loggers; `uuid` for a
    deprecated feature. Other code can still import these modules.
    """
    spared = {"rich": None, "colorama": None, "asyncio": Later("asyncio"), "uuid": Later("uuid")}
    instead = {name: module for name, module in spared.items() if name not in sys.modules}
    sys.modules.update(instead)  # type: ignore[arg-type]
    import_module("structlog")
    for name in instead:
        del sys.modules[name]
