"""
AWS credentials and configuration, from botocore in a short-lived child process.

``credentials`` caches the child's answer; ``chain`` is the child's program. This module
starts it, and imports almost nothing, because the entry point of s3-sync imports it
before the heavy ones.
"""

import os
import sys
from importlib import import_module
from subprocess import PIPE, Popen

# The children that were started before somebody had a question.
EARLY: list[Popen[bytes]] = []
# Most of what s3-sync and botocore both import.
SHARED = """concurrent.futures contextvars dataclasses glob gzip hashlib hmac html http json queue
shlex ssl tempfile typing urllib.parse uuid xml.etree.ElementTree"""


def start_child(*, is_fork: bool = False) -> Popen[bytes]:
    """
    Start a child, which imports botocore and reads its question from standard input; if
    that ends without one, for example with this process, it ends as well.

    Args:
        is_fork: Of this process, so that ``SHARED`` is imported once. It has no threads
            yet, and nothing of a PYTHONPATH, which could also be that of people who
            write DAGs.

    Raises:
        OSError: No process can be started.
    """
    for name in SHARED.split() if is_fork else ():
        import_module(name)
    return Popen(
        # -I: it will hold secrets, so the working directory and PYTHON* must not affect
        # a new process.
        [sys.executable, "-I", "-m", "sidecar_runtime.aws.chain"],
        -1,
        None,
        PIPE,
        PIPE,
        PIPE,
        _be_the_child if is_fork else None,
        start_new_session=True,
        restore_signals=False,
    )


def _be_the_child() -> None:
    # The search for garbage stays off, as it is in the parent so early: this process ends
    # with its one answer, until when it takes at most a MiB more without.
    # Among them the pipe that tells the parent of an exec, which waits for it.
    os.closerange(3, 1 + max(map(int, os.listdir("/proc/self/fd"))))
    try:
        import_module("sidecar_runtime.aws.chain").main()
    except BaseException:  # noqa: BLE001 - as the interpreter would show it
        sys.excepthook(*sys.exc_info())
    os._exit(1)
