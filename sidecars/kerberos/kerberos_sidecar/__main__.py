"""
The entry point of ``kerberos-sidecar``.
"""

import ctypes
from typing import NoReturn

from sidecar_runtime.signals import heed_signals

_PR_SET_DUMPABLE = 4


def hide_from_neighbors() -> None:
    """
    Deny processes with the same uid ``/proc/PID/root``, ``mem``, ``environ``, and ptrace.

    In a pod with ``shareProcessNamespace``, a consumer with our uid could read the keytab there. It
    still can while the interpreter starts, because every exec ends this protection. If the kernel
    refuses, the sidecar runs without it.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


# Before the imports that take most of a start.
heed_signals()
hide_from_neighbors()

from kerberos_sidecar.command import run  # noqa: E402
from sidecar_runtime.app import run_main  # noqa: E402


def main() -> NoReturn:
    run_main(run)


if __name__ == "__main__":
    main()
