"""
The entry point of ``kerberos-sidecar``.
"""

import ctypes
from typing import NoReturn

from sidecar_runtime.entry import enter

_PR_SET_DUMPABLE = 4


def main() -> NoReturn:
    hide_from_neighbors()
    enter("kerberos_sidecar.command")


def hide_from_neighbors() -> None:
    """
    Deny processes with the same uid ``/proc/PID/root``, ``mem``, ``environ``, and ptrace.

    In a pod with ``shareProcessNamespace``, a consumer with our uid could read the keytab there. It
    still can while the interpreter starts, because every exec ends this protection. If the kernel
    refuses, the sidecar runs without it.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


if __name__ == "__main__":
    main()
