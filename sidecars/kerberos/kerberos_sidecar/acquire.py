"""
The child that acquires one ticket: reads a request from stdin, answers on stdout, in JSON.

libkrb5 may wait for minutes for KDCs that stay silent, and nothing can interrupt it but the end of
its process: this one is killed with its group at the deadline, and with its parent.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import re
import signal
import sys
from contextlib import suppress
from typing import Any

from kerberos_sidecar.ccache import reduce

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4


def withdraw() -> None:
    """
    Deny processes with the same uid ``/proc/PID/root``, ``mem``, ``environ``, and ptrace.

    In a pod with ``shareProcessNamespace``, a consumer with our uid could read the keytab there. It
    still can while the interpreter starts, because every exec ends this protection. If the kernel
    refuses, the process runs without it.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _end_with(parent: int) -> None:
    """
    End when the parent ends, even by SIGKILL.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before
        sys.exit(1)


def _in_memory(content: bytes) -> str:
    """
    Return the path of a new file in memory: a read-only root without ``/tmp`` is fine.
    """
    fd = os.memfd_create("krb5")
    os.write(fd, content)
    return f"/proc/self/fd/{fd}"


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """
    Acquire a ticket, and read it back as consumers do.

    Args:
        request: ``principal`` and ``keytab``; ``ccache``, a path beside which libkrb5 may write;
            ``overlay`` and ``site``, the contents and the paths that make up its krb5.conf.

    Returns:
        ``ccache`` in base64, ``name`` and ``lifetime_seconds`` in the eyes of a consumer. Or
        ``code`` and ``said``, libkrb5's error, ``is_ticket`` if that is about an issued ticket,
        and ``offered``, the preauthentication that the KDC offered last.
    """
    os.environ["KRB5_CONFIG"] = f"{_in_memory(request['overlay'].encode())}:{request['site']}"
    trace = os.environ.setdefault("KRB5_TRACE", _in_memory(b""))
    import gssapi  # noqa: PLC0415 - after the process has withdrawn, with our krb5.conf

    # With several mechanisms, each failure would take twice as long.
    as_initiator: dict[str, Any] = {"usage": "initiate", "mechs": [gssapi.MechType.kerberos]}
    content = b""
    try:
        name = gssapi.Name(request["principal"], gssapi.NameType.kerberos_principal)
        keytab, ccache = f"FILE:{request['keytab']}", f"FILE:{request['ccache']}"
        store = {"client_keytab": keytab, "ccache": ccache}
        gssapi.Credentials(name=name, store=store, **as_initiator)
        with open(request["ccache"], "rb") as file:
            content = reduce(file.read())
        # With a default client keytab, gssapi would ask a KDC.
        store = {"client_keytab": "MEMORY:", "ccache": f"FILE:{_in_memory(content)}"}
        read = gssapi.Credentials(store=store, **as_initiator)
        found = {"name": str(read.name), "lifetime_seconds": read.lifetime}
    except gssapi.exceptions.ExpiredCredentialsError:
        found = {"name": request["principal"], "lifetime_seconds": 0}
    except gssapi.exceptions.GSSError as error:
        code = (error.min_code ^ 1 << 31) - (1 << 31)
        said = str(error).rpartition(f"Minor ({error.min_code}): ")[2]
        return {"code": code, "said": said, "is_ticket": bool(content), "offered": _offered(trace)}
    finally:
        with suppress(OSError):
            os.unlink(request["ccache"])
    return {"ccache": base64.b64encode(content).decode(), **found}


def _offered(trace: str) -> str:
    with suppress(OSError), open(trace, errors="replace") as file:
        found = re.findall(r"Processing preauth types: (.*)", file.read(1 << 20))
        return str(found[-1]) if found else ""
    return ""


def main() -> None:
    """
    Answer the request on stdin.
    """
    withdraw()
    request = json.load(sys.stdin)
    _end_with(request["parent"])
    json.dump(answer(request), sys.stdout)


if __name__ == "__main__":
    main()
