"""
Run one command and write its cost as JSON to the file in the first argument.

This is a small program without imports from the project: the kernel includes the memory
of the starting process in the peak of a program, and a benchmark process with servers
is large.
"""

import json
import os
import resource
import sys
import time


def main() -> int:
    """
    Run the command; return its exit code, or 128 plus the number of the signal, as a
    shell does.
    """
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            os.execvp(sys.argv[2], sys.argv[2:])
        finally:
            os._exit(127)
    _, status = os.waitpid(pid, 0)
    wall_seconds = time.monotonic() - began
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(sys.argv[1], "w") as result:
        json.dump(
            [usage.ru_utime + usage.ru_stime, wall_seconds, usage.ru_maxrss / 1024],
            result,
        )
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
