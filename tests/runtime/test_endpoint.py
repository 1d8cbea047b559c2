"""
The HTTP server of a sidecar: its answers, and clients that behave badly.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from sidecar_runtime.http import listener as http_listener
from sidecar_runtime.http.listener import CONNECTIONS, Answer, Listener, listen
from tests.runtime.recording import Log
from tests.support.daemon import ask

LOOPBACK = "127.0.0.1"


# --- the server


BIG = os.urandom(1 << 20) * 20
"""More than the kernel buffers for a client that does not read."""


class Server:
    """A listener with a small, a big and a late answer."""

    def __init__(self) -> None:
        listening = listen((LOOPBACK, 0), "HTTP_BIND")
        self.listener = Listener(listening, self.answer)
        self.address: tuple[str, int] = listening.getsockname()
        self.is_asked = threading.Event()
        self.may_answer = threading.Event()

    def answer(self, path: str) -> Answer:
        if path == "/slow":
            self.is_asked.set()
            assert self.may_answer.wait(60)
        return Answer(HTTPStatus.OK, BIG if path == "/big" else b"{}")

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=10)

    def status(self, path: str = "/") -> int:
        return ask(self.address, path).status


@pytest.fixture
def server(log: Log) -> Iterator[Server]:
    server = Server()
    server.listener.start()
    yield server
    server.listener.close()


def read_all(client: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while received := client.recv(65536):
            data += received
    return data


def get(path: str = "/") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


# --- binding


def test_an_empty_host_listens_on_ipv4_and_ipv6() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("needs a kernel with IPv6")
    with listen(("", 0), "BIND") as listening:
        assert socket.AF_INET6 == listening.family
        assert 0 == listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


# --- clients that behave badly


def test_disconnects_a_client_that_sends_no_complete_request(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_listener, "CLIENT_SECONDS", 0.05)
    with server.connect() as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHo")
        assert read_all(client) == b""


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_survives_malformed_requests(server: Server, data: bytes) -> None:
    with server.connect() as client:
        with contextlib.suppress(OSError):  # the server may have closed the connection
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        assert b" 200 " not in read_all(client)

    assert server.status() == 200


def test_header_lines_without_end_are_cut_off(server: Server) -> None:
    """
    Otherwise the thread would read on, and answer nobody.
    """
    with server.connect() as client:
        sent = client.send(b"GET / HTTP/1.1\r\n")
        with contextlib.suppress(OSError):  # cut off
            while sent < 64 << 20:
                sent += client.send(b"a\r\n" * 20_000)

    assert sent < 16 << 20
    assert server.status() == 200


@pytest.mark.parametrize("method", ["POST", "get"])
def test_refuses_other_methods(server: Server, method: str) -> None:
    with server.connect() as client:
        client.sendall(get().replace(b"GET", method.encode()))
        assert read_all(client).startswith(b"HTTP/1.1 405 ")


def test_silent_clients_neither_block_probes_nor_exceed_the_connection_limit(
    server: Server,
) -> None:
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(server.connect()) for _ in range(CONNECTIONS * 2)
        ]
        for _ in range(5):
            assert server.status() == 200
        # The oldest connection was closed.
        assert read_all(clients[0]) == b""
        clients[-1].sendall(get())
        assert read_all(clients[-1]).startswith(b"HTTP/1.1 200 ")


def test_a_burst_of_silent_clients_does_not_push_out_a_probe_that_was_sent(
    server: Server,
) -> None:
    """The listener gets no CPU for a while, and then finds all of them at once."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(server.connect()).sendall(get("/slow"))
        assert server.is_asked.wait(10)
        probe = stack.enter_context(server.connect())
        probe.sendall(get())
        for _ in range(CONNECTIONS * 2):
            stack.enter_context(server.connect())
        server.may_answer.set()

        assert read_all(probe).startswith(b"HTTP/1.1 200 ")


def test_an_answer_of_any_size_arrives_and_delays_no_other_client(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_listener, "CLIENT_SECONDS", 60)  # on a busy machine
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(server.connect()) for _ in range(2)]
        for client in slow:
            client.sendall(get("/big"))
        assert server.status() == 200

        for client in slow:
            assert read_all(client).endswith(BIG)
