"""
AWS credentials and configuration, from botocore in a short-lived child process.

``credentials`` caches the child's answer; ``chain`` is the child's program. This module starts it,
and imports almost nothing, because the entry point of s3-sync imports it before the heavy ones.
"""

import sys
from subprocess import PIPE, Popen

# The children that were started before somebody had a question.
EARLY: list[Popen[bytes]] = []


def start_child() -> Popen[bytes]:
    """
    Start a child, which imports botocore and reads its question from standard input; if that ends
    without one, for example with this process, it ends as well.

    Raises:
        OSError: No process can be started.
    """
    # -I: the process holds secrets, so the working directory and PYTHON* must not affect it.
    program = [sys.executable, "-I", "-m", "sidecar_runtime.aws.chain"]
    return Popen(program, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True)
