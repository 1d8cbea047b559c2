"""
A DNS server on loopback with records defined by a test.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal, Self

import pytest

A, SRV = 1, 33
PORT = 53
Behavior = Literal["answer", "refuse", "silent"]
_addresses = (f"127.{os.getpid() % 250 + 1}.53.{last}" for last in range(1, 255))
PRIVATELY = ("unshare", "--mount", "--propagation", "private")


@cache
def may_mount() -> bool:
    """
    Whether processes on this machine can create mounts; root in a container often cannot.
    """
    return subprocess.run([*PRIVATELY, "true"], capture_output=True, check=False).returncode == 0


class NameServer:
    """
    A DNS server over UDP on port 53 of its own address.

    Args:
        records: Data by name, without the trailing dot, and type.

    Attributes:
        behavior: Can change at any time; `refuse` answers REFUSED, `silent` accepts questions but
            does not answer.
        questions: The number of questions so far.
    """

    def __init__(self, records: dict[tuple[str, int], list[bytes]]) -> None:
        self.address = ""
        self.records = records
        self.behavior: Behavior = "answer"
        self.questions = 0
        self._socket = socket.socket(type=socket.SOCK_DGRAM)

    def __enter__(self) -> Self:
        for self.address in _addresses:
            try:
                self._socket.bind((self.address, PORT))
                break
            except PermissionError:
                pytest.skip("a name server needs root")
            except OSError as error:
                if error.errno != errno.EADDRINUSE:  # another process uses this address
                    raise
        else:
            pytest.skip("a name server needs port 53 of an address of loopback")
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def asked_by(self, folder: Path) -> tuple[str, ...]:
        """
        Return a command prefix that gives a program a resolv.conf with only this server.
        """
        if not may_mount():
            pytest.skip("a resolv.conf of a test's own needs CAP_SYS_ADMIN")
        path = folder / f"resolv-{self.address}.conf"
        path.write_text(f"nameserver {self.address}\n")
        path.chmod(0o644)
        mount = f'mount --bind {path} "$(readlink -f /etc/resolv.conf)" && exec "$@"'
        return (*PRIVATELY, "sh", "-c", mount, "sh")

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                question, client = self._socket.recvfrom(4096)
                if not question:
                    return  # the socket was shut down
                self.questions += 1
                if self.behavior != "silent":
                    self._socket.sendto(self._answer(question), client)

    def _answer(self, question: bytes) -> bytes:
        labels, place = [], 12
        while size := question[place]:
            labels.append(question[place + 1 : place + 1 + size].decode())
            place += 1 + size
        (kind,) = struct.unpack(">H", question[place + 1 : place + 3])
        name = ".".join(labels)
        is_refused = self.behavior == "refuse"
        data = [] if is_refused else self.records.get((name, kind), [])
        is_known = any(name == one for one, _ in self.records)
        flags = 0x8185 if is_refused else 0x8580 if is_known else 0x8583
        head = question[:2] + struct.pack(">HHHHH", flags, 1, len(data), 0, 0)
        answer = b"".join(
            struct.pack(">HHHIH", 0xC00C, kind, 1, 60, len(one)) + one for one in data
        )
        return head + question[12 : place + 5] + answer


def srv(host: str, port: int, priority: int = 0, weight: int = 0) -> bytes:
    """
    Return the data of a SRV record.
    """
    labels = [label.encode() for label in host.split(".") if label]
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return struct.pack(">HHH", priority, weight, port) + name
