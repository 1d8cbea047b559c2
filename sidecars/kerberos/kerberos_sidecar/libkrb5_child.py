"""
The child that acquires one ticket: reads a request from stdin, answers on stdout, in
JSON.

libkrb5 may wait for minutes for KDCs that stay silent, and nothing can interrupt it but
the end of its process: this one is killed with its group at the deadline, and with its
parent.
"""

import ctypes
import json
import os
import signal
import sys
from typing import Any

from sidecar_runtime.volume.files import open_file

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


def withdraw() -> None:
    """
    Deny processes with the same uid ``/proc/PID/root``, ``mem``, ``environ``, and
    ptrace.

    In a pod with ``shareProcessNamespace``, a consumer with our uid could read the
    keytab there. It still can while the interpreter starts, because every exec ends
    this protection. If the kernel refuses, the process runs without it.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def take(path: str, owner: int) -> bytes:
    """
    Remove what libkrb5 wrote, and return it.

    Raises:
        OSError: Another user of the folder has put something else there.
    """
    with open_file(path, dir_fd=None) as file:
        os.unlink(path)
        if os.fstat(file.fileno()).st_uid != owner:
            raise PermissionError(f"another user exchanged {path}")
        return file.read()


def ask_libkrb5(request: dict[str, Any]) -> dict[str, Any]:
    """
    Acquire a ticket.

    Args:
        request: ``principal``; ``client_keytab`` and ``ccache``, paths, of which the
            latter does not exist yet; ``owner``, the uid of what we create there;
            ``overlay`` and ``site``, contents and paths that make up krb5.conf.

    Returns:
        ``ccache``, what libkrb5 wrote, a character for each byte. Or ``code`` and
        ``text``, its error. libkrb5 traces to stderr, so that the parent knows what
        KDCs said if this process is killed.
    """
    # in memory: a read-only root without /tmp is fine
    overlay = os.memfd_create("krb5")
    os.write(overlay, request["overlay"].encode())
    os.environ["KRB5_CONFIG"] = f"/proc/self/fd/{overlay}:{request['site']}"
    os.environ["KRB5_TRACE"] = "/proc/self/fd/2"
    import gssapi  # noqa: PLC0415 - after the process has withdrawn, with our krb5.conf

    # With the default mechanisms, each failure takes twice as long.
    mechs = [gssapi.MechType.kerberos]
    store = {name: f"FILE:{request[name]}" for name in ("client_keytab", "ccache")}
    try:
        name = gssapi.Name(request["principal"], gssapi.NameType.kerberos_principal)
        gssapi.Credentials(name=name, usage="initiate", mechs=mechs, store=store)
        return {"ccache": take(request["ccache"], request["owner"]).decode("latin-1")}
    except gssapi.exceptions.GSSError as error:
        return {
            "code": ctypes.c_int32(error.min_code).value,
            "text": str(error).rpartition(f"Minor ({error.min_code}): ")[2],
        }


def main() -> None:
    """
    Answer the request on stdin; end when the parent ends, even by SIGKILL.
    """
    withdraw()
    request = json.load(sys.stdin)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != request["parent"]:  # it ended before
        sys.exit(1)
    json.dump(ask_libkrb5(request), sys.stdout)


if __name__ == "__main__":
    main()
