"""
The HTTP server of a sidecar, on loopback: its answers, and clients that behave badly.
"""

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from sidecar_runtime.errors import SettingsError, SidecarError
from sidecar_runtime.health import Health, Outcome
from sidecar_runtime.http import listener as http_listener
from sidecar_runtime.http.endpoint import Endpoint
from sidecar_runtime.http.listener import CONNECTIONS, Answer, Listener, listen
from sidecar_runtime.metrics import Metrics
from tests.runtime.recording import Log
from tests.runtime.sidecars import ABOUT, READY
from tests.support.daemon import ask
from tests.support.machine.clocks import Clock
from tests.support.raising import raised

LOOPBACK = "127.0.0.1"


@pytest.fixture
def health() -> Health:
    return Health(Clock())


@pytest.fixture
def endpoint(health: Health) -> Endpoint:
    return Endpoint(ABOUT, health, READY, Metrics("box-sync", "1.2.3", "abc"))


# --- answers


def test_metrics_are_in_prometheus_format(endpoint: Endpoint) -> None:
    status, body, kind = endpoint.answer("/metrics")

    assert (200, True) == (status, kind.startswith("text/plain; version="))
    assert b'sidecar_build_info{sidecar="box-sync",version="1.2.3",revision="abc"} 1.0' in body or (
        b'sidecar_build_info{revision="abc",sidecar="box-sync",version="1.2.3"} 1.0' in body
    )
    for name in (b"process_resident_memory_bytes", b"process_open_fds", b"sidecar_ready"):
        assert b"\n# TYPE %s gauge\n%s" % (name, name) in body


def test_text_that_is_not_unicode_is_escaped_in_every_answer(endpoint: Endpoint) -> None:
    """File names that are not UTF-8 have lone surrogates, which strict readers of JSON refuse."""
    name = "caf\udce9"
    endpoint.health.record(Outcome("error", "", {name: 1}, SidecarError("no", name, name)), 0)
    endpoint.metrics.failures(name).inc()

    for path in ("/readyz", "/status", "/", "/metrics"):
        text = endpoint.answer(path).body.decode()
        if path in ("/readyz", "/status"):
            text = json.dumps(json.loads(text), ensure_ascii=False).replace("\\\\", "\\")
        assert text.encode()
        assert r"caf\udce9" in text.replace("\\\\", "\\"), path


# --- the server


class Server:
    """A listener whose answers the test controls."""

    def __init__(self) -> None:
        self.body = b"{}"
        self.big = os.urandom(1 << 20) * 20
        """More than the kernel buffers for a client that does not read."""
        listening = listen((LOOPBACK, 0), "HTTP_BIND")
        self.listener = Listener(listening, self._answer)
        self.address: tuple[str, int] = listening.getsockname()

    def _answer(self, path: str) -> Answer:
        if path == "/bug":
            raise ValueError("a bug")
        return Answer(HTTPStatus.OK, self.big if path == "/big" else self.body)

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


def get(path: str = "/", more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode()


def test_requests_start_no_threads(server: Server) -> None:
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(server.connect()).sendall(get())
        assert server.status() == 200
        assert before == threading.active_count()


# --- binding


def test_a_port_in_use_is_a_settings_error(server: Server) -> None:
    problem = raised(SettingsError, listen, server.address, "BOX_HTTP_BIND").problems[0]
    assert "BOX_HTTP_BIND" == problem.setting
    assert f"{LOOPBACK}:{server.address[1]}" == problem.value
    assert problem.problem == (
        "cannot listen there: Address already in use (another container of this pod?): "
        "set another port, or 0 for any free one"
    )


EVERYWHERE = """
import fcntl, socket, struct
from http import HTTPStatus
from http.client import HTTPConnection
from sidecar_runtime.http.listener import Answer, Listener, listen

up = struct.pack("16sh", b"lo", 1)          # IFF_UP: a new network has its loopback down
with socket.socket() as sock:
    fcntl.ioctl(sock, 0x8914, up)           # SIOCSIFFLAGS
listening = listen(("", 0), "BIND")
Listener(listening, lambda path: Answer(HTTPStatus.OK, b"")).start()
for host in ("127.0.0.1", "::1"):
    connection = HTTPConnection(host, listening.getsockname()[1], timeout=10)
    connection.request("GET", "/healthz")
    print(host, connection.getresponse().status)
"""


def test_an_empty_host_listens_on_ipv4_and_ipv6() -> None:
    """Runs in its own network namespace, to listen on no other address than loopback."""
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("a network namespace needs a kernel or container that lets us")
    out = subprocess.run(
        [*alone, sys.executable, "-c", EVERYWHERE], capture_output=True, text=True, timeout=30
    )

    assert "127.0.0.1 200" in out.stdout, out.stderr
    assert "::1 200" in out.stdout


# --- clients that behave badly


@pytest.mark.parametrize("said", [b"", b"GET /healthz HTTP/1.1\r\nHo"])
def test_disconnects_a_client_that_sends_no_complete_request(
    server: Server, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(http_listener, "CLIENT_SECONDS", 0.05)
    with server.connect() as client:
        client.sendall(said)
        assert read_all(client) == b""


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["blank", "tls", "no-path", "0.9", "version", "http2", "long-line"],
)
def test_survives_malformed_requests(server: Server, data: bytes) -> None:
    with server.connect() as client:
        with contextlib.suppress(OSError):  # the server may have closed the connection
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        assert b" 200 " not in read_all(client)

    assert server.status() == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
def test_refuses_other_methods(server: Server, method: str) -> None:
    with server.connect() as client:
        client.sendall(f"{method} / HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert read_all(client).startswith(b"HTTP/1.1 405 ")


def test_silent_clients_neither_block_probes_nor_exceed_the_connection_limit(
    server: Server,
) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(CONNECTIONS * 2)]
        for _ in range(5):
            assert server.status() == 200
        # The oldest connection was closed.
        assert read_all(clients[0]) == b""
        clients[-1].sendall(get())
        assert read_all(clients[-1]).startswith(b"HTTP/1.1 200 ")


def test_an_answer_of_any_size_arrives_and_delays_no_other_client(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(server.connect()) for _ in range(5)]
        for client in slow:
            client.sendall(get("/big"))
        assert server.status() == 200

        for client in slow:
            assert read_all(client).endswith(server.big)


def test_answers_as_soon_as_a_file_descriptor_is_free_again(server: Server) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client:
        try:
            os.close(lowest := os.dup(client.fileno()))
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
            client.connect(server.address)
            time.sleep(0.5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        client.sendall(get())

        assert read_all(client).startswith(b"HTTP/1.1 200 ")
