"""
The HTTP server of a sidecar, on loopback.
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
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import pytest

from sidecar_runtime.errors import SettingsError
from sidecar_runtime.health import Health, LastError, PastCycle, Readiness
from sidecar_runtime.http.endpoint import Endpoint
from sidecar_runtime.http.listener import CONNECTIONS, RETRY_SECONDS, Listener, RequestHandler
from sidecar_runtime.http.page import CONTENT_SECURITY_POLICY
from sidecar_runtime.http.status import About
from sidecar_runtime.metrics import Metrics
from tests.runtime.recording import Log, Script
from tests.support.machine.clocks import Clock
from tests.support.raising import raised
from tests.support.waiting import PATIENCE_SECONDS, wait_until

Start = Callable[..., Endpoint]
Served = TypeVar("Served", bound=Listener)


class Sidecar(Script):
    """A sidecar whose readiness the test sets."""

    is_ready = True

    def readiness(self) -> Readiness:
        return Readiness(self.is_ready, "r1", 5.0, "" if self.is_ready else "missing files")


@contextlib.contextmanager
def serving(listener: Served) -> Iterator[Served]:
    """Serve in a thread until the end of the block."""
    listener.start()
    yield listener
    listener.close()


@pytest.fixture
def start() -> Iterator[Start]:
    """A function that starts an endpoint on a free port; all endpoints end with the test."""
    with contextlib.ExitStack() as stack:

        def begin(bind: tuple[str, int] = ("127.0.0.1", 0), show_status: bool = True) -> Endpoint:
            endpoint = Endpoint(
                bind,
                "BOX_HTTP_BIND",
                about=About("box-sync", "1.2.3", "box://source", "/target"),
                health=Health(Clock()),
                sidecar=Sidecar(),
                metrics=Metrics("box-sync", "1.2.3", "abc"),
                show_status=show_status,
            )
            return stack.enter_context(serving(endpoint))

        yield begin


@pytest.fixture
def endpoint(start: Start, log: Log) -> Endpoint:
    return start()


def ask(endpoint: Listener, path: str, method: str = "GET", **more: Any) -> HTTPResponse:
    connection = HTTPConnection("127.0.0.1", endpoint.server_port, timeout=10)
    connection.request(method, path, **more)
    response = connection.getresponse()
    response.body = response.read()  # type: ignore[attr-defined]
    connection.close()
    return response


def body_of(response: HTTPResponse) -> bytes:
    return response.body  # type: ignore[attr-defined, no-any-return]


def connect(endpoint: Listener) -> socket.socket:
    return socket.create_connection(("127.0.0.1", endpoint.server_port), timeout=10)


# --- answers


def test_liveness_depends_only_on_the_heartbeat(endpoint: Endpoint) -> None:
    endpoint.health.expect_beat(30)
    endpoint.health.record(PastCycle(0, 0, "error", "x", {}), LastError("x", "y", "", 0))
    endpoint.sidecar.is_ready = False  # type: ignore[attr-defined]
    answer = ask(endpoint, "/healthz")
    assert 200 == answer.status
    assert {"alive": True, "heartbeat_age_seconds": 0.0} == json.loads(body_of(answer))

    endpoint.health._clock.seconds += 31.0  # type: ignore[attr-defined]
    answer = ask(endpoint, "/healthz")
    assert 503 == answer.status
    assert {"alive": False, "heartbeat_age_seconds": 31.0} == json.loads(body_of(answer))


def test_readyz_returns_the_readiness_of_the_sidecar(endpoint: Endpoint) -> None:
    answer = ask(endpoint, "/readyz")
    assert answer.status == 200
    assert ("r1", True) == tuple(json.loads(body_of(answer))[key] for key in ("revision", "ready"))

    endpoint.sidecar.is_ready = False  # type: ignore[attr-defined]
    answer = ask(endpoint, "/readyz")
    assert answer.status == 503
    assert json.loads(body_of(answer))["error"] == "missing files"


def test_metrics_are_in_prometheus_format(endpoint: Endpoint) -> None:
    answer = ask(endpoint, "/metrics")

    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert b'sidecar_build_info{revision="abc",sidecar="box-sync",version="1.2.3"} 1.0' in (
        body_of(answer)
    )


def test_the_status_is_available_as_html_and_as_json(endpoint: Endpoint) -> None:
    people, machines = ask(endpoint, "/"), ask(endpoint, "/status")

    assert (200, "text/html; charset=utf-8") == (people.status, people.headers["Content-Type"])
    assert (200, "application/json") == (machines.status, machines.headers["Content-Type"])
    assert json.loads(body_of(machines))["sidecar"] == "box-sync"


def test_the_status_page_can_be_disabled(start: Start, log: Log) -> None:
    endpoint = start(show_status=False)

    assert [404, 404] == [ask(endpoint, path).status for path in ("/", "/status")]
    assert [200, 200] == [ask(endpoint, path).status for path in ("/healthz", "/readyz")]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/", "/status", "/nothing"])
def test_head_is_get_without_the_body(endpoint: Endpoint, path: str) -> None:
    get, head = ask(endpoint, path), ask(endpoint, path, "HEAD")

    assert get.status == head.status
    assert get.headers["Content-Type"] == head.headers["Content-Type"]
    assert int(get.headers["Content-Length"]) == len(body_of(get)) > 0
    assert body_of(head) == b""


def test_a_response_to_head_has_no_body_on_the_wire(endpoint: Endpoint) -> None:
    with connect(endpoint) as client:
        client.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        first, second, _ = read_all(client).split(b"\r\n\r\n")

    assert first.startswith(b"HTTP/1.1 200")
    assert second.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("GET", path, 404) for path in ("/health", "/healthz/", "/status/x", "/../healthz", "*")),
        *((method, "/healthz", 501) for method in ("TRACE", "CONNECT", "PROPFIND", "get")),
        ("GET", "/healthz?verbose=1", 200),
    ],
)
def test_refuses_unknown_paths_and_methods_and_ignores_the_query(
    endpoint: Endpoint, method: str, path: str, status: int
) -> None:
    assert ask(endpoint, path, method).status == status


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_refuses_post_put_patch_delete_and_options(endpoint: Endpoint, method: str) -> None:
    for path in ("/", "/healthz", "/sync"):
        assert ask(endpoint, path, method, body=b"x" * 100_000).status == 405


def test_the_body_of_a_refused_request_is_not_parsed_as_a_request(endpoint: Endpoint) -> None:
    with connect(endpoint) as client:
        inner = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(inner), inner)
        )
        answers = read_all(client)

    assert answers.count(b"HTTP/1.1") == 1
    assert answers.startswith(b"HTTP/1.1 405")


def test_every_response_has_the_security_headers(endpoint: Endpoint) -> None:
    for path in ("/", "/status", "/readyz", "/nothing"):
        headers = ask(endpoint, path).headers
        assert headers["Server"].strip() == "sidecar", "not what it is made of"

        assert headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"


def test_requests_are_logged_at_debug_only(endpoint: Endpoint, log: Log) -> None:
    ask(endpoint, "/healthz")

    wait_until(lambda: log.events("http_request"), "the request is logged")
    assert {"debug"} == {event["level"] for event in log.events("http_request")}


# --- binding


def test_logs_the_address_on_which_it_listens(endpoint: Endpoint, log: Log) -> None:
    assert [f"127.0.0.1:{endpoint.server_port}"] == [
        event["address"] for event in log.events("http_listening")
    ]


def test_listens_on_ipv6_loopback(start: Start, log: Log) -> None:
    endpoint = start(("::1", 0))

    assert log.events("http_listening")[0]["address"] == f"[::1]:{endpoint.server_port}"
    with socket.create_connection(("::1", endpoint.server_port), timeout=10):
        pass
    with pytest.raises(OSError, match="refused"):
        connect(endpoint)


def test_a_port_in_use_is_a_settings_error(endpoint: Endpoint, start: Start) -> None:
    problem = raised(SettingsError, start, ("127.0.0.1", endpoint.server_port)).problems[0]
    assert "BOX_HTTP_BIND" == problem.setting
    assert f"127.0.0.1:{endpoint.server_port}" == problem.value
    assert problem.problem == (
        "cannot listen there: Address already in use (another container of this pod?): "
        "set another port, or 0 for any free one"
    )


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "no-such-host.invalid", "a..b", "x" * 70 + ".invalid", "white space"]
)
def test_an_address_that_cannot_be_bound_is_a_settings_error(start: Start, host: str) -> None:
    error = raised(SettingsError, start, (host, 0))

    assert error.problems[0].problem.startswith("cannot listen there: ")


EVERYWHERE = """
import fcntl, socket, struct, sys
from http import HTTPStatus
from http.client import HTTPConnection
sys.path.insert(0, {root!r})
from sidecar_runtime.http.endpoint import Endpoint
from sidecar_runtime.health import Health
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.http.status import About
from tests.runtime.recording import Script

