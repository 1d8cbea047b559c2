"""
A relay in front of a KDC that goes silent or sends garbage on demand.
"""

import socket
import struct
import threading
from contextlib import suppress
from typing import Literal, Self

from tests.support.program import own_port

Behavior = Literal["relay", "silent", "garbage"]
GARBAGE = b"\x7e\x5a" * 100
TIMEOUT_SECONDS = 10


class KdcProxy:
    """
    One port on 127.0.0.1, UDP and TCP; `behavior` can change at any time.

    `silent` accepts requests and keeps connections open, `garbage` answers with bytes
    that are not Kerberos.
    """

    def __init__(self, kdc_port: int) -> None:
        """
        Describe a relay to a KDC on 127.0.0.1.
        """
        self.behavior: Behavior = "relay"
        self.requests = 0
        """The number of requests so far, answered or not."""
        self.datagrams = b""
        """Their content over UDP, in which the names of principals are legible."""
        self._kdc = ("127.0.0.1", kdc_port)
        self._silent: list[socket.socket] = []
        self._ends = threading.Event()
        self.port = own_port(udp=True)
        self._tcp = socket.create_server(("127.0.0.1", self.port))
        self._udp = socket.socket(type=socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))

    @property
    def address(self) -> str:
        """
        Host and port in the format of krb5.conf.
        """
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        for target in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=target, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for end in (self._tcp, self._udp, *self._silent):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _serve_udp(self) -> None:
        while not self._ends.is_set():
            with suppress(OSError):
                data, client = self._udp.recvfrom(65536)
                if not data:
                    continue  # the socket was shut down
                self.requests, self.datagrams = self.requests + 1, self.datagrams + data
                if self.behavior == "garbage":
                    self._udp.sendto(GARBAGE, client)
                elif self.behavior == "relay":
                    self._relay_udp(data, client)

    def _relay_udp(self, data: bytes, client: tuple[str, int]) -> None:
        with suppress(OSError), socket.socket(type=socket.SOCK_DGRAM) as kdc:
            kdc.settimeout(TIMEOUT_SECONDS)
            kdc.connect(self._kdc)
            kdc.send(data)
            self._udp.sendto(kdc.recv(65536), client)

    def _serve_tcp(self) -> None:
        while not self._ends.is_set():
            with suppress(OSError):
                connection, _ = self._tcp.accept()
                threading.Thread(
                    target=self._relay_tcp, args=(connection,), daemon=True
                ).start()

    def _relay_tcp(self, client: socket.socket) -> None:
        self.requests += 1
        if self.behavior == "silent":
            self._silent.append(client)
            return
        with client, suppress(OSError):
            client.settimeout(TIMEOUT_SECONDS)
            request = _read_message(client)
            if self.behavior == "garbage":
                client.sendall(struct.pack(">I", len(GARBAGE)) + GARBAGE)
            else:
                with socket.create_connection(self._kdc, TIMEOUT_SECONDS) as kdc:
                    kdc.sendall(request)
                    client.sendall(_read_message(kdc))


def _read_message(connection: socket.socket) -> bytes:
    """
    Read one message with its length prefix (RFC 4120, 7.2.2).
    """
    head = connection.recv(4, socket.MSG_WAITALL)
    return head + connection.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
