"""
Starts the credential chain before a sidecar's own imports.

The imports take as long as botocore's in the child, or as the answer of STS. In parallel, a cold
start waits for only one of them (2026-11).
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
# The credentials in an older answer may have expired.
FRESH_SECONDS = 60.0

_asked: tuple[Sequence[str], subprocess.Popen[bytes], float] | None = None


def command_of(module: str, arguments: Sequence[str]) -> list[str]:
    """
    Return the command of a module that answers with :func:`sidecar_runtime.aws.chain.answer`.
    """
    # -I: the process holds secrets, so the working directory and PYTHON* must not affect it.
    return [sys.executable, "-I", "-m", module, *arguments]


def ask(*, is_anonymous: bool) -> None:
    """
    Start the chain, unless the environment answers; a failure to start is reported by a later run.
    """
    global _asked  # noqa: PLW0603 - one per process, like its signal handlers
    if not is_anonymous and environment.answer(os.environ):
        return
    command = command_of(CHAIN, ["anonymous"] * is_anonymous)
    with suppress(OSError):
        _asked = command, child.start(command, os.environ, "."), time.monotonic()


def take(command: Sequence[str]) -> subprocess.Popen[bytes] | None:
    """
    Return the process that was started early with this command, once; then the caller owns it.
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
    Kill a process that was not taken, and its process group.
    """
    global _asked  # noqa: PLW0603
    if _asked is not None:
        _, process, _ = _asked
        _asked = None
        child.end(process)