up = struct.pack("16sh", b"lo", 1)          # IFF_UP: a new network has its loopback down
with socket.socket() as sock:
    fcntl.ioctl(sock, 0x8914, up)           # SIOCSIFFLAGS
about = About("box", "1", "source", "target")
endpoint = Endpoint(("", 0), "BIND", about=about, health=Health(), sidecar=Script(),
                    metrics=Metrics("box", "1", "r"), show_status=True)
endpoint.start()
for host in ("127.0.0.1", "::1"):
    connection = HTTPConnection(host, endpoint.server_port, timeout=10)
    connection.request("GET", "/healthz")
    print(host, connection.getresponse().status)
"""


def test_an_empty_host_listens_on_ipv4_and_ipv6() -> None:
    """Runs in its own network namespace, to listen on no other address than loopback."""
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("a network namespace needs a kernel or container that lets us")
    program = EVERYWHERE.format(root=str(Path(__file__).parents[3]))

    out = subprocess.run(
        [*alone, sys.executable, "-c", program], capture_output=True, text=True, timeout=30
    )

    assert "127.0.0.1 200" in out.stdout, out.stderr
    assert "::1 200" in out.stdout


# --- clients that behave badly


def read_all(client: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while received := client.recv(65536):
            data += received
    return data


@pytest.mark.parametrize("said", [b"", b"GET /healthz HTTP/1.1\r\nHo"])
def test_disconnects_a_client_that_sends_no_complete_request(said: bytes) -> None:
    class Hasty(RequestHandler):
        timeout = 0.05

    with (
        serving(Listener(("127.0.0.1", 0), "HTTP_BIND", Hasty)) as listener,
        connect(listener) as client,
    ):
        client.sendall(said)
        assert read_all(client) == b""


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"h%d: x\r\n" % n for n in range(200)) + b"\r\n",
    ],
    ids=["blank", "tls", "no-path", "version", "long-line", "many-headers"],
)
def test_survives_malformed_requests(endpoint: Endpoint, data: bytes) -> None:
    with connect(endpoint) as client:
        with contextlib.suppress(OSError):  # the server may have closed the connection
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        assert b" 200 " not in read_all(client)

    assert ask(endpoint, "/healthz").status == 200


def test_silent_clients_neither_block_probes_nor_exceed_the_connection_limit() -> None:
    class Patient(RequestHandler):
        timeout = None  # type: ignore[assignment]  # only the server's limit closes a connection

        def do_GET(self) -> None:
            self.answer(HTTPStatus.OK, b"")

    with (
        serving(Listener(("127.0.0.1", 0), "HTTP_BIND", Patient)) as listener,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(connect(listener)) for _ in range(CONNECTIONS * 2)]
        for _ in range(5):
            assert ask(listener, "/healthz").status == 200
        assert len(listener._connections) <= CONNECTIONS
        # The oldest connection was closed.
        assert read_all(clients[0]) == b""
        stack.close()
        wait_until(lambda: not listener._connections, "all are gone")


def test_waits_and_retries_when_no_file_descriptor_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep, done = time.sleep, list[object]()

    def slept(seconds: float) -> None:
        if threading.current_thread() is not threading.main_thread():
            done.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", slept)

    class Patient(RequestHandler):
        def do_GET(self) -> None:
            self.answer(HTTPStatus.OK, b"")

    class Asking(Listener):
        def get_request(self) -> tuple[Any, Any]:
            done.append("asked")
            return super().get_request()

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (
        serving(Asking(("127.0.0.1", 0), "HTTP_BIND", Patient)) as listener,
        socket.socket() as client,
    ):
        try:
            os.close(lowest := os.dup(client.fileno()))
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
            client.connect(listener.server_address[:2])
            wait_until(lambda: done.count("asked") > 2, "it has asked again")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        client.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")

        assert read_all(client).startswith(b"HTTP/1.1 200 ")
    assert ["asked", RETRY_SECONDS, "asked", RETRY_SECONDS, "asked"] == done[:5]


def test_keeps_a_connection_open_for_the_next_request(endpoint: Endpoint) -> None:
    connection = HTTPConnection("127.0.0.1", endpoint.server_port, timeout=10)
    for _ in range(3):
        connection.request("GET", "/metrics")
        assert len(connection.getresponse().read()) > 100
    assert len(endpoint._connections) == 1
    connection.close()


def test_an_idle_endpoint_wakes_up_once_a_day() -> None:
    intervals: SimpleQueue[float] = SimpleQueue()

    class Idle(Listener):
        def serve_forever(self, poll_interval: float = 0.5) -> None:
            intervals.put(poll_interval)

    with Idle(("127.0.0.1", 0), "HTTP_BIND", RequestHandler) as listener:
        listener.start()

        assert 86_400 == intervals.get(timeout=PATIENCE_SECONDS)


def test_a_client_has_five_seconds_for_each_read_and_write() -> None:
    found: list[float | None] = []

    class Handler(RequestHandler):
        def handle(self) -> None:
            found.append(self.connection.gettimeout())

    with Listener(("127.0.0.1", 0), "HTTP_BIND", Handler) as listener:
        with socket.create_connection(listener.server_address[:2]):  # type: ignore[arg-type]
            listener.handle_request()
        wait_until(lambda: found, "the client was heard")

    assert [5.0] == found
