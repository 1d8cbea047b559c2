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
from sidecar_runtime.health import Health, Outcome, Readiness
from sidecar_runtime.http import listener as http_listener
from sidecar_runtime.http.endpoint import Endpoint
from sidecar_runtime.http.listener import CONNECTIONS, Answer, Listener, listen
from sidecar_runtime.http.status import CONTENT_SECURITY_POLICY
from sidecar_runtime.metrics import Metrics
from tests.runtime.recording import Log
from tests.runtime.sidecars import ABOUT, READY, Sidecar
from tests.support.daemon import ask
from tests.support.machine.clocks import Clock
from tests.support.raising import raised
from tests.support.waiting import PATIENCE_SECONDS, wait_until

LOOPBACK = "127.0.0.1"
NOT_READY = Sidecar(Readiness(False, "r1", 5.0, "missing files"))


@pytest.fixture
def health() -> Health:
    return Health(Clock())


@pytest.fixture
def endpoint(health: Health) -> Endpoint:
    return Endpoint(ABOUT, health, READY, Metrics("box-sync", "1.2.3", "abc"))


# --- answers


def test_liveness_depends_only_on_the_heartbeat(endpoint: Endpoint, health: Health) -> None:
    health.expect_beat(30)
    health.record(Outcome("error", problem=SidecarError("x", "y")), 0)
    endpoint = endpoint._replace(sidecar=NOT_READY)
    status, body, _ = endpoint.answer("/healthz")
    assert (200, {"alive": True, "heartbeat_age_seconds": 0.0}) == (status, json.loads(body))

    health._clock.seconds += 31.0  # type: ignore[attr-defined]
    status, body, _ = endpoint.answer("/healthz")
    assert (503, {"alive": False, "heartbeat_age_seconds": 31.0}) == (status, json.loads(body))


def test_readiness_is_that_of_the_sidecar(endpoint: Endpoint) -> None:
    assert HTTPStatus.OK == endpoint.answer("/readyz").status
    status, body, _ = endpoint._replace(sidecar=NOT_READY).answer("/readyz")
    assert (503, "missing files") == (status, json.loads(body)["error"])


def test_metrics_are_in_prometheus_format(endpoint: Endpoint) -> None:
    status, body, kind = endpoint.answer("/metrics")

    assert (200, True) == (status, kind.startswith("text/plain; version="))
    assert b'sidecar_build_info{sidecar="box-sync",version="1.2.3",revision="abc"} 1.0' in body or (
        b'sidecar_build_info{revision="abc",sidecar="box-sync",version="1.2.3"} 1.0' in body
    )
    for name in (b"process_resident_memory_bytes", b"process_open_fds", b"sidecar_ready"):
        assert b"\n# TYPE %s gauge\n%s" % (name, name) in body


def test_the_status_page_can_be_disabled(endpoint: Endpoint) -> None:
    assert "text/html; charset=utf-8" == endpoint.answer("/").content_type
    assert "box-sync" == json.loads(endpoint.answer("/status").body)["sidecar"]
    hidden = endpoint._replace(shows_status=False)
    answers = {path: hidden.answer(path).status for path in ("/", "/status", "/healthz")}
    assert {"/": 404, "/status": 404, "/healthz": 200} == answers


@pytest.mark.parametrize("path", ["/health", "/healthz/", "/status/x", "/../healthz", "*", ""])
def test_other_paths_do_not_exist(endpoint: Endpoint, path: str) -> None:
    assert HTTPStatus.NOT_FOUND == endpoint.answer(path).status
    assert HTTPStatus.OK == endpoint.answer("/healthz?verbose=1").status


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
        self.listener = Listener(listen((LOOPBACK, 0), "HTTP_BIND"), self._answer)
        self.address = LOOPBACK, self.listener.port

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


def test_head_is_get_without_the_body(server: Server) -> None:
    with server.connect() as client, server.connect() as other:
        client.sendall(get().replace(b"GET", b"HEAD"))
        other.sendall(get())

        assert read_all(client) + server.body == read_all(other)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get"])
def test_refuses_other_methods(server: Server, method: str) -> None:
    with server.connect() as client:
        client.sendall(f"{method} / HTTP/1.1\r\nHost: x\r\n\r\n".encode() + get())
        answers = read_all(client)

    assert answers.startswith(b"HTTP/1.1 405 ")
    assert 1 == answers.count(b"HTTP/1.1")


def test_every_answer_has_the_security_headers(server: Server) -> None:
    for path in ("/", "/bug"):
        headers = ask(server.address, path).headers
        assert headers["server"] == "sidecar", "not what it is made of"
        assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_requests_are_logged_at_debug_only(server: Server, log: Log) -> None:
    server.status()

    assert {"debug"} == {event["level"] for event in log.events("http_request")}


