"""
Runs one command and writes what it cost, as JSON, to the file that the first argument names.

A program of its own, small and without any import of ours: the kernel counts the memory of the
process that starts a program into the program's peak, and a benchmark with servers in it is large.
"""

import json
import os
import resource
import sys
import time


def main() -> int:
    """
    Run the command; return its exit code, 128 and more for a signal, as a shell does.
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
        json.dump([usage.ru_utime + usage.ru_stime, wall_seconds, usage.ru_maxrss / 1024], result)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
