"""
A program that is asked one question, within a deadline; nothing of it is left running.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from sidecar_runtime.child import reap_group
from sidecar_runtime.fence import CycleAbandoned, Fence

# Of what a program says; it may say anything, for ever.
KEPT_BYTES = 64 << 10


def ask(
    argv: Sequence[str],
    question: bytes,
    *,
    folder: str,
    environment: Mapping[str, str],
    timeout_seconds: float,
    fence: Fence,
    is_head_kept: bool = False,
) -> tuple[bytes, int]:
    """
    Run a program in a folder; return what is kept of its output, and its exit code.

    Args:
        question: Its standard input.
        is_head_kept: Whether the beginning of a long output counts, and not its end.

    Raises:
        TimeoutError: It took too long; it and its children are killed.
        CycleAbandoned: The fence was revoked; the same.
        OSError: It cannot be started.
    """
    with subprocess.Popen(
        argv,
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as child:

        def kill() -> None:
            if child.returncode is None:  # after that the number may be another's
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)

        fence.on_revoke(kill)
        try:
            said = _talk(
                child,
                question,
                time.monotonic() + timeout_seconds,
                is_head_kept=is_head_kept,
            )
        finally:
            kill()  # with all that it left running
            child.wait()
            reap_group(child.pid)
    if fence.is_revoked:
        raise CycleAbandoned
    return said, child.returncode


def _talk(
    child: subprocess.Popen[bytes], question: bytes, until: float, *, is_head_kept: bool
) -> bytes:
    """
    Send the question and return what is kept of the answer, once the child itself has ended.

    The child is not reaped: its number stays its group's until that is killed.

    Raises:
        TimeoutError: It has not ended by then (monotonic).
    """
    assert child.stdin is not None and child.stdout is not None
    told, heard = child.stdin.fileno(), child.stdout.fileno()
    os.set_blocking(told, False)
    os.set_blocking(heard, False)
    said = b""
    ended = os.pidfd_open(child.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(ended, selectors.EVENT_READ)
            selector.register(heard, selectors.EVENT_READ)
            selector.register(told, selectors.EVENT_WRITE)
            while True:
                left = until - time.monotonic()
                ready = {key.fd for key, _ in selector.select(max(0.0, left))}
                if not ready and left <= 0:
                    raise TimeoutError
                if told in ready:
                    with suppress(BrokenPipeError):
                        question = question[os.write(told, question[: 1 << 16]) :]
                        if question:
                            continue
                    selector.unregister(told)
                    child.stdin.close()
                if heard in ready:
                    said += (block := os.read(heard, 1 << 16))
                    said = said[:KEPT_BYTES] if is_head_kept else said[-KEPT_BYTES:]
                    if not block:
                        selector.unregister(heard)
                elif ended in ready:
                    return said
    finally:
        os.close(ended)