def test_a_bug_in_an_answer_is_logged_and_ends_nothing(server: Server, log: Log) -> None:
    assert [500, 200] == [server.status(path) for path in ("/bug", "/")]
    (event,) = log.events("http_answer_failed")
    assert ("error", "/bug") == (event["level"], event["path"])
    assert "ValueError: a bug" in event["exception"]


def test_requests_start_no_threads(server: Server) -> None:
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(server.connect()).sendall(get())
        assert server.status() == 200
        assert before == threading.active_count()


def test_close_ends_the_thread_and_frees_the_port(server: Server) -> None:
    threads = [thread for thread in threading.enumerate() if thread.name == "http"]
    with server.connect() as client:
        assert server.status() == 200
        server.listener.close()
        server.listener.close()

        wait_until(lambda: not any(thread.is_alive() for thread in threads), "they have ended")
        assert read_all(client) == b""
    server.listener.close()
    listen(server.address, "HTTP_BIND").close()


# --- binding


def test_logs_the_address_on_which_it_listens(server: Server, log: Log) -> None:
    shown = [event["address"] for event in log.events("http_listening")]
    assert [f"{LOOPBACK}:{server.listener.port}"] == shown


def test_a_port_in_use_is_a_settings_error(server: Server) -> None:
    problem = raised(SettingsError, listen, server.address, "BOX_HTTP_BIND").problems[0]
    assert "BOX_HTTP_BIND" == problem.setting
    assert f"{LOOPBACK}:{server.listener.port}" == problem.value
    assert problem.problem == (
        "cannot listen there: Address already in use (another container of this pod?): "
        "set another port, or 0 for any free one"
    )


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "no-such-host.invalid", "a..b", "x" * 70 + ".invalid", "white space"]
)
def test_an_address_that_cannot_be_bound_is_a_settings_error(host: str) -> None:
    error = raised(SettingsError, listen, (host, 0), "HTTP_BIND")

    assert error.problems[0].problem.startswith("cannot listen there: ")


EVERYWHERE = """
import fcntl, socket, struct
from http import HTTPStatus
from http.client import HTTPConnection
from sidecar_runtime.http.listener import Answer, Listener, listen

up = struct.pack("16sh", b"lo", 1)          # IFF_UP: a new network has its loopback down
with socket.socket() as sock:
    fcntl.ioctl(sock, 0x8914, up)           # SIOCSIFFLAGS
listener = Listener(listen(("", 0), "BIND"), lambda path: Answer(HTTPStatus.OK, b""))
listener.start()
for host in ("127.0.0.1", "::1"):
    connection = HTTPConnection(host, listener.port, timeout=10)
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


def test_a_client_that_sends_byte_by_byte_has_no_more_time_than_others(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_listener, "CLIENT_SECONDS", 0.1)
    with server.connect() as client, contextlib.suppress(OSError):
        for _ in range(int(PATIENCE_SECONDS / 0.02)):
            client.sendall(b"G")
            time.sleep(0.02)
        raise AssertionError("it was not disconnected")


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
        b"GET / HTTP/1.1\r\n" + b"".join(b"h%d: x\r\n" % n for n in range(20_000)) + b"\r\n",
    ],
    ids=["blank", "tls", "no-path", "0.9", "version", "http2", "long-line", "many-headers"],
)
def test_survives_malformed_requests(server: Server, data: bytes) -> None:
    with server.connect() as client:
        with contextlib.suppress(OSError):  # the server may have closed the connection
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        assert b" 200 " not in read_all(client)

    assert server.status() == 200


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\r\nA: b\n\r\n"])
def test_answers_a_client_that_sends_in_parts_and_half_closes(server: Server, end: bytes) -> None:
    with server.connect() as client:
        for part in (b"\r\nGET /", b" HTTP/1.0", end):
            client.sendall(part)
            time.sleep(0.01)
        client.shutdown(socket.SHUT_WR)

        assert read_all(client).startswith(b"HTTP/1.1 200 ")


def test_closes_each_connection_after_one_answer(server: Server) -> None:
    """Prometheus and browsers ask for more on one connection; then they open another one."""
    with server.connect() as client:
        client.sendall(get(more="Connection: keep-alive\r\n") * 3)

        answers = read_all(client)

    assert 1 == answers.count(b"HTTP/1.1 200 ")
    assert b"\r\nConnection: close\r\n" in answers


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


def test_disconnects_a_client_that_does_not_read_its_answer(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_listener, "ANSWER_SECONDS", 0.1)
    with server.connect() as client:
        client.sendall(get("/big"))
        time.sleep(1)

        assert len(read_all(client)) < len(server.big)


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
