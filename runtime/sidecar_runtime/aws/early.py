"""
The question to the credential chain that a sidecar puts before its own imports.

Those take as long as botocore's in the child, or the answer of STS: side by side, a cold start
waits for one of them (2026-11).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from sidecar_runtime import child
from sidecar_runtime.aws import environment

CHAIN = "sidecar_runtime.aws.chain"
# An answer that nobody wanted for so long may have ended meanwhile.
FRESH_SECONDS = 60.0

_asked: tuple[Sequence[str], subprocess.Popen[bytes], float] | None = None


def command_of(module: str, arguments: Sequence[str]) -> list[str]:
    """
    Return how a module is run that answers by :func:`sidecar_runtime.aws.chain.answer`.
    """
    # -I: nothing of the working directory or PYTHON* reaches what holds secrets.
    return [sys.executable, "-I", "-m", module, *arguments]


def ask(*, is_anonymous: bool) -> None:
    """
    Put the question; where no process can be started, whoever wants the answer will say so.
    """
    global _asked  # noqa: PLW0603 - of the process, as its signals are
    if not is_anonymous and environment.answer(os.environ):
        return
    command = command_of(CHAIN, ["anonymous"] * is_anonymous)
    with suppress(OSError):
        _asked = command, child.start(command, os.environ, "."), time.monotonic()


def take(command: Sequence[str]) -> subprocess.Popen[bytes] | None:
    """
    Return the process that was asked just this a moment ago; once, it is the caller's then.
    """
    global _asked  # noqa: PLW0603
    if _asked is not None:
        asked, process, at = _asked
        if asked == command and time.monotonic() - at <= FRESH_SECONDS:
            _asked = None
            return process
    drop()
    return None


def drop() -> None:
    """
    End what nobody waits for, with all that it has started.
    """
    global _asked  # noqa: PLW0603
    if _asked is not None:
        _, process, _ = _asked
        _asked = None
        child.end(process)
